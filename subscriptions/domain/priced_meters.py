"""The rule that lets a tenant have several subscriptions: no meter has two prices at one time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

from core.errors import Fault
from core.period import format_instant
from rating.domain.plan import Plan
from rating.domain.timeline import Timeline
from subscriptions.domain.limits import PlanOf, plans_held


@dataclass(frozen=True, slots=True)
class _Priced:
    """A stretch in which a meter has a price, and by which plan of which subscription."""

    meter_id: str
    start: datetime
    end: datetime | None
    plan_id: str
    subscription_id: str


def meters_priced_twice(timelines: Sequence[Timeline], plan_of: PlanOf, since: datetime) -> list[Fault]:
    """Return a fault (`meter_priced_twice`) for every meter that two plans held at once price after `since`.

    `timelines` are all of a tenant's, with contracts laid over. What one plan version charges for a meter by several
    charges is that plan's business.
    """
    by_meter: dict[str, list[_Priced]] = {}
    for timeline in timelines:
        for one in _priced(timeline, plan_of):
            if one.end is None or one.end > since:
                by_meter.setdefault(one.meter_id, []).append(one)
    faults: dict[tuple[str, str, str, str, str], Fault] = {}
    for meter_id, stretches in sorted(by_meter.items()):
        for one, other in combinations(stretches, 2):
            holders = ((one.subscription_id, one.plan_id), (other.subscription_id, other.plan_id))
            if holders[0] != holders[1] and _overlap(one, other):
                begin = max(one.start, other.start)
                reason = (
                    f"from {format_instant(begin)} on {meter_id} would be priced by {one.plan_id} of"
                    f" {one.subscription_id} and by {other.plan_id} of {other.subscription_id}"
                )
                faults.setdefault((meter_id, *holders[0], *holders[1]), Fault("meter_priced_twice", reason, "plan"))
    return list(faults.values())


def _priced(timeline: Timeline, plan_of: PlanOf) -> list[_Priced]:
    return [
        _Priced(meter_id, phase.start, phase.end, plan_id, timeline.subscription_id)
        for phase in timeline.phases
        for plan_id, version, overrides in plans_held(phase.held)
        for meter_id in _meters(plan_of(plan_id, version, overrides))
    ]


def _meters(plan: Plan) -> list[str]:
    return sorted({charge.meter.meter_id for charge in plan.charges if charge.meter is not None})


def _overlap(one: _Priced, other: _Priced) -> bool:
    return (one.end is None or other.start < one.end) and (other.end is None or one.start < other.end)
