"""Requests to `meterbook rate`: a price or a list of charges and a usage, read from a document with every fault.

Documented for callers in `rating/rate_input.schema.json`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from core.calendar import check_calendar
from core.errors import Fault, InvalidInputError
from core.event_time import parse_event_time, to_datetime
from core.money import MINOR_UNITS
from core.period import Period
from rating.domain.extent import Extent
from rating.domain.fields import ZERO, Fields
from rating.domain.meter_usage import MeterUsage, Used
from rating.domain.plan import Charge, read_price
from rating.domain.price import Basis, Dimensions, Grain, UsageEntry

_ONE = Decimal(1)
_USAGE_FORMS = ("quantity", "quantities", "events", "phases")
_ID_LENGTH_MAX = 200
_EXPONENT_MAX = 64


@dataclass(frozen=True, slots=True)
class Slice:
    """Usage of a part of the period, and that part where it was named."""

    used: Used
    period: Period | None = None


@dataclass(frozen=True, slots=True)
class RateRequest:
    """What is to be rated: charges, the slices of a period's usage (one unless it is billed progressively), extent."""

    currency: str
    charges: tuple[Charge, ...]
    slices: tuple[Slice, ...]
    extent: Extent
    period: Period | None


def read_request_id(document: Any) -> str | int | None:
    """Return the request's id if it has a readable one: text of at most 200 characters or a whole number."""
    found = document.get("id") if isinstance(document, dict) else None
    if isinstance(found, str) and 0 < len(found) <= _ID_LENGTH_MAX and found.isprintable():
        return found
    return found if type(found) is int else None


def read_request(document: Any) -> RateRequest:
    """Return the request; raises `InvalidInputError` with every fault and its path."""
    faults: list[Fault] = []
    fields = Fields(document, "", faults)
    if read_request_id(document) is None:
        code = "invalid_id" if fields.has("id") else "missing_field"
        fields.fault("id", code, f"expected text of at most {_ID_LENGTH_MAX} characters, or a whole number")
    fields.ignore("id")
    currency = fields.choice("currency", MINOR_UNITS, "unknown_currency")
    charges = _read_charges(fields, currency)
    period = _read_period(fields)
    time_zone = read_time_zone(fields)
    licensed = fields.amount("licensed") if fields.has("licensed") else None
    share = _read_share(fields)
    starts = fields.flag("starts") if fields.has("starts") else True
    usage = _UsageReader(charges, fields, period)
    slices = usage.read()
    fields.finish()
    if faults:
        raise InvalidInputError(faults)
    if licensed is None:
        licensed = usage.seats if usage.seats is not None else _ONE
    return RateRequest(currency, tuple(charges), slices, Extent(share, licensed, time_zone, starts), period)


def _read_charges(fields: Fields, currency: str) -> list[Charge]:
    if fields.has("price") == fields.has("charges"):
        fields.fault("price", "missing_field", "expected either a price or charges")
        return []
    if fields.has("price"):
        document = _with_texts(fields.raw("price"))
        charge = read_price(document, fields.at("price"), fields.faults, currency)
        return [charge] if charge else []
    documents = fields.items("charges")
    if not documents and isinstance(fields.raw("charges"), list):
        fields.fault("charges", "missing_field", "expected at least one charge")
    charges: list[Charge] = []
    for index, document in enumerate(documents):
        path, default_id = fields.at(f"charges[{index}]"), f"charge-{index + 1}"
        charge = read_price(_with_texts(document), path, fields.faults, currency, default_id)
        if charge is None:
            continue
        if any(other.charge_id == charge.charge_id for other in charges):
            fields.fault(f"charges[{index}].id", "duplicate_id", f"two charges are called {charge.charge_id!r}")
        charges.append(charge)
    return charges


def _with_texts(document: Any) -> Any:
    """Return a price with its decimal numbers as catalogues have them, as texts, so that it has the same digest."""
    if isinstance(document, Decimal):
        return f"{document:f}" if abs(document.adjusted()) <= _EXPONENT_MAX else str(document)
    if isinstance(document, dict):
        return {name: _with_texts(value) for name, value in document.items()}
    if isinstance(document, list):
        return [_with_texts(value) for value in document]
    return document


