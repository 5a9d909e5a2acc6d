"""When a plan is held and what share of a month that is. Owns the proration convention of base fees and minimums.

The convention is calendar days in UTC: an instant stands for the start of its day, so the days before and after any
instant add up to the month. A subscription that starts during the 11th of a 30-day month pays 20/30.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction

from core.period import Period
from rating.domain.cycle import day_in_month


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

    def holds_anniversary(self, period: Period, months: int = 12) -> bool:
        """Tell whether the term starts in the period, or a multiple of `months` after its start, while it runs."""
        held = self.within(period)
        if held is None:
            return False
        start = self.started_at.astimezone(UTC)
        first = (held.start.year - start.year) * 12 + held.start.month - start.month - 1
        last = (held.end.year - start.year) * 12 + held.end.month - start.month + 1
        return any(self._after(count) in held for count in range(max(first, 0), last + 1) if count % months == 0)

    def _after(self, months: int) -> datetime:
        """Return the start some months later; a day that the month lacks (29 February) comes on its last."""
        start = self.started_at.astimezone(UTC)
        day = day_in_month(start.year * 12 + start.month - 1 + months, start.day)
        return start.replace(year=day.year, month=day.month, day=day.day)


def _day(instant: datetime) -> int:
    return instant.astimezone(UTC).toordinal()
