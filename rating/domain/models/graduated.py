"""Graduated: each tier prices the units that fall into it, and may add a flat amount when it is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rating.domain.fields import Fields
from rating.domain.models.tiers import Tier, check_mode, cut, flat_part, read_tiers
from rating.domain.price import Basis, Inputs, Part, Price, Rated, multiply, product_step, read_per


@dataclass(frozen=True, slots=True)
class Graduated(Price):
    """Tiers over the quantity: the meter's total across dimensions, or the seats."""

    model: ClassVar[str] = "graduated"
    basis: ClassVar[Basis] = Basis.USAGE
    tiers: tuple[Tier, ...]
    per: int

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Graduated:
        """Read `tiers` (each `up_to`, `unit_amount`, `flat_amount`) and `transform_quantity`."""
        check_mode(fields, "graduated")
        return cls(read_tiers(fields), read_per(fields))

    def rate(self, inputs: Inputs) -> Rated:
        """Return one part per tier that the quantity reaches, and one for its flat amount."""
        parts = []
        for number, tier, start, quantity in cut(inputs.total, self.tiers):
            amount = multiply(quantity, tier.unit_amount, self.per)
            step = product_step(quantity, tier.unit_amount, self.per, amount)
            key, label, price = f"tier-{number}", tier.label(start), tier.unit_amount
            parts.append(Part(key, label, (), quantity, price, self.per, amount, (step,), tier=number))
            parts += flat_part(number, tier, start)
        return Rated(tuple(parts))
