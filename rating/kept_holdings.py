"""What subscriptions hold of a billing period, worked out once for all that hold alike. Only for speed.

Two subscriptions hold alike in a period if both hold the same plans in the same quantity, unchanged until its end,
since before it began or since the same instant, and none of its charges depends on when else they first held it (due
once, or by periods longer than a month).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.period import Period
from rating.domain.cycle import Interval
from rating.domain.other_prices import PlanOf
from rating.domain.plan import Plan
from rating.domain.timeline import Timeline
from rating.rate_timeline import Holding, holdings_of, references_of

_KEPT = 2_000


class KeptHoldings:
    """`rating.rate_timeline.holdings_of` with a memory."""

    def __init__(self) -> None:
        # With the plans, so that no other plan can take the place of one in memory: keys have their identity.
        self._kept: dict[tuple[Any, ...], tuple[list[Plan], Sequence[Holding]]] = {}

    def of(self, timeline: Timeline, period: Period, plan_of: PlanOf, *, ahead: bool = False) -> Sequence[Holding]:
        """Return what is due in one of the timeline's billing periods; the answer is not to be changed.

        Remembered as far as `plan_of` returns the same object for the same plan.
        """
        references = references_of(timeline) if _is_plain(timeline, period) else []
        plans = [plan_of(one.plan_id, one.version, one.overrides) for one in references]
        if not plans or not all(map(_is_monthly, plans)):
            return holdings_of(timeline, period, plan_of, ahead=ahead)
        held = tuple((one.identity, id(plan)) for one, plan in zip(references, plans, strict=True))
        key = (held, ahead, *_key(timeline, period))
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            found = self._kept[key] = plans, holdings_of(timeline, period, plan_of, ahead=ahead)
        return found[1]


def _is_plain(timeline: Timeline, period: Period) -> bool:
    """Tell whether one thing is held from some instant to the period's end at least, by the month."""
    if len(timeline.phases) != 1 or timeline.cycle.interval is not Interval.MONTH:
        return False
    (phase,) = timeline.phases
    return phase.end is None or phase.end >= period.end


def _is_monthly(plan: Plan) -> bool:
    return all(charge.interval is Interval.MONTH for charge in plan.charges)


def _key(timeline: Timeline, period: Period) -> tuple[Any, ...]:
    """Return what those who hold alike have in common beside their plans."""
    (phase,) = timeline.phases
    held = phase.held
    return (
        (held.quantity, *(one.quantity for one in held.add_ons)),
        (held.state, held.convention, held.contract),
        # What was held before the period began makes no difference to it.
        phase.start if phase.start >= period.start else None,
        period,
        (timeline.cycle.time_zone, timeline.cycle.anchor.day),
        timeline.convention,
    )
