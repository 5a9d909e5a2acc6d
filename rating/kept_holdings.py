"""What subscriptions hold of a billing period, worked out once for all that hold alike. Only for speed.

Two subscriptions hold alike in a period if both have held the same thing in the same quantity, unchanged, since before
it began, and none of its charges depends on when they first held it (due once, or by periods longer than a month).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core.period import Period
from rating.domain.cycle import Interval
from rating.domain.digest import digest_of
from rating.domain.other_prices import PlanOf
from rating.domain.plan import Plan
from rating.domain.timeline import Held, Timeline
from rating.rate_timeline import Holding, holdings_of

_KEPT = 10_000


class KeptHoldings:
    """`rating.rate_timeline.holdings_of` with a memory; `plan_of` resolves plans."""

    def __init__(self, plan_of: PlanOf) -> None:
        self._plan_of = plan_of
        self._kept: dict[tuple[Any, ...], list[Holding]] = {}
        self._plain: dict[tuple[Any, ...], bool] = {}

    def of(self, timeline: Timeline, period: Period) -> list[Holding]:
        """Return what is due in one of the timeline's billing periods; the answer is not to be changed."""
        key = self._key(timeline, period)
        if key is None:
            return holdings_of(timeline, period, self._plan_of)
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            found = self._kept[key] = holdings_of(timeline, period, self._plan_of)
        return found

    def _key(self, timeline: Timeline, period: Period) -> tuple[Any, ...] | None:
        """Return what those who hold alike have in common; None where the past matters."""
        cycle = timeline.cycle
        if len(timeline.phases) != 1 or cycle.interval is not Interval.MONTH:
            return None
        phase = timeline.phases[0]
        if phase.start >= period.start or (phase.end is not None and phase.end < period.end):
            return None
        held = _held_key(phase.held)
        plain = self._plain.get(held)
        if plain is None:
            if len(self._plain) >= _KEPT:
                self._plain.clear()
            plain = self._plain[held] = all(map(_is_monthly, self._plans(phase.held)))
        return (held, period, cycle.time_zone, timeline.convention) if plain else None

    def _plans(self, held: Held) -> Iterable[Plan]:
        yield self._plan_of(held.plan_id, held.plan_version, held.overrides)
        for one in held.add_ons:
            yield self._plan_of(one.plan_id, one.plan_version, one.overrides)


def _is_monthly(plan: Plan) -> bool:
    return all(charge.interval is Interval.MONTH for charge in plan.charges)


def _held_key(held: Held) -> tuple[Any, ...]:
    add_ons = tuple((one.plan_id, one.plan_version, one.quantity, _digest(one.overrides)) for one in held.add_ons)
    return (
        held.plan_id,
        held.plan_version,
        _digest(held.overrides),
        held.quantity,
        held.state,
        held.convention,
        held.contract,
        add_ons,
    )


def _digest(overrides: Any) -> str:
    return digest_of(dict(overrides)) if overrides else ""
