"""What is sold and to whom, as coupons and credits see it, from PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from core.calendar import Calendar
from rating.domain.cycle import Interval, calendar_cycle
from runtime.postgres import Connection
from subscriptions.coupon_ports import Holder

_HOLDERS = (
    "SELECT subscription_id, currency, time_zone, billing_anchor_day, started_at, ended_at"
    " FROM subscriptions JOIN tenants USING (tenant_id) WHERE tenant_id = %s ORDER BY started_at, subscription_id"
)


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
        return [
            Holder(
                tenant_id=tenant_id,
                subscription_id=row["subscription_id"],
                currency=row["currency"],
                cycle=calendar_cycle(
                    Interval.MONTH, Calendar(row["time_zone"], row["billing_anchor_day"]), row["started_at"]
                ),
                started_at=row["started_at"],
                ended_at=row["ended_at"],
            )
            for row in await self._rows(_HOLDERS, tenant_id)
        ]

    async def _rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        # The texts are this file's and its heirs' own; only bound values vary.
        return await (await self._connection.execute(query.encode(), arguments)).fetchall()
