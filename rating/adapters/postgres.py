"""Which plans tenants hold, from PostgreSQL; parsed plans are kept, because a plan version never changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from core.errors import InvalidInputError
from core.meters import Meter
from core.period import Period
from rating.domain.digest import digest_of
from rating.domain.override_plan import override_plan
from rating.domain.plan import Plan, parse_plan
from rating.domain.term import Term
from rating.ports import HeldPlan
from runtime.postgres import Pool
from runtime.stored_meters import read_meters

_HELD = (
    "SELECT tenant_id, plan_id, version, document, overrides, started_at, ended_at"
    " FROM subscriptions JOIN plan_versions USING (plan_id)"
    " WHERE version = plan_version AND tenant_id = ANY(%s)"
    " AND started_at < %s AND (ended_at IS NULL OR ended_at > %s) ORDER BY tenant_id, started_at"
)
_PLANS_KEPT = 10_000
log = structlog.get_logger()


class PostgresHeldPlans:
    """`HeldPlans` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._parsed: dict[tuple[str, int, str], Plan] = {}

    async def held(self, tenant_ids: Sequence[str], period: Period) -> list[HeldPlan]:
        """Return the plans these tenants hold during any part of the period, by tenant and start."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_HELD, (list(tenant_ids), period.end, period.start))).fetchall()
            meters = await read_meters(connection)
        held = []
        for row in rows:
            plan = self._plan(row, meters)
            if plan is not None:
                held.append(HeldPlan(row["tenant_id"], plan, Term(row["started_at"], row["ended_at"])))
        return held

    def _plan(self, row: dict[str, Any], meters: dict[str, Meter]) -> Plan | None:
        key = (row["plan_id"], row["version"], digest_of(row["overrides"]))
        plan = self._parsed.get(key)
        if plan is None:
            try:
                plan = parse_plan(row["plan_id"], override_plan(row["document"], row["overrides"]), meters)
            except InvalidInputError as error:
                # The invoicing consumer parks such an account; a dashboard's running cost must not stop for it.
                log.error("plan.unreadable", tenant=row["tenant_id"], plan=row["plan_id"], reason=str(error))
                return None
            if len(self._parsed) >= _PLANS_KEPT:
                self._parsed.clear()
            self._parsed[key] = plan
        return plan
