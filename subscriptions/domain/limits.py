"""Quota limits over time: what the plans of all of a tenant's subscriptions give, stretch by stretch. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from rating.domain.plan import Plan, QuotaLimit
from rating.domain.timeline import Held, Phase, Timeline

PlanOf = Callable[[str, int, Mapping[str, Any]], Plan]


@dataclass(frozen=True, slots=True)
class LimitPhase:
    """A limit and when it counts: `[start, end)`, from ever or for ever while one of them is None."""

    limit: QuotaLimit
    start: datetime | None
    end: datetime | None


def limit_phases(timelines: Sequence[Timeline], plan_of: PlanOf) -> list[LimitPhase]:
    """Return the limits of a tenant by meter and time; timelines have their contracts laid over.

    Where several plans held at once limit a meter, the greatest limit counts. Before anything is held the first limits
    count, and after an end the last ones: who holds nothing may not use without limit.
    """
    phases = [phase for timeline in timelines for phase in timeline.phases]
    edges = sorted({edge for phase in phases for edge in (phase.start, phase.end) if edge is not None})
    stretches = [*pairwise(edges), *((edge, None) for edge in edges[-1:])]
    found: list[LimitPhase] = []
    limits: list[QuotaLimit] = []
    for start, end in stretches:
        if any(start in phase for phase in phases):
            limits = _greatest(_limits_at(phases, start, plan_of))
        first = None if start == edges[0] else start
        found += [LimitPhase(limit, first, end) for limit in limits]
    return _joined(found)


def plans_held(held: Held) -> list[tuple[str, int, Mapping[str, Any]]]:
    """Return plan, version and overrides of all that is held, the subscription's own plan first."""
    own = (held.plan_id, held.plan_version, held.overrides)
    return [own, *((one.plan_id, one.plan_version, one.overrides) for one in held.add_ons)]


def _limits_at(phases: Iterable[Phase], instant: datetime, plan_of: PlanOf) -> Iterable[QuotaLimit]:
    for phase in phases:
        if instant in phase:
            for plan_id, version, overrides in plans_held(phase.held):
                yield from plan_of(plan_id, version, overrides).limits


def _greatest(limits: Iterable[QuotaLimit]) -> list[QuotaLimit]:
    found: dict[str, QuotaLimit] = {}
    for limit in limits:
        other = found.get(limit.meter_id)
        if other is None or limit.limit > other.limit:
            found[limit.meter_id] = limit
    return [found[meter_id] for meter_id in sorted(found)]


def _joined(phases: list[LimitPhase]) -> list[LimitPhase]:
    """Join neighbouring stretches of the same limit."""
    open_ones: dict[str, LimitPhase] = {}
    found: list[LimitPhase] = []
    for phase in phases:
        before = open_ones.get(phase.limit.meter_id)
        if before is not None and before.limit == phase.limit and before.end == phase.start:
            open_ones[phase.limit.meter_id] = LimitPhase(phase.limit, before.start, phase.end)
            continue
        if before is not None:
            found.append(before)
        open_ones[phase.limit.meter_id] = phase
    return sorted([*found, *open_ones.values()], key=lambda one: (one.limit.meter_id, one.start is not None, one.start))
