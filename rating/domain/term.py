"""When a plan is held and what share of a month that is. Owns the proration convention of base fees and minimums.

The convention is calendar days in UTC: an instant stands for the start of its day, so the days before and after any
instant add up to the month. A subscription that starts during the 11th of a 30-day month pays 20/30.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction

from core.period import Period


@dataclass(frozen=True, slots=True)
class Term:
    """How long a subscription runs: `[started_at, ended_at)`, without end while `ended_at` is None."""

    started_at: datetime
    ended_at: datetime | None = None

    def within(self, period: Period) -> Period | None:
        """Return the part of the period the term covers, None if it covers nothing of it."""
        start = max(period.start, self.started_at)
        end = period.end if self.ended_at is None else min(period.end, self.ended_at)
        return Period(start, end) if start < end else None

    def share(self, period: Period) -> Fraction:
        """Return the share of the period's days that the term covers, exactly."""
        held = self.within(period)
        if held is None:
            return Fraction(0)
        return Fraction(_day(held.end) - _day(held.start), _day(period.end) - _day(period.start))

    def holds_start(self, period: Period) -> bool:
        """Tell whether the term starts in the period."""
        return self.started_at in period

    def holds_anniversary(self, period: Period) -> bool:
        """Tell whether the term starts, or has a yearly anniversary while it runs, in the period."""
        held = self.within(period)
        if held is None:
            return False
        years = range(period.start.year, period.end.year + 1)
        return any(year >= self.started_at.year and self._anniversary(year) in held for year in years)

    def _anniversary(self, year: int) -> datetime:
        start = self.started_at.astimezone(UTC)
        if (start.month, start.day) == (2, 29) and not _is_leap(year):
            # Someone who started on 29 February is charged in February every year.
            return start.replace(year=year, day=28)
        return start.replace(year=year)


def _day(instant: datetime) -> int:
    return instant.astimezone(UTC).toordinal()


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
