"""Plans and charges, and how they are read from a document (a catalogue's plan, or the stored version of one).

The document is the plan: its digest names the version, and a charge's digest is what an invoice line refers to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from core.errors import Fault, InvalidInputError
from core.meters import Meter
from core.money import MINOR_UNITS
from rating.domain.adjust.free_units import FreeUnits
from rating.domain.adjust.read_adjustments import AFTER, BEFORE, Adjustments, read_adjustments
from rating.domain.adjust.read_adjustments import NONE as NO_ADJUSTMENTS
from rating.domain.cycle import Interval
from rating.domain.digest import digest_of
from rating.domain.fields import Fields
from rating.domain.price import AnyDimensions, Basis, Grain, Price
from rating.domain.proration import Convention
from rating.domain.registry import PRICE_MODELS

ADJUSTMENTS = (*BEFORE, *AFTER)
# Stands for the meter of a price that stands alone.
UNNAMED = Meter("", "", "", "sum", None, ())
_BY_MONTHS = {interval.months: interval for interval in Interval}
# Totals of these are the sums of the totals of any parts; an average is not.
_TAKEN_APART = frozenset({"sum", "count"})


TrialCovers = Literal["all", "fees"]


@dataclass(frozen=True, slots=True)
class Charge:
    """One thing a plan charges for.

    `meter` is set exactly when the price is of usage; `digest` is the price's. `interval` is how often the charge falls
    due, None for once; usage and minimums of the plan fall due with every billing period and say `month`. `in_advance`:
    billed before the period it is for (of a usage price, its fixed parts). `licensed`: the price is of the
    subscription's quantity (seats). `proration` is the charge's or the plan's convention, None: the contract's.
    """

    charge_id: str
    name: str
    meter: Meter | None
    price: Price
    digest: str
    interval: Interval | None = Interval.MONTH
    in_advance: bool = False
    licensed: bool = False
    proration: Convention | None = None
    adjustments: Adjustments = NO_ADJUSTMENTS
    # What is priced: a usage price with `usage_type: licensed` is one of the subscription's quantity.
    basis: Basis = field(init=False, repr=False, compare=False)
    # What its lines are and count, unless a part says otherwise.
    line_kind: str = field(init=False, repr=False, compare=False)
    line_unit: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        basis = Basis.LICENSED if self.licensed else self.price.basis
        object.__setattr__(self, "basis", basis)
        object.__setattr__(self, "line_kind", "one_time" if self.interval is None else basis.value)
        object.__setattr__(self, "line_unit", self.adjustments.unit(self.meter.unit) if self.meter else "")


@dataclass(frozen=True, slots=True)
class QuotaLimit:
    """How much of a meter a tenant may use in a month, in the meter's unit; a hard limit stops usage."""

    meter_id: str
    limit: Decimal
    hard: bool
    unit: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan: its charges in the order the invoice shows them, its quota limits, and the document it was read from.

    `trial_covers` says what a trial costs nothing of: `all`, or only `fees`, so that usage is charged. `proration` is
    None where the contract decides.
    """

    plan_id: str
    name: str
    currency: str
    charges: tuple[Charge, ...]
    limits: tuple[QuotaLimit, ...]
    document: Mapping[str, Any]
    digest: str
    trial_covers: TrialCovers = "all"
    proration: Convention | None = None


def read_plan(
    plan_id: str, document: object, meters: Mapping[str, Meter], path: str, faults: list[Fault]
) -> Plan | None:
    """Read a plan, noting every fault; None if there was one."""
    found_before = len(faults)
    fields = Fields(document, path, faults)
    name = fields.text("name")
    currency = fields.choice("currency", MINOR_UNITS, "unknown_currency")
    proration = _read_proration(fields)
    charges = read_charges(fields.items("charges"), meters, fields.at("charges"), faults, currency, proration)
    limits = _read_limits(fields, charges, meters)
    trial_covers = fields.choice("trial_covers", ("all", "fees"), "invalid_choice", "all")
    fields.finish()
    if len(faults) > found_before or not isinstance(document, dict):
        return None
    return Plan(
        plan_id=plan_id,
        name=name,
        currency=currency,
        charges=tuple(charges),
        limits=limits,
        document=document,
        digest=digest_of(document),
        trial_covers="fees" if trial_covers == "fees" else "all",
        proration=proration,
    )


def parse_plan(plan_id: str, document: object, meters: Mapping[str, Meter], path: str = "") -> Plan:
    """Read a plan; raises `InvalidInputError` with every fault and its path."""
    faults: list[Fault] = []
    plan = read_plan(plan_id, document, meters, path or f"plans.{plan_id}", faults)
    if plan is None:
        raise InvalidInputError(faults)
    return plan


def read_charges(
    documents: list[object],
    meters: Mapping[str, Meter] | None,
    path: str,
    faults: list[Fault],
    currency: str,
    proration: Convention | None = None,
) -> list[Charge]:
    """Read a list of charges, noting every fault; `path` is the list's, `proration` the plan's convention.

    Without `meters` (None) a price may stand alone: any meter is taken as it is named, and so are its dimensions.
    """
    charges: list[Charge] = []
    for index, document in enumerate(documents):
        charge = _read_charge(document, meters, f"{path}[{index}]", faults, currency, proration)
        if charge is None:
            continue
        if any(other.charge_id == charge.charge_id for other in charges):
            reason = f"two charges are called {charge.charge_id!r}"
            faults.append(Fault("duplicate_id", reason, f"{path}[{index}].id"))
        charges.append(charge)
    return charges


def read_price(
    document: object, path: str, faults: list[Fault], currency: str, charge_id: str = "price"
) -> Charge | None:
    """Read a price that stands alone: a charge that needs no id (default: `charge_id`), no name and no known meter."""
    return _read_charge(document, None, path, faults, currency, None, charge_id)


def _read_charge(
    document: object,
    meters: Mapping[str, Meter] | None,
    path: str,
    faults: list[Fault],
    currency: str,
    proration: Convention | None,
    default_id: str | None = None,
) -> Charge | None:
    found_before = len(faults)
    fields = Fields(document, path, faults)
    charge_id = fields.name("id") if default_id is None or fields.has("id") else default_id
    name = fields.text("name", default_id and "")
    model_name = fields.choice("model", PRICE_MODELS, "unknown_price_model")
    if not model_name:
        # Without the model no other field can be judged.
        return None
    model = PRICE_MODELS[model_name]
    schedule = _Schedule(fields, model)
    meter = _read_meter(fields, schedule.basis, meters)
    # An unknown meter was already reported; its dimensions are not known, so every name passes.
    price = model.read(fields, meter.dimensions if meter and meters is not None else AnyDimensions())
    _check_meter(fields, meter, price)
    schedule.check(price)
    adjustments = NO_ADJUSTMENTS
    if len(faults) == found_before:
        adjustments = read_adjustments(fields, price, schedule.basis)
        schedule.check_advance(price, adjustments)
    else:
        fields.ignore(*ADJUSTMENTS)
    own_proration = _read_proration(fields)
    fields.finish()
    if len(faults) > found_before:
        return None
    return Charge(
        charge_id=charge_id,
        name=name,
        meter=meter,
        price=price,
        digest=digest_of({"charge": document, "currency": currency}),
        interval=schedule.interval,
        in_advance=schedule.in_advance,
        licensed=schedule.licensed,
        proration=own_proration or proration,
        adjustments=adjustments,
    )


def _read_meter(fields: Fields, basis: Basis, meters: Mapping[str, Meter] | None) -> Meter | None:
    if basis is not Basis.USAGE:
        if fields.has("meter"):
            kind = "price of the subscription's quantity" if basis is Basis.LICENSED else f"{fields.raw('model')} price"
            fields.fault("meter", "contradiction", f"a {kind} has no meter")
        return None
    if meters is None:
        name = fields.text("meter", "")
        return Meter(name, fields.text("unit", ""), "", "sum", None, ()) if name or fields.has("unit") else UNNAMED
    meter_id = fields.text("meter")
    if meter_id and meter_id not in meters:
        fields.fault("meter", "unknown_meter", f"no meter is called {meter_id!r}")
    return meters.get(meter_id)


def _check_meter(fields: Fields, meter: Meter | None, price: Price) -> None:
    """Refuse a price that needs usage finer than the meter's totals can be taken apart."""
    finer = price.grain is not Grain.TOTAL or len(price.split_by) > 1
    if meter is not None and meter.aggregation not in _TAKEN_APART and finer:
        reason = (
            f"{meter.meter_id} is a meter of {meter.aggregation}: it has a total, and one for each value of one "
            f"dimension, which do not add up from single events, hours or several dimensions"
        )
        fields.fault("meter", "contradiction", reason)


