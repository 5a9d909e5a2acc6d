"""Graduated: each tier prices the units that fall into it. Owns how a quantity is cut into tiers.

Tier bounds are half-open on the real line, `(previous up_to, up_to]`, so fractional quantities find no hole between
tiers; the last tier has no end, so nothing is left over.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rating.domain.fields import Fields
from rating.domain.price import ZERO, Basis, Inputs, Part, Price, Rated, multiply, plain, product_step, read_per

_ENDLESS = "inf"


@dataclass(frozen=True, slots=True)
class Tier:
    """Units above the previous tier's end and up to `up_to` (None: without end) cost `unit_amount` per `per` units."""

    up_to: Decimal | None
    unit_amount: Decimal


@dataclass(frozen=True, slots=True)
class Graduated(Price):
    """Tiers over the meter's total across dimensions."""

    model: ClassVar[str] = "graduated"
    basis: ClassVar[Basis] = Basis.USAGE
    tiers: tuple[Tier, ...]
    per: int

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Graduated:
        """Read `tiers` (each `up_to`, `unit_amount`; rising, the last one "inf") and `transform_quantity`."""
        tiers: list[Tier] = []
        documents = fields.items("tiers")
        if not documents:
            fields.fault("tiers", "tier_hole", "expected at least one tier")
        for index, document in enumerate(documents):
            tier = Fields(document, fields.at(f"tiers[{index}]"), fields.faults)
            endless = tier.raw("up_to") == _ENDLESS
            up_to = None if endless else tier.amount("up_to")
            last = index == len(documents) - 1
            if last and not endless:
                tier.fault("up_to", "tier_hole", 'the last tier must end at "inf", or usage beyond it has no price')
            if endless and not last:
                tier.fault("up_to", "tier_overlap", 'only the last tier may end at "inf"')
            before = tiers[-1].up_to if tiers else ZERO
            if up_to is not None and before is not None and up_to <= before:
                tier.fault("up_to", "tier_overlap", f"must be above the tier before, which ends at {plain(before)}")
            tiers.append(Tier(up_to, tier.amount("unit_amount")))
            tier.finish()
        return cls(tuple(tiers), read_per(fields))

    def rate(self, inputs: Inputs) -> Rated:
        """Return one part per tier that usage reaches."""
        total, start, parts = inputs.total, ZERO, []
        for number, tier in enumerate(self.tiers, 1):
            end = total if tier.up_to is None else min(tier.up_to, total)
            if end <= start:
                break
            quantity = end - start
            amount = multiply(quantity, tier.unit_amount, self.per)
            label = f"above {start:,f}" if tier.up_to is None else f"{start:,f} to {tier.up_to:,f}"
            step = product_step(quantity, tier.unit_amount, self.per, amount)
            parts.append(Part(f"tier-{number}", label, (), quantity, tier.unit_amount, self.per, amount, (step,)))
            start = end
        return Rated(tuple(parts))
