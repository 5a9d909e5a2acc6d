"""Half-open periods of time. Owns what a minute, day or month is; billing anchors belong to `subscriptions`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from core.errors import BrokenInvariantError, Fault, InvalidInputError, must_hold

MINUTE_SECONDS = 60
# Years that may be asked for: far enough from a date's first and last year that zones and cycles never reach them.
YEARS = range(1970, 9001)
_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """`[start, end)` in UTC: the start belongs to it, the end does not, so neighbours never share an event."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        must_hold(self.start.tzinfo is not None and self.end.tzinfo is not None, "a period needs aware instants")
        if self.start >= self.end:
            # Not by `must_hold`, whose message is written, needed or not: four times what the period costs.
            raise BrokenInvariantError(f"a period must have a length: {self.start} to {self.end}")

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= instant < self.end

    def __str__(self) -> str:
        return f"{format_instant(self.start)}/{format_instant(self.end)}"


def month_of(instant: datetime) -> Period:
    """Return the UTC calendar month that holds `instant`."""
    start = instant.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Period(start, _next_month(start))


def parse_month(text: str) -> Period:
    """Read `2026-10` as that calendar month in UTC; raises `InvalidInputError` (`invalid_period`) otherwise."""
    found = _MONTH.fullmatch(text)
    if not found or int(found[1]) not in YEARS:
        raise InvalidInputError([Fault("invalid_period", f"expected a month such as 2026-10, got {text!r}", "period")])
    return month_of(datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC))


def month_key(instant: datetime) -> str:
    """Return the UTC calendar month of `instant` as `YYYY-MM`, the name quotas use for `current_month`."""
    return instant.astimezone(UTC).strftime("%Y-%m")


def minute_start(epoch_seconds: int) -> int:
    """Return the start of the minute window that holds the instant, both in whole seconds since 1970 UTC."""
    return epoch_seconds - epoch_seconds % MINUTE_SECONDS


def format_instant(instant: datetime) -> str:
    """Write an instant as ISO 8601 with `Z`, dropping a zero fraction."""
    # In UTC first: local times that differ only in their fold are equal to Python, and so to what keeps them.
    return _write(instant.astimezone(UTC))


# Kept: the same instants (a month's ends, a batch's now) are written for every tenant.
@lru_cache(maxsize=4_096)
def _write(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


def _next_month(start: datetime) -> datetime:
    return (start + timedelta(days=32)).replace(day=1)