class _Schedule:
    """When a charge falls due: `type`, `recurring` and `bill`, read and held against the price model."""

    def __init__(self, fields: Fields, model: type[Price]) -> None:
        self._fields, self._model = fields, model
        one_time = fields.choice("type", ("one_time", "recurring"), "invalid_choice", "recurring") == "one_time"
        self.interval: Interval | None = None if one_time else Interval.MONTH
        self.basis = model.basis
        if fields.has("recurring"):
            self._read_recurring(one_time)
        self.licensed = self.basis is Basis.LICENSED
        if one_time:
            self._only_fees("type", "one-time")
        # Long periods are paid for when they begin, as was always so for yearly charges; months when they end.
        default = "in_advance" if self.interval in (Interval.QUARTER, Interval.YEAR) else "in_arrears"
        self.in_advance = fields.choice("bill", ("in_advance", "in_arrears"), "invalid_choice", default) == "in_advance"
        if one_time and fields.has("bill"):
            fields.fault("bill", "contradiction", "a one-time charge falls due at the start")

    def _read_recurring(self, one_time: bool) -> None:
        if one_time:
            self._fields.fault("recurring", "contradiction", "a one-time charge does not recur")
        recurring = Fields(self._fields.raw("recurring"), self._fields.at("recurring"), self._fields.faults)
        usage_type = recurring.choice("usage_type", ("metered", "licensed"), "invalid_choice", "metered")
        if usage_type == "licensed":
            if self._model.basis is Basis.USAGE:
                self.basis = Basis.LICENSED
            elif self._model.basis is not Basis.LICENSED:
                recurring.fault("usage_type", "contradiction", f"a {self._model.model} price depends on no quantity")
        unit = recurring.choice("interval", [interval.value for interval in Interval], "invalid_choice", "month")
        months = Interval(unit or "month").months * recurring.whole("interval_count", 1)
        if months in _BY_MONTHS:
            interval = _BY_MONTHS[months]
        else:
            interval = Interval.MONTH
            recurring.fault("interval_count", "invalid_number", f"{months} months: charges fall due every 1, 3 or 12")
        recurring.finish()
        if not one_time:
            self.interval = interval
        if interval is not Interval.MONTH:
            self._only_fees("recurring.interval", f"{interval.value}ly")

    def _only_fees(self, name: str, word: str) -> None:
        if self.basis not in (Basis.FIXED, Basis.LICENSED):
            reason = f"a {self._model.model} price cannot be {word}: usage and minimums are billed with every period"
            self._fields.fault(name, "contradiction", reason)

    def check(self, price: Price) -> None:
        """Refuse a price of the subscription's quantity that needs more than a quantity."""
        if self.licensed and (price.grain is not Grain.TOTAL or price.split_by):
            reason = f"a {price.model} price looks at events or dimensions, which seats do not have"
            self._fields.fault("recurring.usage_type", "contradiction", reason)

    def check_advance(self, price: Price, adjustments: Adjustments) -> None:
        """Refuse to bill ahead what is known only afterwards."""
        if not self.in_advance:
            return
        if self.basis is Basis.MINIMUM or (self.basis is Basis.USAGE and not price.has_fixed_part):
            reason = f"a {price.model} price is known only when the period has ended"
            self._fields.fault("bill", "contradiction", reason)
        elif self.basis is Basis.USAGE and any(one.field != "discount" for one in adjustments.after):
            reason = "bounds of a charge are known only when the period has ended"
            self._fields.fault("bill", "contradiction", reason)


