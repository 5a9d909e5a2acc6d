"""Windows that a question about usage is answered by. Owns how a span of time is cut, in the tenant's own calendar."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from core.calendar import Calendar
from core.errors import Fault, InvalidInputError
from core.period import Period

WindowSize = Literal["minute", "hour", "day", "month", "billing_period", "total"]
WINDOW_SIZES: tuple[WindowSize, ...] = get_args(WindowSize)
WINDOWS_MAX = 10_000
_MINUTE, _HOUR_SECONDS = timedelta(minutes=1), 3_600


def cut_windows(size: WindowSize, span: Period, calendar: Calendar) -> list[Period]:
    """Return the windows that cover `span`, in order and without gaps; the first and the last are cut to it.

    `span` begins and ends on whole minutes. Hours are those of the local clock, so one is longer or shorter where the
    clocks move by less than an hour. Raises `InvalidInputError` (`too_many_windows`) for more than `WINDOWS_MAX`.
    """
    windows: list[Period] = []
    # Counted first: a century of minutes should not be cut before it is refused.
    count = (span.end - span.start) // _MINUTE if size == "minute" else 0
    if count <= WINDOWS_MAX:
        start = span.start
        for end in _ends(size, span, calendar):
            windows.append(Period(start, min(end, span.end)))
            start = end
            if len(windows) > WINDOWS_MAX:
                break
        else:
            return windows
    found = f"{span} has more than {WINDOWS_MAX} {size} windows: ask for a shorter span or larger windows"
    raise InvalidInputError([Fault("too_many_windows", found, "window")])


def months_of(size: WindowSize, window: Period, calendar: Calendar) -> list[Period]:
    """Return the whole months (for billing periods: those) that a window reaches into.

    What a level weighs per month depends on the month: a day of February is more of it than one of March.
    """
    months, instant = [], window.start
    while instant < window.end:
        name = calendar.billing_name(instant) if size == "billing_period" else calendar.month_name(instant)
        months.append(calendar.period(name))
        instant = months[-1].end
    return months


def _ends(size: WindowSize, span: Period, calendar: Calendar) -> Iterator[datetime]:
    """Yield the end of each window from the one that holds the span's start to the one that holds its last instant."""
    if size == "total":
        yield span.end
        return
    zone, instant = ZoneInfo(calendar.time_zone), span.start
    while instant < span.end:
        match size:
            case "minute":
                instant += _MINUTE
            case "hour":
                instant = _next_full_hour(instant, zone)
            case "day":
                instant = calendar.day_of(instant).end
            case "month":
                instant = calendar.period(calendar.month_name(instant)).end
            case "billing_period":
                instant = calendar.period(calendar.billing_name(instant)).end
        yield instant


def _next_full_hour(instant: datetime, zone: ZoneInfo) -> datetime:
    following = instant + timedelta(seconds=_HOUR_SECONDS - _seconds_into_hour(instant, zone))
    into = _seconds_into_hour(following, zone)
    # The clocks moved by half an hour in between (Lord Howe Island): go on to where the local clock is at full hour.
    return following + timedelta(seconds=_HOUR_SECONDS - into) if into else following


def _seconds_into_hour(instant: datetime, zone: ZoneInfo) -> int:
    local = instant.astimezone(UTC).astimezone(zone)
    return local.minute * 60 + local.second
