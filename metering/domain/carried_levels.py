"""Time-weighted quantities by window. Owns carrying levels over windows in which nothing happened.

An event sets the level of its series from its time on, and what a group holds is the sum over its series. So per group
and stretch of time three whole numbers say all: by how much the level changed, each change times its instant added up
(the moment), and how many events there were. From s to e the area is level x (e - s) + change x e - moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from core.event_time import to_microseconds
from core.period import Period
from core.quantity import unscale
from core.time_weighted import divide_half_even, weight_us
from metering.domain.usage_query import UsageQuery, WindowUsage
from metering.domain.windows import months_of

Group = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """How a group's level changed within the stretch that begins at `start` (seconds); 0 is all time before the first.

    `change` is scaled (`core.quantity`), `moment` is in the same times microseconds since 1970 UTC.
    """

    start: int
    group: Group
    change: int
    moment: int
    events: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a window: its bounds in microseconds, and for how many of them a unit must hold to count as one."""

    start_us: int
    end_us: int
    weight_us: int

    @property
    def start(self) -> int:
        """The start in whole seconds."""
        return self.start_us // 1_000_000


def stretches_of(query: UsageQuery, window: Period) -> list[Stretch]:
    """Cut a window where a month ends, if the meter weighs by months and they are not of one given length."""
    weight_per = query.meter.weight_per
    assert weight_per is not None
    if weight_per != "month" or query.weight_period is not None:
        return [_stretch(window, weight_us(weight_per, query.weight_period or window))]
    months = months_of(query.window, window, query.calendar)
    parts = [Period(max(month.start, window.start), min(month.end, window.end)) for month in months]
    return [_stretch(part, weight_us("month", month)) for part, month in zip(parts, months, strict=True)]


def carry_levels(
    windows: Sequence[tuple[Period, Sequence[Stretch]]], changes: Iterable[Change], until_us: int
) -> Iterator[WindowUsage]:
    """Yield what each window holds, by window and group; levels end at `until_us`, for nobody knows what comes.

    A window in which a group's level was 0 throughout, without an event, is left out.
    """
    levels: dict[Group, int] = {}
    by_start: dict[int, list[Change]] = {}
    for change in changes:
        if change.start:
            by_start.setdefault(change.start, []).append(change)
        else:
            levels[change.group] = levels.get(change.group, 0) + change.change
    for window, stretches in windows:
        held: dict[Group, Fraction] = {}
        events: dict[Group, int] = {}
        for stretch in stretches:
            end_us = min(stretch.end_us, until_us)
            areas = {group: level * max(0, end_us - stretch.start_us) for group, level in levels.items() if level}
            for change in by_start.get(stretch.start, ()):
                areas[change.group] = areas.get(change.group, 0) + change.change * end_us - change.moment
                events[change.group] = events.get(change.group, 0) + change.events
                levels[change.group] = levels.get(change.group, 0) + change.change
            for group, area in areas.items():
                held[group] = held.get(group, Fraction(0)) + Fraction(area, stretch.weight_us)
        for group in sorted(held):
            quantity, count = held[group], events.get(group, 0)
            if quantity or count:
                yield WindowUsage(window, group, unscale(_round(quantity)), count)


def _stretch(part: Period, weight: int) -> Stretch:
    return Stretch(to_microseconds(part.start), to_microseconds(part.end), weight)


def _round(quantity: Fraction) -> int:
    return divide_half_even(quantity.numerator, quantity.denominator)