def _read_proration(fields: Fields) -> Convention | None:
    if not fields.has("proration"):
        return None
    value = fields.choice("proration", [convention.value for convention in Convention], "invalid_choice")
    return Convention(value) if value else None


def _read_limits(fields: Fields, charges: list[Charge], meters: Mapping[str, Meter]) -> tuple[QuotaLimit, ...]:
    limits: dict[str, QuotaLimit] = {}
    for charge in charges:
        included = _included_quantity(charge)
        if charge.meter is not None and included is not None:
            quantity, hard = included
            limits[charge.meter.meter_id] = QuotaLimit(charge.meter.meter_id, quantity, hard, charge.meter.unit)
    for meter_id, document in fields.mapping("limits").items():
        limit = Fields(document, fields.at(f"limits.{meter_id}"), fields.faults)
        quantity, hard = limit.amount("quantity"), limit.flag("hard")
        limit.finish()
        if meter_id in meters:
            limits[meter_id] = QuotaLimit(meter_id, quantity, hard, meters[meter_id].unit)
        else:
            fields.fault(f"limits.{meter_id}", "unknown_meter", f"no meter is called {meter_id!r}")
    return tuple(limits[meter_id] for meter_id in sorted(limits))


def _included_quantity(charge: Charge) -> tuple[Decimal, bool] | None:
    """Return how much of the meter costs nothing extra, and whether usage stops there; free units come on top.

    None too where usage is counted in another way than it is metered: a limit must then be stated by itself.
    """
    included = charge.price.included_quantity
    if included is None:
        return None
    quantity, hard = included
    for adjustment in charge.adjustments.before:
        if not isinstance(adjustment, FreeUnits):
            return None
        quantity += adjustment.quantity
    return quantity, hard
