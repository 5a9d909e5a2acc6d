"""What is sold and to whom, as coupons and credits see it, from PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rating.adapters.stored_timelines import read_subscriptions
from runtime.postgres import Connection
from subscriptions.coupon_ports import Holder


class PostgresSaleFacts:
    """`SaleFacts` on the caller's connection and transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def currency_of(self, tenant_id: str) -> str | None:
        """Return the currency a tenant pays in, None if there is no such tenant."""
        rows = await self._rows("SELECT currency FROM tenants WHERE tenant_id = %s", tenant_id)
        return rows[0]["currency"] if rows else None

    async def unknown_plans(self, plan_ids: Collection[str]) -> set[str]:
        """Return those that are no plan."""
        rows = await self._rows("SELECT DISTINCT plan_id FROM plan_versions WHERE plan_id = ANY(%s)", list(plan_ids))
        return set(plan_ids) - {row["plan_id"] for row in rows}

    async def unknown_meters(self, meter_ids: Collection[str]) -> set[str]:
        """Return those that are no meter."""
        rows = await self._rows("SELECT meter_id FROM meters WHERE meter_id = ANY(%s)", list(meter_ids))
        return set(meter_ids) - {row["meter_id"] for row in rows}

    async def holders(self, tenant_id: str) -> list[Holder]:
        """Return a tenant's subscriptions, ended ones too, by start."""
        currency = await self.currency_of(tenant_id)
        if currency is None:
            return []
        found = []
        for subscription in await read_subscriptions(self._connection, tenant_ids=[tenant_id]):
            timeline = subscription.timeline()
            found.append(
                Holder(
                    tenant_id=tenant_id,
                    subscription_id=subscription.subscription_id,
                    currency=currency,
                    cycle=timeline.cycle,
                    started_at=subscription.started_at,
                    ended_at=timeline.ended_at,
                    phases=timeline.phases,
                )
            )
        return found

    async def _rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        # The texts are this file's and its heirs' own; only bound values vary.
        return await (await self._connection.execute(query.encode(), arguments)).fetchall()
