"""A question about usage: which meter, by which windows and dimensions. Owns what may be asked, and how pages go on."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import cast
from zoneinfo import ZoneInfo

import msgspec

from core.calendar import Calendar
from core.errors import Fault, InvalidInputError, NotFoundError
from core.meters import Meter, Registry
from core.period import Period
from metering.domain.windows import WINDOW_SIZES, WindowSize

ROWS_MAX = 10_000
DIMENSIONS_MAX = 20
VALUES_MAX = 200
# Beyond this no usage can lie (`core.usage_event`).
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: the last row's window (whole seconds since 1970 UTC) and group."""

    start: int
    group: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """One meter's usage of one tenant in `span`, by windows and by the values of `group_by`.

    `filters` are (dimension, allowed values), all of which must hold; "" stands for usage that does not name the
    dimension. `weight_period` is the length that a month stands for in a time-weighted meter; None: each calendar month
    (for billing periods: each of them) by its own length.
    """

    tenant: str
    meter: Meter
    window: WindowSize
    span: Period
    calendar: Calendar
    group_by: tuple[str, ...] = ()
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    limit: int = 1_000
    after: Position | None = None
    weight_period: Period | None = None


@dataclass(frozen=True, slots=True)
class WindowUsage:
    """What a window holds for one group: the quantity in the meter's unit, and the events it came from."""

    window: Period
    group: tuple[str, ...]
    quantity: Decimal
    events: int


@dataclass(frozen=True, slots=True)
class UsagePage:
    """A page of the answer, by window and group; `next` is where to go on, None at the end."""

    query: UsageQuery
    rows: tuple[WindowUsage, ...]
    next: Position | None


def read_query(
    registry: Registry,
    *,
    now: datetime,
    tenant: str,
    meter: str,
    window: str = "total",
    start: str | None = None,
    end: str | None = None,
    group_by: Sequence[str] = (),
    filters: Sequence[str] = (),
    limit: int = 1_000,
    cursor: str | None = None,
) -> UsageQuery:
    """Return the question that texts ask, or refuse it with all faults at once.

    `start` and `end` are RFC 3339 instants on whole minutes, or days (local midnight of the tenant); without them the
    tenant's month so far. Filters read `region:eu`; several of one dimension allow each. Raises `NotFoundError` for an
    unknown tenant or meter, else `InvalidInputError` (`unknown_window`, `invalid_time`, `not_on_minute`,
    `time_out_of_bounds`, `invalid_range`, `unknown_dimension`, `duplicate_dimension`, `invalid_filter`,
    `invalid_limit`, `invalid_cursor`, `too_many_values`).
    """
    if tenant not in registry.tenants:
        raise NotFoundError(f"no tenant {tenant[:80]!r}")
    counted = registry.by_id.get(meter)
    if counted is None:
        raise NotFoundError(f"no meter {meter[:80]!r}")
    calendar, faults = registry.calendar_of(tenant), list[Fault]()
    if window not in WINDOW_SIZES:
        faults.append(Fault("unknown_window", f"expected one of {', '.join(WINDOW_SIZES)}", "window"))
    span = _read_span(start, end, calendar, now, faults)
    _check_groups(group_by, counted, faults)
    allowed = _read_filters(filters, counted, faults)
    if not 1 <= limit <= ROWS_MAX:
        faults.append(Fault("invalid_limit", f"expected 1 to {ROWS_MAX}, got {limit}", "limit"))
    after = _read_cursor(cursor, len(group_by), faults) if cursor is not None else None
    if faults or span is None:
        raise InvalidInputError(faults)
    return UsageQuery(tenant, counted, cast(WindowSize, window), span, calendar, tuple(group_by), allowed, limit, after)


def format_cursor(position: Position) -> str:
    """Return the text that stands for a position."""
    return base64.urlsafe_b64encode(msgspec.json.encode([position.start, list(position.group)])).decode().rstrip("=")


