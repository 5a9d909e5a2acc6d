"""Spans: the stretches of time that live usage can be asked for. Owns their names and which live periods they take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from core.calendar import Calendar
from core.errors import Fault, InvalidInputError
from core.live_quota import HOURS_KEPT
from core.meters import Aggregation
from core.period import Period

SPAN_PATTERN = r"^(current_month|current_year|billing_period|rolling:\d{1,3}[hd]|\d{4}(-\d{2}(-\d{2}(T\d{2})?)?)?)$"
_ROLLING = re.compile(r"rolling:(\d{1,3})([hd])")
_YEAR = re.compile(r"\d{4}")
_HOUR = timedelta(hours=1)
# As far back as a level is looked for that was set before the span: as long as months are kept.
_MONTHS_BACK = 13
# Distinct values of two hours may be the same ones, and the level at the start of a window is not kept by the hour.
NOT_ROLLING: frozenset[str] = frozenset({"unique", "time_weighted"})

SpanKind = Literal["period", "year", "rolling"]


@dataclass(frozen=True, slots=True)
class Span:
    """A named span: its window, and the live periods that make it up, oldest first.

    A rolling window begins with the hour that holds its start, so that it never says less than was used in it; it ends
    now, all others at their end. `before` are earlier periods, newest first, in which a level may have been set.
    """

    name: str
    kind: SpanKind
    window: Period
    periods: tuple[str, ...]
    before: tuple[str, ...] = ()


def resolve_span(text: str, calendar: Calendar, now: datetime) -> Span:
    """Return the span that a text names at an instant; raises `InvalidInputError` (`invalid_period`).

    Texts: `current_month`, `current_year`, `billing_period`, `rolling:24h`, `rolling:7d` (1 to 744 hours), or a live
    period's own name (`core.calendar`).
    """
    if (found := _ROLLING.fullmatch(text)) is not None:
        return _rolling(text, int(found[1]) * (24 if found[2] == "d" else 1), now)
    naming = {
        "current_month": calendar.month_name,
        "current_year": calendar.year_name,
        "billing_period": calendar.billing_name,
    }.get(text)
    name = naming(now) if naming is not None else text
    window = calendar.period(name)
    if _YEAR.fullmatch(name):
        months = _months(calendar, window)
        return Span(name, "year", window, months, _before(calendar, months[0]))
    return Span(name, "period", window, (name,), _before(calendar, name))


def periods_of(span: Span, aggregation: Aggregation) -> tuple[str, ...]:
    """Return the live periods to read for a meter; raises `InvalidInputError` (`not_rolling`) if they do not merge."""
    if span.kind == "rolling" and aggregation in NOT_ROLLING:
        raise InvalidInputError([Fault("not_rolling", f"{aggregation} meters have no rolling windows", "period")])
    # Distinct values of months do not add up either, but years of them are counted.
    return (span.name,) if span.kind == "year" and aggregation == "unique" else span.periods


def _rolling(text: str, hours: int, now: datetime) -> Span:
    if not 1 <= hours <= HOURS_KEPT:
        raise InvalidInputError([Fault("invalid_period", f"expected 1 to {HOURS_KEPT} hours, got {text!r}", "period")])
    start = (now - hours * _HOUR).astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    count = -(-(now - start) // _HOUR)
    names = tuple((start + number * _HOUR).strftime("%Y-%m-%dT%H") for number in range(count))
    return Span(text, "rolling", Period(start, now), names)


def _months(calendar: Calendar, year: Period) -> tuple[str, ...]:
    names = [calendar.month_name(year.start)]
    while (end := calendar.period(names[-1]).end) < year.end:
        names.append(calendar.month_name(end))
    return tuple(names)


def _before(calendar: Calendar, name: str) -> tuple[str, ...]:
    """Return the periods of the same kind before one, newest first; the hours of a day for an hour."""
    instant = calendar.period(name).start
    if "T" in name:
        return tuple((instant - number * _HOUR).strftime("%Y-%m-%dT%H") for number in range(1, 25))
    naming = calendar.month_name if len(name) == len("2026-10") else calendar.billing_name
    names: list[str] = []
    while len(names) < _MONTHS_BACK:
        names.append(naming(instant - timedelta(microseconds=1)))
        instant = calendar.period(names[-1]).start
    return tuple(names)
