"""Event times. Owns how an RFC 3339 text becomes microseconds since 1970 UTC, exactly and fast.

Fractions are cut, never rounded: 17:59:59.9999999 belongs to minute 17:59, and rounding to microseconds (as common
parsers do) would move it into the next window. Source of the form: RFC 3339 §5.6. A leap second (:60) is refused,
because no window can hold it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_RFC3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(Z|z|[+-]\d{2}:\d{2})?", re.ASCII
)
_SECONDS = {f"{second:02}": second * 1_000_000 for second in range(60)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Minute prefixes seen ("2023-11-16T18:17:") with their microseconds: events cluster in few minutes.
_minutes: dict[str, int] = {}
_MINUTES_KEPT = 50_000


def parse_event_time(text: str) -> int | str:
    """Return microseconds since 1970 UTC, or the code of the fault: `invalid_time` or `time_without_zone`."""
    if text[-1:] == "Z":
        minute = _minutes.get(text[:17])
        second = _SECONDS.get(text[17:19])
        if minute is not None and second is not None:
            fraction = text[19:-1]
            if not fraction:
                return minute + second
            digits = fraction[1:]
            if fraction[0] == "." and digits.isdigit() and digits.isascii() and len(digits) <= 9:
                return minute + second + int(digits[:6].ljust(6, "0"))
    return _parse_slowly(text)


def to_datetime(microseconds: int) -> datetime:
    """Return microseconds since 1970 as an aware UTC instant."""
    return _EPOCH + timedelta(microseconds=microseconds)


def to_microseconds(instant: datetime) -> int:
    """Return an aware instant as whole microseconds since 1970 UTC."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _parse_slowly(text: str) -> int | str:
    found = _RFC3339.fullmatch(text)
    if not found:
        return "invalid_time"
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    if zone is None:
        return "time_without_zone"
    try:
        offset = UTC if zone in "Zz" else timezone(_offset(zone))
        whole = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=offset)
        microseconds = to_microseconds(whole)
    except (ValueError, OverflowError):
        return "invalid_time"
    if zone == "Z" and text[10] == "T":
        if len(_minutes) >= _MINUTES_KEPT:
            _minutes.clear()
        _minutes[text[:17]] = microseconds - int(second) * 1_000_000
    return microseconds + int((fraction or "0")[:6].ljust(6, "0"))


def _offset(zone: str) -> timedelta:
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    if hours > 23 or minutes > 59:
        raise ValueError(zone)
    return timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)
