"""Valid charges of every price model with random adjustments, and usage for them, for laws over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from core.errors import Fault, InvalidInputError
from core.meters import Meter
from rating.domain.meter_usage import MeterUsage
from rating.domain.plan import Charge, read_charges
from rating.domain.price import ZERO, Basis, Dimensions, Grain, UsageEntry, plain
from rating.domain.registry import PRICE_MODELS
from tests.rating import price_generators
from tests.rating.price_generators import LICENSABLE, METER, METERED, decimals, prices

METERS = {METER.meter_id: METER}
SUMMED: tuple[str, ...] = ("per_unit", "time_weighted", "dynamic")
small = decimals(0, 200, 3).map(plain)
percents = st.one_of(st.sampled_from(["10", "100", "33.3", "0.5"]), decimals(1, 100, 2).map(plain))


@dataclass(frozen=True, slots=True)
class Case:
    """A charge as a document and as it was read, and usage it can rate."""

    document: dict[str, Any]
    charge: Charge
    entries: tuple[UsageEntry, ...]

    @property
    def used(self) -> dict[str, MeterUsage]:
        return {METER.meter_id: usage_of(self.entries)}


def usage_of(entries: Iterable[UsageEntry]) -> MeterUsage:
    """Return usage in totals and in detail."""
    entries = tuple(entries)
    totals: dict[Dimensions, Any] = {}
    for entry in entries:
        totals[entry.dimensions] = totals.get(entry.dimensions, ZERO) + entry.quantity
    return MeterUsage(totals, entries)


def read_one(document: dict[str, Any], meters: dict[str, Meter] | None = None, currency: str = "USD") -> Charge:
    """Return the charge; raises `InvalidInputError` with every fault."""
    faults: list[Fault] = []
    charges = read_charges([document], METERS if meters is None else meters, "charges", faults, currency)
    if faults:
        raise InvalidInputError(faults)
    return charges[0]


@st.composite
def adjustments(draw: st.DrawFn, model: str, document: dict[str, Any]) -> dict[str, Any]:
    """Adjustments that a price of the model can have; often none."""
    price = PRICE_MODELS[model]
    found: dict[str, Any] = {}
    if draw(st.booleans()):
        return found
    totals, hard = price.grain is Grain.TOTAL, document.get("hard_limit", False)
    if totals and not hard and "free_units" not in document and draw(st.booleans()):
        found["free_units"] = draw(small)
    if totals and not hard and "transform_quantity" not in document and draw(st.integers(0, 3)) == 0:
        found["transform_quantity"] = {
            "divide_by": draw(st.integers(1, 50)),
            "round": draw(st.sampled_from(["up", "down"])),
        }
    if totals and not hard and draw(st.integers(0, 3)) == 0:
        found["usage_discount"] = {"percent_off": draw(percents)}
    if draw(st.booleans()):
        found["discount"] = {"percent_off": draw(percents)}
    match draw(st.integers(0, 4)):
        case 1:
            found["minimum_amount"] = draw(small)
        case 2:
            found["maximum_amount"] = draw(small)
        case 3:
            low, high = sorted([draw(decimals(0, 200, 2)), draw(decimals(0, 200, 2))])
            found |= {"minimum_amount": plain(low), "maximum_amount": plain(high)}
        case 4:
            found["commitment"] = {"amount": draw(small), "overage_percent": draw(percents)}
        case _:
            pass
    return found


@st.composite
def cases(draw: st.DrawFn, models: tuple[str, ...] = METERED, corrected: bool = True, adjusted: bool = True) -> Case:
    """A metered charge with usage."""
    model = draw(st.sampled_from(models))
    document = {"id": "one", "name": "One", "meter": METER.meter_id, **draw(prices(model))}
    if adjusted:
        document |= draw(adjustments(model, document))
    kind = price_generators.corrected_usages if corrected else price_generators.usages
    return Case(document, read_one(document), draw(kind(model)))


@st.composite
def licensed_charges(draw: st.DrawFn) -> Charge:
    """A charge of seats."""
    model = draw(st.sampled_from(LICENSABLE))
    document = {"id": "seats", "name": "Seats", "recurring": {"usage_type": "licensed"}, **draw(prices(model))}
    return read_one(document | draw(adjustments(model, document)))


def is_bounded(charge: Charge) -> bool:
    """Tell whether the charge has adjustments that depend on rounded amounts."""
    return any(one.field != "discount" for one in charge.adjustments.after)


def is_usage(charge: Charge) -> bool:
    return charge.basis is Basis.USAGE
