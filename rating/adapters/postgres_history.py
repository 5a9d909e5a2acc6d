"""Who held what, what was billed for it, and every plan version, from PostgreSQL; reading only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.meters import Meter
from core.period import Period
from rating.adapters.stored_contracts import read_contracts
from rating.adapters.stored_timelines import read_subscriptions
from rating.simulate_ports import Subscribed
from runtime.postgres import Pool
from runtime.stored_meters import read_meters

# Wide: who changed within the span is found by the start, and left out later if nothing was held.
_TENANTS = (
    "SELECT DISTINCT tenant_id FROM subscriptions WHERE tenant_id > %s AND started_at < %s"
    " AND (ended_at IS NULL OR ended_at > %s) ORDER BY tenant_id LIMIT %s"
)
_HOW_MANY = (
    "SELECT count(DISTINCT tenant_id) AS tenants FROM subscriptions WHERE started_at < %s"
    " AND (ended_at IS NULL OR ended_at > %s)"
)
_KNOWN = "SELECT tenant_id FROM tenants WHERE tenant_id = ANY(%s)"
_BILLED = (
    "SELECT tenant_id, period_start, sum(subtotal) AS billed FROM invoices"
    " WHERE tenant_id = ANY(%s) AND period_start >= %s AND period_start < %s AND status NOT IN ('draft', 'void')"
    " GROUP BY tenant_id, period_start"
)
_PLANS = "SELECT plan_id, version, document FROM plan_versions"


class PostgresHistory:
    """`History` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def tenants(self, span: Period, after: str, limit: int) -> list[str]:
        """Return the next tenants by id that held anything in the span."""
        rows = await self._rows(_TENANTS, (after, span.end, span.start, limit))
        return [row["tenant_id"] for row in rows]

    async def how_many(self, span: Period) -> int:
        """Return how many tenants held anything in the span."""
        return int((await self._rows(_HOW_MANY, (span.end, span.start)))[0]["tenants"])

    async def known(self, tenant_ids: Sequence[str]) -> set[str]:
        """Return those of the tenants that there are."""
        return {row["tenant_id"] for row in await self._rows(_KNOWN, (list(tenant_ids),))}

    async def subscriptions(self, tenant_ids: Sequence[str]) -> list[Subscribed]:
        """Return the tenants' subscriptions, by tenant and start."""
        async with self._pool.connection() as connection:
            contracts = await read_contracts(connection, tenant_ids)
            found = await read_subscriptions(connection, tenant_ids=tenant_ids)
        return [Subscribed(one.timeline(), tuple(contracts.get(one.start.tenant_id, ()))) for one in found]

    async def billed(self, tenant_ids: Sequence[str], span: Period) -> Mapping[tuple[str, datetime], Decimal]:
        """Return what was billed by tenant and start of the billing period, for periods that start in the span."""
        rows = await self._rows(_BILLED, (list(tenant_ids), span.start, span.end))
        return {(row["tenant_id"], row["period_start"]): row["billed"] for row in rows}

    async def plans(self) -> dict[tuple[str, int], Mapping[str, Any]]:
        """Return the documents of all plan versions."""
        return {(row["plan_id"], row["version"]): row["document"] for row in await self._rows(_PLANS, ())}

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        async with self._pool.connection() as connection:
            return await read_meters(connection)

    async def _rows(self, query: str, arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(query.encode(), arguments)).fetchall()
