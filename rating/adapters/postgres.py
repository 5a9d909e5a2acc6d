"""What tenants hold, from PostgreSQL; parsed plans are kept, because a plan version never changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog

from core.errors import InvalidInputError
from core.meters import Meter
from core.period import Period
from rating.adapters.stored_contracts import read_contracts
from rating.adapters.stored_timelines import read_subscriptions
from rating.domain.override_plan import override_plan
from rating.domain.plan import Plan, parse_plan
from rating.domain.timeline import Change, SubscriptionStart, Timeline, lay_contracts
from rating.ports import HeldTimeline
from rating.rate_timeline import PlanReference, references_of
from runtime.postgres import Connection, Pool
from runtime.stored_meters import read_meters

_DOCUMENTS = (
    "SELECT plan_id, version, document FROM plan_versions"
    " WHERE (plan_id, version) IN (SELECT * FROM unnest(%s::text[], %s::integer[]))"
)
_CHANGED = (
    "SELECT subscription_id, sequence, tenant_id, effective_at FROM subscription_changes"
    " JOIN subscriptions USING (subscription_id) WHERE subscription_changes.recorded_at > %s"
    " ORDER BY subscription_changes.recorded_at"
)
_PLANS_KEPT = 10_000
log = structlog.get_logger()


class PostgresTimelines:
    """`Timelines` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._parsed: dict[tuple[str, int, str], Plan] = {}

    async def held(self, tenant_ids: Sequence[str], span: Period) -> list[HeldTimeline]:
        """Return the timelines of these tenants' subscriptions that began before the span ends, by tenant and start."""
        async with self._pool.connection() as connection:
            subscriptions = await read_subscriptions(connection, tenant_ids=tenant_ids)
            contracts = await read_contracts(connection, tenant_ids)
            timelines = [
                lay_contracts(one.timeline(), contracts.get(one.start.tenant_id, ()))
                for one in subscriptions
                if one.start.started_at < span.end
            ]
            references = {timeline.subscription_id: references_of(timeline) for timeline in timelines}
            missing = {
                (one.plan_id, one.version)
                for found in references.values()
                for one in found
                if one.identity not in self._parsed
            }
            documents = await read_plan_documents(connection, missing)
            meters = await read_meters(connection)
        held = []
        for timeline in timelines:
            plans = self._plans(timeline, references[timeline.subscription_id], documents, meters)
            if plans is not None:
                held.append(HeldTimeline(timeline, plans))
        return held

    async def changed_since(self, since: datetime) -> list[tuple[tuple[str, int], str, datetime]]:
        """Return ((subscription, sequence), tenant, effective from) of changes put down after an instant."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_CHANGED, (since,))).fetchall()
        return [((row["subscription_id"], row["sequence"]), row["tenant_id"], row["effective_at"]) for row in rows]

    def _plans(
        self,
        timeline: Timeline,
        references: Iterable[PlanReference],
        documents: Mapping[tuple[str, int], Mapping[str, Any]],
        meters: Mapping[str, Meter],
    ) -> dict[str, Plan] | None:
        plans: dict[str, Plan] = {}
        for one in references:
            plan = self._parsed.get(one.identity)
            if plan is None:
                try:
                    document = override_plan(documents[one.plan_id, one.version], one.overrides)
                    plan = parse_plan(one.plan_id, document, meters)
                except InvalidInputError as error:
                    # The invoicing consumer parks such an account; a dashboard's running cost must not stop for it.
                    log.error("plan.unreadable", tenant=timeline.tenant_id, plan=one.text, reason=str(error))
                    return None
                if len(self._parsed) >= _PLANS_KEPT:
                    self._parsed.clear()
                self._parsed[one.identity] = plan
            plans[one.text] = plan
        return plans


async def read_plan_documents(
    connection: Connection, versions: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Return the stored documents of plan versions."""
    asked = sorted(versions)
    if not asked:
        return {}
    names, numbers = [name for name, _ in asked], [number for _, number in asked]
    rows = await (await connection.execute(_DOCUMENTS, (names, numbers))).fetchall()
    return {(row["plan_id"], row["version"]): row["document"] for row in rows}


def plan_versions_of(start: SubscriptionStart, changes: Iterable[Change]) -> set[tuple[str, int]]:
    """Return the plan versions that a subscription began with or that its changes name."""
    held = {(start.held.plan_id, start.held.plan_version)}
    held |= {(one.plan_id, one.plan_version) for one in start.held.add_ons}
    return held | {
        (one.payload["plan_id"], one.payload["plan_version"]) for one in changes if "plan_version" in one.payload
    }