def _read_period(fields: Fields, name: str = "period") -> Period | None:
    if not fields.has(name):
        return None
    inner = Fields(fields.raw(name), fields.at(name), fields.faults)
    start, end = _read_instant(inner, "start"), _read_instant(inner, "end")
    inner.finish()
    if start is None or end is None:
        return None
    if start >= end:
        inner.fault("end", "invalid_period", "a period ends after it starts")
        return None
    return Period(start, end)


def _read_instant(fields: Fields, name: str) -> datetime | None:
    value = fields.raw(name)
    if value is None:
        fields.fault(name, "missing_field", "this field is required")
        return None
    parsed = parse_event_time(value) if isinstance(value, str) else "invalid_time"
    if isinstance(parsed, str):
        fields.fault(name, parsed, 'expected an instant with its zone, such as "2026-10-05T08:00:00Z"')
        return None
    return to_datetime(parsed)


def read_time_zone(fields: Fields) -> str:
    """Return `time_zone` (IANA name), UTC if it is missing; an unknown one is a fault."""
    name = fields.text("time_zone", "UTC")
    try:
        check_calendar(name, 1)
    except InvalidInputError as refused:
        fields.fault("time_zone", refused.faults[0].code, refused.faults[0].reason)
        return "UTC"
    return name


def _read_share(fields: Fields) -> Fraction:
    """Read `share` ("21/31"): which part of the period amounts that are agreed for all of it are charged for."""
    if not fields.has("share"):
        return Fraction(1)
    text = fields.text("share", max_length=41)
    top, _, bottom = text.partition("/")
    if top.isdecimal() and bottom.isdecimal() and text.isascii() and int(bottom) and int(top) <= int(bottom):
        return Fraction(int(top), int(bottom))
    fields.fault("share", "invalid_share", 'expected a fraction from 0 to 1, such as "21/31"')
    return Fraction(1)


