"""Tenants, subscriptions and quota limits in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from core.meters import Meter
from core.period import Period
from rating.domain.plan import QuotaLimit
from runtime.postgres import Connection
from runtime.stored_meters import read_meters
from subscriptions.domain.subscription import Subscription
from subscriptions.domain.tenant import Tenant
from subscriptions.ports import PlanVersion

_TENANTS = "SELECT tenant_id, name, email, country, currency, address, time_zone, billing_anchor_day FROM tenants"


class PostgresSubscriptionStore:
    """A `SubscriptionStore` on the caller's connection and transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def tenant(self, tenant_id: str, *, lock: bool = False) -> Tenant | None:
        """Return a tenant, None if unknown; `lock` keeps others from changing its subscriptions meanwhile."""
        query = _TENANTS + " WHERE tenant_id = %s" + (" FOR NO KEY UPDATE" if lock else "")
        rows = await self._rows(query, (tenant_id,))
        return Tenant(**rows[0]) if rows else None

    async def add_tenant(self, tenant: Tenant, now: datetime) -> bool:
        """Store a tenant unless its id is taken; tells whether it was new."""
        added = await self._connection.execute(
            "INSERT INTO tenants (tenant_id, name, email, country, currency, address, time_zone, billing_anchor_day,"
            " created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (tenant_id) DO NOTHING",
            (*astuple(tenant), now),
        )
        return added.rowcount == 1

    async def newest_plan(self, plan_id: str) -> PlanVersion | None:
        """Return the newest version of a plan, None if unknown."""
        rows = await self._rows(
            "SELECT plan_id, version, document FROM plan_versions WHERE plan_id = %s ORDER BY version DESC LIMIT 1",
            (plan_id,),
        )
        return PlanVersion(**rows[0]) if rows else None

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        return await read_meters(self._connection)

    async def open_subscription(self, tenant_id: str) -> Subscription | None:
        """Return the tenant's subscription that has no end, None if there is none."""
        rows = await self._rows(
            "SELECT subscription_id, tenant_id, plan_id, plan_version, overrides, started_at, ended_at"
            " FROM subscriptions WHERE tenant_id = %s AND ended_at IS NULL",
            (tenant_id,),
        )
        return Subscription(**rows[0]) if rows else None

    async def add_subscription(self, subscription: Subscription) -> None:
        """Store a subscription."""
        await self._connection.execute(
            "INSERT INTO subscriptions"
            " (subscription_id, tenant_id, plan_id, plan_version, overrides, started_at, ended_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (
                subscription.subscription_id,
                subscription.tenant_id,
                subscription.plan_id,
                subscription.plan_version,
                Jsonb(dict(subscription.overrides)),
                subscription.started_at,
                subscription.ended_at,
            ),
        )

    async def put_limits(self, tenant_id: str, limits: Iterable[QuotaLimit]) -> None:
        """Make these the tenant's quota limits."""
        await self._connection.execute("DELETE FROM quota_limits WHERE tenant_id = %s", (tenant_id,))
        for limit in limits:
            await self._connection.execute(
                "INSERT INTO quota_limits (tenant_id, meter_id, limit_quantity, hard, unit)"
                " VALUES (%s, %s, %s, %s, %s)",
                (tenant_id, limit.meter_id, limit.limit, limit.hard, limit.unit),
            )

    async def subscriptions_in(self, period: Period) -> list[Subscription]:
        """Return the subscriptions that hold any part of the period, by tenant and start."""
        rows = await self._rows(
            "SELECT subscription_id, tenant_id, plan_id, plan_version, overrides, started_at, ended_at"
            " FROM subscriptions WHERE started_at < %s AND (ended_at IS NULL OR ended_at > %s)"
            " ORDER BY tenant_id, started_at",
            (period.end, period.start),
        )
        return [Subscription(**row) for row in rows]

    async def tenants(self) -> list[tuple[Tenant, Subscription | None]]:
        """Return all tenants with their open subscription, by id."""
        tenants = await self._rows(_TENANTS + " ORDER BY tenant_id", ())
        subscriptions = await self._rows(
            "SELECT subscription_id, tenant_id, plan_id, plan_version, overrides, started_at, ended_at"
            " FROM subscriptions WHERE ended_at IS NULL",
            (),
        )
        open_ones = {row["tenant_id"]: Subscription(**row) for row in subscriptions}
        return [(Tenant(**row), open_ones.get(row["tenant_id"])) for row in tenants]

    async def _rows(self, query: str, arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
        # The texts are this file's own; only bound values vary.
        return await (await self._connection.execute(query.encode(), arguments)).fetchall()
