"""Plans and charges, and how they are read from a document (a catalogue's plan, or the stored version of one).

The document is the plan: its digest names the version, and a charge's digest is what an invoice line refers to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

from core.errors import Fault, InvalidInputError
from core.meters import Meter
from core.money import MINOR_UNITS
from rating.domain.digest import digest_of
from rating.domain.fields import Fields
from rating.domain.price import Basis, Price
from rating.domain.registry import PRICE_MODELS


class Recurrence(Enum):
    """When a charge falls due; the value is Stripe's `interval` where Stripe has the notion."""

    MONTH = "month"
    YEAR = "year"
    ONE_TIME = "one_time"


@dataclass(frozen=True, slots=True)
class Charge:
    """One thing a plan charges for. `meter` is set exactly when the price is of usage; `digest` is the price's."""

    charge_id: str
    name: str
    recurrence: Recurrence
    meter: Meter | None
    price: Price
    digest: str


@dataclass(frozen=True, slots=True)
class QuotaLimit:
    """How much of a meter a tenant may use in a month, in the meter's unit; a hard limit stops usage."""

    meter_id: str
    limit: Decimal
    hard: bool
    unit: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan: its charges in the order the invoice shows them, its quota limits, and the document it was read from."""

    plan_id: str
    name: str
    currency: str
    charges: tuple[Charge, ...]
    limits: tuple[QuotaLimit, ...]
    document: Mapping[str, Any]
    digest: str


def read_plan(
    plan_id: str, document: object, meters: Mapping[str, Meter], path: str, faults: list[Fault]
) -> Plan | None:
    """Read a plan, noting every fault; None if there was one."""
    found_before = len(faults)
    fields = Fields(document, path, faults)
    name = fields.text("name")
    currency = fields.choice("currency", MINOR_UNITS, "unknown_currency")
    charges = read_charges(fields.items("charges"), meters, fields.at("charges"), faults, currency)
    limits = _read_limits(fields, charges, meters)
    fields.finish()
    if len(faults) > found_before or not isinstance(document, dict):
        return None
    return Plan(plan_id, name, currency, tuple(charges), limits, document, digest_of(document))


def parse_plan(plan_id: str, document: object, meters: Mapping[str, Meter], path: str = "") -> Plan:
    """Read a plan; raises `InvalidInputError` with every fault and its path."""
    faults: list[Fault] = []
    plan = read_plan(plan_id, document, meters, path or f"plans.{plan_id}", faults)
    if plan is None:
        raise InvalidInputError(faults)
    return plan


def read_charges(
    documents: list[object], meters: Mapping[str, Meter], path: str, faults: list[Fault], currency: str
) -> list[Charge]:
    """Read a list of charges, noting every fault; `path` is the list's."""
    charges: list[Charge] = []
    for index, document in enumerate(documents):
        charge = _read_charge(document, meters, f"{path}[{index}]", faults, currency)
        if charge is None:
            continue
        if any(other.charge_id == charge.charge_id for other in charges):
            reason = f"two charges are called {charge.charge_id!r}"
            faults.append(Fault("duplicate_id", reason, f"{path}[{index}].id"))
        charges.append(charge)
    return charges


def _read_charge(
    document: object, meters: Mapping[str, Meter], path: str, faults: list[Fault], currency: str
) -> Charge | None:
    found_before = len(faults)
    fields = Fields(document, path, faults)
    charge_id, name = fields.name("id"), fields.text("name")
    model_name = fields.choice("model", PRICE_MODELS, "unknown_price_model")
    if not model_name:
        # Without the model no other field can be judged.
        return None
    model = PRICE_MODELS[model_name]
    meter = _read_meter(fields, model, meters)
    recurrence = _read_recurrence(fields, model)
    # An unknown meter was already reported; its dimensions are not known, so a matrix is checked against its own.
    own_dimension = fields.raw("dimension") if model_name == "matrix" else None
    dimensions = meter.dimensions if meter else ((own_dimension,) if isinstance(own_dimension, str) else ())
    price = model.read(fields, dimensions)
    fields.finish()
    if len(faults) > found_before:
        return None
    return Charge(charge_id, name, recurrence, meter, price, digest_of({"charge": document, "currency": currency}))


def _read_meter(fields: Fields, model: type[Price], meters: Mapping[str, Meter]) -> Meter | None:
    if model.basis is not Basis.USAGE:
        if fields.has("meter"):
            fields.fault("meter", "contradiction", f"a {model.model} price has no meter")
        return None
    meter_id = fields.text("meter")
    if meter_id and meter_id not in meters:
        fields.fault("meter", "unknown_meter", f"no meter is called {meter_id!r}")
    return meters.get(meter_id)


def _read_recurrence(fields: Fields, model: type[Price]) -> Recurrence:
    one_time = fields.choice("type", ("one_time", "recurring"), "invalid_choice", "recurring") == "one_time"
    if not fields.has("recurring"):
        return Recurrence.ONE_TIME if one_time and _only_fixed(fields, model, "type") else Recurrence.MONTH
    if one_time:
        fields.fault("recurring", "contradiction", "a one-time charge does not recur")
    recurring = Fields(fields.raw("recurring"), fields.at("recurring"), fields.faults)
    interval = recurring.choice("interval", ("month", "year"), "invalid_choice")
    recurring.finish()
    if interval == "year" and _only_fixed(fields, model, "recurring.interval"):
        return Recurrence.YEAR
    return Recurrence.MONTH


def _only_fixed(fields: Fields, model: type[Price], name: str) -> bool:
    if model.basis is not Basis.FIXED:
        fields.fault(name, "contradiction", f"a {model.model} price is monthly: usage and minimums are billed by month")
    return model.basis is Basis.FIXED


def _read_limits(fields: Fields, charges: list[Charge], meters: Mapping[str, Meter]) -> tuple[QuotaLimit, ...]:
    limits: dict[str, QuotaLimit] = {}
    for charge in charges:
        included = charge.price.included_quantity
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
