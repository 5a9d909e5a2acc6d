"""Reads a date of a catalogue or contract. Owns which texts are dates: `2026-10-01`, or an instant with its zone."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from rating.domain.fields import Fields

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})", re.ASCII)
# Before is a slip of the keyboard, beyond is "for ever", which is said by leaving the date out.
YEAR_MIN, YEAR_MAX = 2000, 2199


def read_instant(fields: Fields, name: str, time_zone: str = "UTC") -> datetime | None:
    """Return a field as an instant in UTC on a whole minute, None if it is missing or a fault was noted.

    A date alone is the start of that day in `time_zone` (IANA name).
    """
    value = fields.raw(name) if fields.has(name) else None
    if value is None:
        if fields.has(name):
            fields.fault(name, "invalid_date", "expected a date: leave the field out where there is none")
        return None
    instant = _parse(value, time_zone) if isinstance(value, str) else None
    if instant is None:
        reason = f"expected a date such as 2026-10-01 or 2026-10-01T00:00:00Z, got {str(value)[:60]!r}"
        fields.fault(name, "invalid_date", reason)
    elif not YEAR_MIN <= instant.year <= YEAR_MAX:
        fields.fault(name, "invalid_date", f"expected a year from {YEAR_MIN} to {YEAR_MAX}, got {str(value)[:60]!r}")
    elif instant.second:
        fields.fault(name, "invalid_date", f"expected a whole minute, got {str(value)[:60]!r}: usage is kept by minute")
    else:
        return instant
    return None


def start_of_day(day: date, time_zone: str) -> datetime:
    """Return when a day begins in a time zone, in UTC.

    A midnight that is skipped is the moment the clocks move, one that occurs twice the first, as in `core.calendar`.
    """
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(time_zone)).astimezone(UTC)


def _parse(text: str, time_zone: str) -> datetime | None:
    try:
        if _DATE.fullmatch(text):
            return start_of_day(date.fromisoformat(text), time_zone)
        if _INSTANT.fullmatch(text):
            return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return None
