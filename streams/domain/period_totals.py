"""How samples make a live period's total. Pure; what is kept where belongs to the sample books.

A time-weighted meter's levels are kept as changes: the sum over all series is a step function, and each sample adds its
own step. So the area of a period follows from three whole numbers, however many samples and series there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from core.errors import must_hold
from core.journal import PRESENT, PeriodRow
from core.quantity import UNIT
from streams.ports import PeriodsOf

NUMBERS = frozenset({"max", "min", "latest"})
SLOT_US = 900_000_000


class Total(NamedTuple):
    """A period's total without its name: what a `PeriodRow` says, in whole numbers."""

    quantity: int
    events: int
    level: int = 0
    at_us: int = 0


NOTHING = Total(0, 0)


class Held(NamedTuple):
    """A numeric sample as it is kept; two at the same time are told apart by their place."""

    time_us: int
    offset: int
    index: int  # type: ignore[assignment]
    value: int


def period_row(tenant: str, meter: str, period: str, total: Total) -> PeriodRow:
    """Return the journal's row of a total."""
    return PeriodRow(tenant, meter, period, 0, str(total.quantity), total.events, str(total.level), total.at_us)


def unique_total(distinct: int, events: int) -> Total:
    """Return the total of distinct values."""
    return Total(distinct * UNIT, events) if events else NOTHING


def better(aggregation: str, one: Held, other: Held) -> Held:
    """Return which of two samples a maximum, minimum or latest keeps; of equal values the earlier."""
    if aggregation == "latest":
        return max(one, other)
    if one.value == other.value:
        return min(one, other)
    return one if (one.value > other.value) == (aggregation == "max") else other


def number_total(aggregation: str, samples: Sequence[Held]) -> Total:
    """Return the maximum, minimum or latest of samples, and when it was reached first."""
    if not samples:
        return NOTHING
    best = samples[0]
    for sample in samples[1:]:
        best = better(aggregation, best, sample)
    return Total(best.value, len(samples), 0, best.time_us)


@dataclass(slots=True)
class Levels:
    """A time-weighted period in sums: enough to say its area at any of its instants.

    `carry` is the sum of all series' levels just before the start, `net` the sum of the steps inside, `moment` the sum
    of step x (time - start), `at_us` the newest sample inside, `events` how many there are.
    """

    start_us: int
    carry: int = 0
    net: int = 0
    moment: int = 0
    at_us: int = 0
    events: int = 0

    def step(self, time_us: int, by: int) -> None:
        """Take in a step inside the period."""
        self.net += by
        self.moment += by * (time_us - self.start_us)

    def total(self) -> Total:
        """Return the exact area from the start to the newest sample, and the level from there on."""
        if not self.events:
            return NOTHING
        elapsed = self.at_us - self.start_us
        return Total((self.carry + self.net) * elapsed - self.moment, self.events, self.carry + self.net, self.at_us)


def present_total(level: int, newest_us: int | None, horizon_us: int) -> Total:
    """Return the row `now` of a time-weighted meter: the level that its newest samples leave.

    With no sample left, what was set before the horizon still holds.
    """
    if newest_us is None:
        return Total(0, 1, level, horizon_us) if level else NOTHING
    return Total(0, 1, level, newest_us)


class PeriodNames:
    """The periods of instants during one call; events cluster in few quarter hours, and periods never end inside one.

    A period that begins before the horizon is none: some of its samples are forgotten, so its total would be wrong.
    """

    def __init__(self, periods: PeriodsOf) -> None:
        self._periods = periods
        self._names: dict[tuple[str, bool, int], tuple[tuple[str, int, int], ...]] = {}

    def at(self, tenant: str, aggregation: str, time_us: int, horizon_us: int) -> tuple[tuple[str, int, int], ...]:
        """Return (name, start, end) of the live periods that hold an instant; for `unique` its year is one."""
        with_year = aggregation == "unique"
        key = (tenant, with_year, time_us // SLOT_US)
        found = self._names.get(key)
        if found is None:
            names = self._periods.names(tenant, time_us)
            if with_year:
                names = (*names, self._periods.year_name(tenant, time_us))
            found = tuple((name, *self._periods.bounds(tenant, name)) for name in names)
            must_hold(
                all(start <= time_us < end and name != PRESENT for name, start, end in found),
                f"a period that does not hold its instant: {found} at {time_us}",
            )
            must_hold(
                all(start % SLOT_US == end % SLOT_US == 0 for _, start, end in found),
                f"a period that begins or ends inside a quarter hour: {found}",
            )
            self._names[key] = found
        if horizon_us and any(start < horizon_us for _, start, _ in found):
            return tuple(period for period in found if period[1] >= horizon_us)
        return found


def changed_rows(
    tenant: str, meter: str, before: Iterable[tuple[str, Total]], after: Iterable[tuple[str, Total]]
) -> list[PeriodRow]:
    """Return rows of the totals that differ; one that is gone, or lost its last sample, becomes an empty row."""
    old, new = dict(before), dict(after)
    rows = []
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name, NOTHING), new.get(name, NOTHING)
        if was != now:
            rows.append(period_row(tenant, meter, name, now))
    return rows
