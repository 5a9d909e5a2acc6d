"""A tenant's calendar: its months and billing periods in its own time zone. Owns their names and half-open bounds.

Local midnight decides, whatever daylight saving does to the day; a midnight that is skipped is the moment the clocks
move, one that occurs twice is the first (PEP 495, fold=0). What follows a midnight belongs to the new day, even if the
clocks then go back over it, as they did in St. John's at 00:01 until 2011. Every zone's offset has been a whole number
of quarter hours since 2000, so a slot of a quarter hour never crosses a local day.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from core.errors import Fault, InvalidInputError
from core.period import Period

SLOT_SECONDS = 900
_NAME_MAX = len("2026-10-31T23")
_HOUR = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}", re.ASCII)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MONTH = re.compile(r"\d{4}-\d{2}", re.ASCII)
_YEAR = re.compile(r"\d{4}", re.ASCII)
# A machine's own zone, and a placeholder for none: the same name must mean the same everywhere.
_NOT_A_PLACE = frozenset({"localtime", "Factory"})


@dataclass(frozen=True, slots=True)
class Calendar:
    """Time zone (IANA name) and the day of the month on which billing periods begin (1 to 31).

    A month without that day begins its period on its last day.
    """

    time_zone: str = "UTC"
    anchor_day: int = 1

    def month_name(self, instant: datetime) -> str:
        """Return the local calendar month of an instant, `2026-10`."""
        return self._day(instant).isoformat()[:7]

    def year_name(self, instant: datetime) -> str:
        """Return the local calendar year of an instant, `2026`."""
        return self._day(instant).isoformat()[:4]

    def billing_name(self, instant: datetime) -> str:
        """Return the billing period of an instant: its month, or with an anchor the local start, `2026-10-15`."""
        day = self._day(instant)
        if self.anchor_day == 1:
            return day.isoformat()[:7]
        start = self._anchor_in(day.year, day.month)
        if day < start:
            before = day.replace(day=1) - timedelta(days=1)
            start = self._anchor_in(before.year, before.month)
        return start.isoformat()

    def period(self, name: str) -> Period:
        """Return the bounds of a named period: a year, month, billing period by its start date, or hour of UTC.

        Raises `InvalidInputError` (`invalid_period`) for anything else, and for a date on which no period begins.
        """
        # What is longer is no name, and is not to be kept.
        found = _named(self, name) if len(name) <= _NAME_MAX else None
        if found is None:
            reason = f"no period of this calendar is called {name[:40]!r}"
            raise InvalidInputError([Fault("invalid_period", reason, "period")])
        return found

    def day_of(self, instant: datetime) -> Period:
        """Return the local day that holds an instant; 23 or 25 hours long when the clocks move."""
        day = self._day(instant)
        return Period(self._midnight(day), self._midnight(day + timedelta(days=1)))

    def local_day(self, instant: datetime) -> date:
        """Return the date of the local day that holds an instant."""
        return self._day(instant)

    def midnight(self, day: date) -> datetime:
        """Return the instant at which a local day begins, in UTC."""
        return self._midnight(day)

    def live_names(self, instant: datetime) -> tuple[str, ...]:
        """Return the names of an instant's live periods: month, hour of UTC, and billing period if that is another."""
        hour = instant.astimezone(UTC).strftime("%Y-%m-%dT%H")
        month, billing = self.month_name(instant), self.billing_name(instant)
        return (month, hour) if month == billing else (month, hour, billing)

    def _zone(self) -> ZoneInfo:
        return _zone(self.time_zone)

    def _day(self, instant: datetime) -> date:
        day = instant.astimezone(self._zone()).date()
        following = day + timedelta(days=1)
        return following if instant >= self._midnight(following) else day

    def _anchor_in(self, year: int, month: int) -> date:
        first = date(year, month, 1)
        return first + timedelta(days=min(self.anchor_day, (_month_after(first) - first).days) - 1)

    def _midnight(self, day: date) -> datetime:
        # fold=0: a midnight that occurs twice is the first one; one that is skipped is the moment the clocks move,
        # because the offset before the move still counts.
        return datetime(day.year, day.month, day.day, tzinfo=self._zone()).astimezone(UTC)


# Kept: a run asks for the same month for every tenant.
@lru_cache(maxsize=4_096)
def _named(calendar: Calendar, name: str) -> Period | None:
    try:
        return _find(calendar, name)
    except (ValueError, OverflowError):
        return None


def _find(calendar: Calendar, name: str) -> Period | None:
    """Return a period by its name; ValueError and OverflowError are other words for there being none."""
    if _HOUR.fullmatch(name):
        start = datetime.strptime(name, "%Y-%m-%dT%H").replace(tzinfo=UTC)
        return Period(start, start + timedelta(hours=1))
    if _MONTH.fullmatch(name):
        first = date.fromisoformat(f"{name}-01")
        return Period(calendar.midnight(first), calendar.midnight(_month_after(first)))
    if _YEAR.fullmatch(name):
        year = int(name)
        return Period(calendar.midnight(date(year, 1, 1)), calendar.midnight(date(year + 1, 1, 1)))
    if _DAY.fullmatch(name):
        start_day = date.fromisoformat(name)
        if start_day == calendar._anchor_in(start_day.year, start_day.month):
            following = _month_after(start_day.replace(day=1))
            end_day = calendar._anchor_in(following.year, following.month)
            return Period(calendar.midnight(start_day), calendar.midnight(end_day))
    return None


UTC_MONTHS = Calendar()


def check_calendar(time_zone: str, anchor_day: int) -> Calendar:
    """Return the calendar; `InvalidInputError` has all faults (`unknown_time_zone`, `invalid_anchor_day`) at once."""
    faults = []
    if time_zone not in _zone_names():
        faults.append(Fault("unknown_time_zone", f"no time zone is called {time_zone[:80]!r}", "time_zone"))
    if not 1 <= anchor_day <= 31:
        faults.append(
            Fault("invalid_anchor_day", f"expected a day from 1 to 31, got {anchor_day}", "billing_anchor_day")
        )
    if faults:
        raise InvalidInputError(faults)
    return Calendar(time_zone, anchor_day)


@lru_cache(maxsize=1_000)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    # Leaves out "right/…", whose offsets count leap seconds.
    return frozenset(available_timezones()) - _NOT_A_PLACE


def _month_after(first: date) -> date:
    return (first + timedelta(days=32)).replace(day=1)