@dataclass(slots=True)
class _UsageReader:
    """Reads `usage` in any of its forms, and says which meter it is of."""

    charges: list[Charge]
    fields: Fields
    period: Period | None
    # The one quantity given, where the prices are of seats alone.
    seats: Decimal | None = None
    meters: list[str] = field(init=False)
    grains: set[Grain] = field(init=False)

    def __post_init__(self) -> None:
        metered = [charge for charge in self.charges if charge.meter is not None]
        self.meters = list(dict.fromkeys(charge.meter.meter_id for charge in metered if charge.meter))
        self.grains = {charge.price.grain for charge in metered}

    def read(self) -> tuple[Slice, ...]:
        """Return the slices, noting every fault."""
        licensed = any(charge.basis is Basis.LICENSED for charge in self.charges)
        if not self.fields.has("usage"):
            if self.meters:
                self.fields.fault("usage", "missing_field", "this field is required: a price of usage needs some")
            return (Slice({}, self.period),)
        usage = Fields(self.fields.raw("usage"), self.fields.at("usage"), self.fields.faults)
        if usage.has("phases"):
            slices = self._read_phases(usage)
        else:
            slices = (Slice(self._read_form(usage, self.period, "quantity" if licensed else ""), self.period),)
        usage.ignore(*_USAGE_FORMS)
        usage.finish()
        return slices

    def _read_phases(self, usage: Fields) -> tuple[Slice, ...]:
        for name in _USAGE_FORMS[:3]:
            if usage.has(name):
                usage.fault(name, "contradiction", "phases hold the usage themselves")
        documents = usage.items("phases")
        if not documents and isinstance(usage.raw("phases"), list):
            usage.fault("phases", "missing_field", "expected at least one phase")
        slices: list[Slice] = []
        for index, document in enumerate(documents):
            phase = Fields(document, usage.at(f"phases[{index}]"), usage.faults)
            period = _read_period(phase)
            before = slices[-1].period if slices else None
            if period and before and period.start < before.start:
                phase.fault("period.start", "invalid_period", "phases come in order of time")
            slices.append(Slice(self._read_form(phase, period or self.period), period or self.period))
            phase.ignore(*_USAGE_FORMS[:3])
            phase.finish()
        return tuple(slices)

    def _read_form(self, fields: Fields, period: Period | None, seats_in: str = "") -> Used:
        given = [name for name in _USAGE_FORMS[:3] if fields.has(name)]
        if len(given) != 1:
            reason = "expected one of quantity, quantities and events"
            fields.fault("" if not given else given[1], "missing_field" if not given else "contradiction", reason)
            return {}
        if given[0] == "events":
            return self._read_events(fields, period)
        if given[0] == "quantities":
            inner = Fields(fields.raw("quantities"), fields.at("quantities"), fields.faults)
            named = fields.mapping("quantities")
            used = {name: MeterUsage({(): inner.quantity(name)}) for name in named if self._knows(inner, name, name)}
            inner.ignore(*named)
            return used
        quantity, dimensions = fields.quantity("quantity"), _read_dimensions(fields)
        if seats_in and not self.meters:
            self.seats = quantity
            if quantity < 0:
                fields.fault("quantity", "negative_quantity", f"{quantity:f} is negative")
            return {}
        meter = self._meter_of(fields)
        return {} if meter is None else {meter: MeterUsage({dimensions: quantity})}

    def _read_events(self, fields: Fields, period: Period | None) -> Used:
        entries: dict[str, list[UsageEntry]] = {}
        timeless = self.grains <= {Grain.TOTAL} and period is None
        for index, document in enumerate(fields.items("events")):
            event = Fields(document, fields.at(f"events[{index}]"), fields.faults)
            at = None if timeless and not event.has("time") else _read_instant(event, "time")
            if at is not None and period is not None and at not in period:
                event.fault("time", "outside_period", f"not in {period}")
            amount = event.quantity("amount") if event.has("amount") else None
            quantity = event.quantity("quantity", _ONE if amount is not None else None)
            dimensions = _read_dimensions(event)
            meter = self._meter_of(event)
            event.finish()
            if meter is not None:
                entry = UsageEntry(at or _SOME_INSTANT, quantity, dimensions, 1, amount)
                entries.setdefault(meter, []).append(entry)
        return {meter: _usage_of(found) for meter, found in entries.items()}

    def _meter_of(self, fields: Fields) -> str | None:
        """Return the meter that usage is of; None if there is none, or none can be told."""
        if fields.has("meter"):
            name = fields.text("meter")
            return name if self._knows(fields, "meter", name) else None
        if len(self.meters) == 1:
            return self.meters[0]
        if self.meters:
            names = ", ".join(name or "(none)" for name in self.meters)
            fields.fault("meter", "ambiguous_meter", f"say which meter it is of: {names}")
        return None

    def _knows(self, fields: Fields, path: str, name: str) -> bool:
        if name in self.meters:
            return True
        if self.charges:
            fields.fault(path, "unknown_meter", f"no charge is of a meter {name!r}")
        return False


# Stands for a time that nothing depends on.
_SOME_INSTANT = to_datetime(0)


def _read_dimensions(fields: Fields) -> Dimensions:
    if not fields.has("dimensions"):
        return ()
    found = []
    for name, value in fields.mapping("dimensions").items():
        if not isinstance(value, str) or not value.isprintable() or len(value) > _ID_LENGTH_MAX:
            fields.fault(
                f"dimensions.{name}", "invalid_text", f"expected at most {_ID_LENGTH_MAX} printable characters"
            )
        elif value:
            found.append((name, value))
    return tuple(sorted(found))


def _usage_of(entries: list[UsageEntry]) -> MeterUsage:
    totals: dict[Dimensions, Decimal] = {}
    for entry in entries:
        totals[entry.dimensions] = totals.get(entry.dimensions, ZERO) + entry.quantity
    return MeterUsage(totals, tuple(entries))
