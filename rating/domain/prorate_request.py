"""Requests to `meterbook prorate`: a change of an amount within a period, read from a document with every fault.

Documented for callers in `rating/prorate_input.schema.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from core.calendar import Calendar
from core.errors import Fault, InvalidInputError
from core.event_time import parse_event_time, to_datetime
from core.money import MINOR_UNITS
from core.period import Period
from rating.domain.cycle import Cycle, Interval
from rating.domain.fields import Fields
from rating.domain.proration import Convention, share_before
from rating.domain.rate_request import read_request_id, read_time_zone

_DAY_LENGTH = len("2026-10-05")


@dataclass(frozen=True, slots=True)
class ProrateRequest:
    """What is to be prorated: a period's amount changes from `old` to `new` at an instant of it."""

    period: Period
    at: datetime
    old: Decimal
    new: Decimal
    currency: str
    convention: Convention
    time_zone: str


def read_prorate_request(document: Any) -> ProrateRequest:
    """Return the request; raises `InvalidInputError` with every fault and its path."""
    faults: list[Fault] = []
    fields = Fields(document, "", faults)
    if read_request_id(document) is None:
        code = "invalid_id" if fields.has("id") else "missing_field"
        fields.fault("id", code, "expected text of at most 200 characters, or a whole number")
    fields.ignore("id")
    time_zone = read_time_zone(fields)
    currency = fields.choice("currency", MINOR_UNITS, "unknown_currency")
    conventions = [convention.value for convention in Convention]
    convention = fields.choice("convention", conventions, "invalid_choice", Convention.DAYS.value)
    old, new = fields.amount("old_amount"), fields.amount("new_amount")
    at = _read_instant(fields, "at", time_zone)
    period = _read_period(fields, time_zone, at)
    fields.finish()
    if period is not None and at is not None and not period.start <= at <= period.end:
        fields.fault("at", "outside_period", f"not in {period}")
    if faults or period is None or at is None:
        raise InvalidInputError(faults)
    request = ProrateRequest(period, at, old, new, currency, Convention(convention), time_zone)
    # A period that the convention cannot measure is refused here, with all the rest.
    share_before(at, period, request.convention, time_zone)
    return request


def _read_period(fields: Fields, time_zone: str, at: datetime | None) -> Period | None:
    """Read a period by its bounds, or a cycle (`interval`, `anchor`), whose period that holds the change is meant."""
    if not fields.has("period"):
        fields.fault("period", "missing_field", "this field is required")
        return None
    inner = Fields(fields.raw("period"), fields.at("period"), fields.faults)
    if inner.has("interval") or inner.has("anchor"):
        interval = inner.choice("interval", [one.value for one in Interval], "invalid_choice", "month")
        anchor = _read_day(inner, "anchor")
        inner.finish()
        if at is None or anchor is None or not interval:
            return None
        return _period_of(Cycle(Interval(interval), anchor, time_zone), at, inner)
    start, end = _read_instant(inner, "start", time_zone), _read_instant(inner, "end", time_zone)
    inner.finish()
    if start is None or end is None:
        return None
    if start >= end:
        inner.fault("end", "invalid_period", "a period ends after it starts")
        return None
    return Period(start, end)


def _period_of(cycle: Cycle, at: datetime, fields: Fields) -> Period | None:
    try:
        return cycle.period_at(at)
    except (ValueError, OverflowError):
        fields.fault("anchor", "invalid_period", "such a period reaches beyond the years 1 to 9999")
        return None


def _read_instant(fields: Fields, name: str, time_zone: str) -> datetime | None:
    """Read an instant with its zone, or a day, which stands for its midnight in the request's time zone."""
    value = fields.raw(name)
    if value is None:
        fields.fault(name, "missing_field", "this field is required")
        return None
    if isinstance(value, str) and len(value) == _DAY_LENGTH:
        day = _read_day(fields, name)
        if day is None:
            return None
        try:
            return Calendar(time_zone).midnight(day)
        except (ValueError, OverflowError):
            fields.fault(name, "invalid_time", "such a day reaches beyond the years 1 to 9999")
            return None
    parsed = parse_event_time(value) if isinstance(value, str) else "invalid_time"
    if isinstance(parsed, str):
        fields.fault(name, parsed, 'expected a day, or an instant with its zone, such as "2026-10-05T08:00:00Z"')
        return None
    return to_datetime(parsed)


def _read_day(fields: Fields, name: str) -> date | None:
    value = fields.raw(name)
    day = _day_of(value)
    if day is None:
        fields.fault(name, "missing_field" if value is None else "invalid_date", 'expected a day such as "2026-01-31"')
    return day


def _day_of(value: object) -> date | None:
    if not isinstance(value, str) or len(value) != _DAY_LENGTH:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None
