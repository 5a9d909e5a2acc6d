"""What usage must come to, computed the slow way: quarter hour by quarter hour, segment by segment, in fractions.

Shares no code with the product: neither its calendar nor its queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

Row = tuple[datetime, datetime, tuple[str, ...], Decimal, int]
STEP = timedelta(minutes=15)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Event:
    at: datetime
    dims: tuple[tuple[str, str], ...]
    value: Decimal
    text: str = ""
    place: int = 0

    def group(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict(self.dims).get(name, "") for name in names)


@dataclass(frozen=True)
class Question:
    aggregation: str
    window: str
    start: datetime
    end: datetime
    zone: str = "UTC"
    anchor: int = 1
    group_by: tuple[str, ...] = ()
    weight_per: str = "hour"
    now: datetime = datetime(2100, 1, 1, tzinfo=UTC)


def answer(question: Question, events: list[Event]) -> list[Row]:
    rows: list[Row] = []
    groups = sorted({event.group(question.group_by) for event in events})
    for start, end in windows(question):
        for group in groups:
            mine = [event for event in events if event.group(question.group_by) == group]
            inside = sorted((event for event in mine if start <= event.at < end), key=lambda e: (e.at, e.place))
            if question.aggregation == "time_weighted":
                inside = [event for event in inside if event.at < question.now]
                quantity = weighted(question, mine, start, min(end, question.now))
                if quantity or inside:
                    rows.append((start, end, group, rounded(quantity), len(inside)))
            elif inside:
                rows.append((start, end, group, total(question.aggregation, inside), len(inside)))
    return rows


def total(aggregation: str, events: list[Event]) -> Decimal:
    values = [event.value for event in events]
    match aggregation:
        case "sum":
            return sum(values, Decimal(0))
        case "count":
            return Decimal(len(events))
        case "average":
            return rounded(sum(map(Fraction, values)) / len(values))
        case "unique":
            return Decimal(len({event.text for event in events}))
        case "max":
            return max(values)
        case "min":
            return min(values)
    assert aggregation == "latest"
    return events[-1].value


def weighted(question: Question, events: list[Event], start: datetime, end: datetime) -> Fraction:
    area = Fraction(0)
    for series in {event.dims for event in events}:
        steps = sorted((event for event in events if event.dims == series), key=lambda e: (e.at, e.place))
        for number, event in enumerate(steps):
            until = steps[number + 1].at if number + 1 < len(steps) else end
            area += held(question, event.value, max(start, event.at), min(end, until))
    return area


def held(question: Question, level: Decimal, start: datetime, end: datetime) -> Fraction:
    """Level times time over weight; piece by piece, because months weigh differently."""
    found = Fraction(0)
    while start < end:
        if question.weight_per == "month":
            by_billing = question.window == "billing_period"
            begins, piece_end = bounds(question, start, "billing_period" if by_billing else "month")
            weight = piece_end - begins
        else:
            piece_end, weight = end, timedelta(seconds=1 if question.weight_per == "second" else 3600)
        stop = min(piece_end, end)
        found += Fraction(level) * ((stop - start) // MICROSECOND) / (weight // MICROSECOND)
        start = stop
    return found


def rounded(exact: Fraction) -> Decimal:
    return Decimal(round(exact * 10**12)).scaleb(-12)  # Python rounds fractions half to even


def windows(question: Question) -> list[tuple[datetime, datetime]]:
    found: list[tuple[datetime, datetime]] = []
    instant = question.start
    while instant < question.end:
        if question.window == "minute":
            following = instant + timedelta(minutes=1)
        else:
            # To the next quarter of an hour: that is where any window may begin.
            following = min(question.end, instant - timedelta(minutes=instant.minute % 15) + STEP)
        if found and not begins_window(question, instant):
            found[-1] = (found[-1][0], following)
        else:
            found.append((instant, following))
        instant = following
    return found


def begins_window(question: Question, instant: datetime) -> bool:
    local = instant.astimezone(ZoneInfo(question.zone))
    before = (instant - STEP).astimezone(ZoneInfo(question.zone))
    match question.window:
        case "minute":
            return True
        case "hour":
            return local.minute == 0
        case "day":
            return local.date() != before.date()
        case "month":
            return (local.year, local.month) != (before.year, before.month)
        case "billing_period":
            return billing_start(local.date(), question.anchor) != billing_start(before.date(), question.anchor)
    return False


def billing_start(day: date, anchor: int) -> date:
    while day.day != min(anchor, days_in_month(day)):
        day -= timedelta(days=1)
    return day


def days_in_month(day: date) -> int:
    following = day.replace(day=28) + timedelta(days=4)
    return (following - timedelta(days=following.day)).day


def bounds(question: Question, instant: datetime, window: str) -> tuple[datetime, datetime]:
    """The whole month or billing period around an instant, by walking quarter hours."""
    asked = Question(question.aggregation, window, instant, instant, question.zone, question.anchor)
    start = instant - timedelta(minutes=instant.minute % 15, seconds=instant.second, microseconds=instant.microsecond)
    end = start + STEP
    key = (question.zone, question.anchor, window, start)
    if key not in _bounds:
        while not begins_window(asked, start):
            start -= STEP
        while not begins_window(asked, end):
            end += STEP
        _bounds[key] = (start, end)
    return _bounds[key]


_bounds: dict[tuple[str, int, str, datetime], tuple[datetime, datetime]] = {}
