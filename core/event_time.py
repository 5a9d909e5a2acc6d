"""Event times. Owns how an RFC 3339 text becomes microseconds since 1970 UTC, exactly and fast.

Fractions are cut, never rounded: 17:59:59.9999999 belongs to minute 17:59, and rounding to microseconds (as common
parsers do) would move it into the next window. Source of the form: RFC 3339 §5.6. A leap second (:60) is refused,
because no window can hold it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

_RFC3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(Z|z|[+-]\d{2}:\d{2})?", re.ASCII
)
_SECONDS = {f"{second:02}": second * 1_000_000 for second in range(60)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNIX = re.compile(r"(-?)(\d{1,18})(?:\.(\d{1,18}))?", re.ASCII)
# Years 0001 to 9999, beyond which an instant has no RFC 3339 text.
_FIRST_US = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_END_US = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1) + 1_000_000
# What was seen before, with its microseconds: seconds ("2023-11-16T18:17:05"), minutes ("2023-11-16T18:17:") and what
# follows the seconds, up to milliseconds ("Z", ".123Z"). Events cluster in few minutes.
_seconds: dict[str, int] = {}
_minutes: dict[str, int] = {}
_fractions: dict[str, int] = {}
_KEPT = 50_000


def parse_event_time(text: str) -> int | str:
    """Return microseconds since 1970 UTC, or the code of the fault: `invalid_time` or `time_without_zone`."""
    second = _seconds.get(text[:19])
    fraction = _fractions.get(text[19:])
    if second is not None and fraction is not None:
        return second + fraction
    if text[-1:] == "Z":
        minute = _minutes.get(text[:17])
        within = _SECONDS.get(text[17:19])
        if minute is not None and within is not None:
            second = _keep(_seconds, text[:19], minute + within)
            tail = text[19:]
            digits = tail[1:-1]
            if tail == "Z" or (tail[0] == "." and digits.isdigit() and digits.isascii() and len(digits) <= 9):
                fraction = int(digits[:6].ljust(6, "0"))
                return second + (_keep(_fractions, tail, fraction) if len(digits) <= 3 else fraction)
    return _parse_slowly(text)


def parse_unix_time(value: object) -> int | str:
    """Return microseconds since 1970 UTC of Unix seconds, or the code `invalid_time`.

    Takes an integer, a `Decimal` (how JSON numbers with a fraction arrive) or a decimal text, exactly: no float is
    made. Fractions are cut as in texts, towards the past, so an event before 1970 stays in its microsecond too.
    """
    if type(value) is int:
        text = str(value) if abs(value) < 10**18 else ""
    elif type(value) is Decimal and value.is_finite() and abs(value.adjusted()) < 18:
        text = f"{value:f}"
    else:
        text = value if type(value) is str else ""
    found = _UNIX.fullmatch(text)
    if not found:
        return "invalid_time"
    sign, seconds, fraction = found.groups()
    digits = fraction or "0"
    whole = int(seconds) * 1_000_000 + int(digits[:6].ljust(6, "0"))
    if not sign:
        return whole
    return -whole - (1 if digits[6:].strip("0") else 0)


def format_event_time(microseconds: int) -> str:
    """Return the RFC 3339 text in UTC of microseconds since 1970, without a fraction of zeros.

    Raises `ValueError` for an instant outside of the years 0001 to 9999.
    """
    if not _FIRST_US <= microseconds < _END_US:
        raise ValueError(f"{microseconds} microseconds lie outside of the years 0001 to 9999")
    return to_datetime(microseconds).replace(tzinfo=None).isoformat() + "Z"


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
        _keep(_minutes, text[:17], microseconds - int(second) * 1_000_000)
    return microseconds + int((fraction or "0")[:6].ljust(6, "0"))


def _keep(seen: dict[str, int], text: str, microseconds: int) -> int:
    if len(seen) >= _KEPT:
        seen.clear()
    seen[text] = microseconds
    return microseconds


def _offset(zone: str) -> timedelta:
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    if hours > 23 or minutes > 59:
        raise ValueError(zone)
    return timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)
