"""Windows: the stretches of time whose usage is rated together. Usually one; several when a plan was left and taken
up again within a billing period."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise

from core.period import Period

Windows = Period | tuple[Period, ...]


def windows_of(windows: Windows) -> tuple[Period, ...]:
    """Return the windows one by one, in order."""
    return (windows,) if isinstance(windows, Period) else windows


def join_windows(periods: Iterable[Period]) -> Windows | None:
    """Return the time that the periods cover, touching ones joined; None if there are none."""
    joined: list[Period] = []
    for period in sorted(periods):
        if joined and period.start <= joined[-1].end:
            joined[-1] = Period(joined[-1].start, max(joined[-1].end, period.end))
        else:
            joined.append(period)
    if not joined:
        return None
    return joined[0] if len(joined) == 1 else tuple(joined)


def hull_of(windows: Windows) -> Period:
    """Return the period from the first window's start to the last one's end."""
    found = windows_of(windows)
    return Period(found[0].start, found[-1].end)


def gaps_of(windows: Windows) -> list[Period]:
    """Return what lies between the windows."""
    return [Period(before.end, after.start) for before, after in pairwise(windows_of(windows))]


def show_windows(windows: Windows) -> str:
    """Write windows as ISO 8601 intervals, several separated by commas."""
    return ",".join(map(str, windows_of(windows)))


def holds_instant(windows: Windows, instant: datetime) -> bool:
    """Tell whether an instant lies in one of the windows."""
    return any(instant in window for window in windows_of(windows))
