"""Reads a charge's adjustments and refuses combinations that have no clear meaning. Owns the order in which they apply.

| adjustment | needs |
|---|---|
| `transform_quantity` with `round`, `free_units`, `usage_discount` | a quantity, in totals (not events, not hours) |
| `discount` | an amount that is not itself a minimum of the plan |
| `minimum_amount`, `maximum_amount`, `commitment` | an amount that depends on a quantity |

A field that the price model itself reads (a package price's own `free_units`) is the model's, not an adjustment.
"""

from __future__ import annotations

from dataclasses import dataclass

from rating.domain.adjust.adjustment import After, Before
from rating.domain.adjust.commitment import Commitment
from rating.domain.adjust.discount import Discount
from rating.domain.adjust.free_units import FreeUnits
from rating.domain.adjust.maximum_amount import MaximumAmount
from rating.domain.adjust.minimum_amount import MinimumAmount
from rating.domain.adjust.transform_quantity import TransformQuantity
from rating.domain.adjust.usage_discount import UsageDiscount
from rating.domain.fields import Fields
from rating.domain.price import Basis, Grain, Price

BEFORE = (TransformQuantity.field, FreeUnits.field, UsageDiscount.field)
AFTER = (Discount.field, MinimumAmount.field, MaximumAmount.field, Commitment.field)


@dataclass(frozen=True, slots=True)
class Adjustments:
    """A charge's adjustments in the order in which they apply."""

    before: tuple[Before, ...] = ()
    after: tuple[After, ...] = ()

    def unit(self, unit: str) -> str:
        """Return the unit in which the price sees quantities."""
        for adjustment in self.before:
            if isinstance(adjustment, TransformQuantity):
                return adjustment.unit(unit)
        return unit


NONE = Adjustments()


def read_adjustments(fields: Fields, price: Price, basis: Basis) -> Adjustments:
    """Read the adjustments of a charge whose price has been read from the same fields, noting every fault."""
    per_is_read = fields.was_read(TransformQuantity.field)
    taken = {name for name in (*BEFORE, *AFTER) if fields.was_read(name) and name != TransformQuantity.field}
    named = {name for name in (*BEFORE, *AFTER) if name not in taken and fields.has(name)}
    if not named:
        return NONE
    before: list[Before] = []
    after: list[After] = []
    if TransformQuantity.field in named:
        transform = TransformQuantity.read(fields, per_is_read=per_is_read)
        if transform is not None:
            before.append(transform)
        else:
            named.discard(TransformQuantity.field)
    if FreeUnits.field in named:
        before.append(FreeUnits.read(fields))
    if UsageDiscount.field in named:
        before.append(UsageDiscount.read(fields))
    if Discount.field in named:
        after.append(Discount.read(fields))
    if MinimumAmount.field in named:
        after.append(MinimumAmount.read(fields))
    if MaximumAmount.field in named:
        after.append(MaximumAmount.read(fields))
    if Commitment.field in named:
        after.append(Commitment.read(fields))
    for name in sorted(named):
        reason = _refuse(name, price, basis)
        if reason:
            fields.fault(name, "contradiction", reason)
    _refuse_bounds(fields, after)
    return Adjustments(tuple(before), tuple(after))


def _refuse(name: str, price: Price, basis: Basis) -> str:
    """Return why the price cannot have the adjustment, "" if it can."""
    if basis is Basis.MINIMUM:
        return f"a {price.model} price is for the plan as a whole and takes no adjustment"
    if name == Discount.field:
        return ""
    if basis is Basis.FIXED:
        return f"a {price.model} price depends on no quantity: state the amount itself"
    if name in BEFORE and price.grain is not Grain.TOTAL:
        return f"a {price.model} price is not one of totals, so nothing says which units it falls on"
    if name in BEFORE and price.included_quantity is not None and price.included_quantity[1]:
        return "a hard limit counts usage as it is: drop one of both"
    return ""


def _refuse_bounds(fields: Fields, after: list[After]) -> None:
    """Refuse bounds that contradict each other."""
    minimum = next((one.amount for one in after if isinstance(one, MinimumAmount)), None)
    maximum = next((one.amount for one in after if isinstance(one, MaximumAmount)), None)
    commitment = next((one.amount for one in after if isinstance(one, Commitment)), None)
    if minimum is not None and maximum is not None and minimum > maximum:
        fields.fault("maximum_amount", "contradiction", f"{maximum:f} is below the minimum of {minimum:f}")
    if minimum is not None and commitment is not None:
        fields.fault("commitment", "contradiction", "a commitment is a minimum already: drop one of both")
    if maximum is not None and commitment is not None and commitment > maximum:
        fields.fault("maximum_amount", "contradiction", f"{maximum:f} is below the commitment of {commitment:f}")