def _read_cursor(text: str, groups: int, faults: list[Fault]) -> Position | None:
    try:
        padded = text.encode() + b"=" * (-len(text) % 4)
        start, group = msgspec.json.decode(base64.b64decode(padded, b"-_", validate=True), type=tuple[int, list[str]])
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        start, group = -1, []
    if not 0 <= start < 1 << 32 or len(group) != groups:
        faults.append(Fault("invalid_cursor", "not a cursor of this question", "cursor"))
        return None
    return Position(start, tuple(group))


def _read_span(
    start: str | None, end: str | None, calendar: Calendar, now: datetime, faults: list[Fault]
) -> Period | None:
    first = calendar.period(calendar.month_name(now)).start if start is None else _read_instant(start, "from", calendar)
    last = _next_minute(now) if end is None else _read_instant(end, "to", calendar)
    bad = [fault for fault in (first, last) if isinstance(fault, Fault)]
    faults += bad
    if isinstance(first, Fault) or isinstance(last, Fault):
        return None
    if not first < last:
        faults.append(Fault("invalid_range", "from must lie before to", "to"))
        return None
    return Period(first, last)


def _read_instant(text: str, name: str, calendar: Calendar) -> datetime | Fault:
    try:
        if _DAY.fullmatch(text):
            instant = calendar.day_of(_noon(text, calendar)).start
        else:
            instant = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        return Fault("invalid_time", f"expected 2026-10-31 or RFC 3339 with a zone, got {text[:80]!r}", name)
    if instant.tzinfo is None:
        return Fault("invalid_time", f"expected a zone, such as Z, got {text[:80]!r}", name)
    try:
        instant = instant.astimezone(UTC)
    except OverflowError:
        return Fault("time_out_of_bounds", "expected a time from 2000 to 2099", name)
    if not EARLIEST <= instant <= LATEST:
        return Fault("time_out_of_bounds", "expected a time from 2000 to 2099", name)
    if instant.second or instant.microsecond:
        return Fault("not_on_minute", "usage is kept by the minute: expected a whole minute", name)
    return instant


def _noon(day: str, calendar: Calendar) -> datetime:
    parsed = date.fromisoformat(day)
    # No zone's clocks move over noon, so this instant lies on that local day for certain.
    return datetime(parsed.year, parsed.month, parsed.day, 12, tzinfo=ZoneInfo(calendar.time_zone))


def _next_minute(now: datetime) -> datetime:
    whole = now.astimezone(UTC).replace(second=0, microsecond=0)
    return whole + timedelta(minutes=1)


def _check_groups(group_by: Sequence[str], meter: Meter, faults: list[Fault]) -> None:
    for index, name in enumerate(group_by):
        if name not in meter.dimensions:
            faults.append(_unknown_dimension(meter, name, f"group_by[{index}]"))
        elif name in group_by[:index]:
            faults.append(Fault("duplicate_dimension", f"{name!r} is named twice", f"group_by[{index}]"))


def _read_filters(filters: Sequence[str], meter: Meter, faults: list[Fault]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    allowed: dict[str, list[str]] = {}
    if len(filters) > VALUES_MAX:
        faults.append(Fault("too_many_values", f"at most {VALUES_MAX} filters are taken", "filter"))
        return ()
    for index, text in enumerate(filters):
        name, colon, value = text.partition(":")
        if not colon:
            faults.append(Fault("invalid_filter", f"expected dimension:value, got {text[:80]!r}", f"filter[{index}]"))
        elif name not in meter.dimensions:
            faults.append(_unknown_dimension(meter, name, f"filter[{index}]"))
        else:
            allowed.setdefault(name, []).append(value)
    return tuple((name, tuple(values)) for name, values in allowed.items())


def _unknown_dimension(meter: Meter, name: str, path: str) -> Fault:
    known = ", ".join(meter.dimensions) or "none"
    return Fault("unknown_dimension", f"{meter.meter_id} has no dimension {name[:80]!r}; it has: {known}", path)
