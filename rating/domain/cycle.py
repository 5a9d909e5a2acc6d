"""Billing cycles: how a subscription's time is cut into periods of one, three or twelve months.

Every period is counted from the anchor, never from the period before it, so a day that a month lacks is clamped for
that month only: from 31 January follow 28 February and 31 March. Periods begin at local midnight as `core.calendar`
defines it, whatever daylight saving does to that day, and tile time without gap or overlap in both directions.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from functools import lru_cache

from core.calendar import Calendar
from core.period import Period

_MONTHS_A_YEAR = 12
# A leap day comes back after at most eight years (1896 to 1904, 2096 to 2104).
_YEARS_TO_A_LEAP_DAY = 8


class Interval(Enum):
    """How long a billing period is; the value is Stripe's `interval` where Stripe has it."""

    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"

    @property
    def months(self) -> int:
        """The length in months."""
        return {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.YEAR: _MONTHS_A_YEAR}[self]


@dataclass(frozen=True, slots=True)
class Cycle:
    """Periods of one interval in a time zone (IANA name); `anchor` is the local day on which one of them begins."""

    interval: Interval
    anchor: date
    time_zone: str = "UTC"

    def period_at(self, instant: datetime) -> Period:
        """Return the period that holds an instant."""
        return _period_of(self, self._number_of(instant))

    def periods(self, within: Period) -> Iterator[Period]:
        """Yield, in order, every period that shares an instant with `within`; the first and last may reach beyond."""
        number = self._number_of(within.start)
        period = _period_of(self, number)
        while period.start < within.end:
            yield period
            number += 1
            period = _period_of(self, number)

    def _number_of(self, instant: datetime) -> int:
        """Return how many periods after the anchor's one begins that holds the instant; negative before the anchor."""
        # In UTC first: local times that differ only in their fold are equal to Python, and so to what keeps them.
        return _number_in(self, instant.astimezone(UTC))


def calendar_cycle(interval: Interval, calendar: Calendar, started_at: datetime) -> Cycle:
    """Return the cycle of a tenant's calendar in which a period holds `started_at` and begins within its month.

    Its periods begin on the calendar's anchor day; by month they are the tenant's billing periods. The anchor may lie
    years back, where a month has as many days as the anchor day asks for.
    """
    day = calendar.local_day(started_at)
    month = _month_number(day)
    if day < day_in_month(month, calendar.anchor_day):
        month -= 1
    best = day_in_month(month, calendar.anchor_day)
    for back in range(interval.months, _YEARS_TO_A_LEAP_DAY * _MONTHS_A_YEAR + 1, interval.months):
        if best.day == calendar.anchor_day:
            break
        # The first of the longest: the others have been clamped.
        best = max(best, day_in_month(month - back, calendar.anchor_day), key=lambda one: (one.day, one))
    return Cycle(interval, best, calendar.time_zone)


def start_cycle(interval: Interval, time_zone: str, started_at: datetime) -> Cycle:
    """Return the cycle whose first period begins with the local day of `started_at`."""
    return Cycle(interval, Calendar(time_zone).local_day(started_at), time_zone)


def day_in_month(month_number: int, day: int) -> date:
    """Return the day of a month (counted from year 0), or the month's last day if it has no such day."""
    year, month = divmod(month_number, _MONTHS_A_YEAR)
    return date(year, month + 1, min(day, monthrange(year, month + 1)[1]))


# Kept: a run asks for the same periods for every tenant.
@lru_cache(maxsize=10_000)
def _number_in(cycle: Cycle, instant: datetime) -> int:
    day = Calendar(cycle.time_zone).local_day(instant)
    number = (_month_number(day) - _month_number(cycle.anchor)) // cycle.interval.months
    return number if _first_day_of(cycle, number) <= day else number - 1


@lru_cache(maxsize=10_000)
def _first_day_of(cycle: Cycle, number: int) -> date:
    return day_in_month(_month_number(cycle.anchor) + number * cycle.interval.months, cycle.anchor.day)


@lru_cache(maxsize=10_000)
def _period_of(cycle: Cycle, number: int) -> Period:
    """Return the period that begins so many after the anchor's."""
    calendar = Calendar(cycle.time_zone)
    return Period(calendar.midnight(_first_day_of(cycle, number)), calendar.midnight(_first_day_of(cycle, number + 1)))


def _month_number(day: date) -> int:
    return day.year * _MONTHS_A_YEAR + day.month - 1
