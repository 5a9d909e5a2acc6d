"""Per unit: every unit costs the same, whatever its dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rating.domain.fields import Fields
from rating.domain.price import Basis, Inputs, Part, Price, Rated, multiply, product_step, read_per


@dataclass(frozen=True, slots=True)
class PerUnit(Price):
    """`unit_amount` for each `per` units of the meter's total across dimensions."""

    model: ClassVar[str] = "per_unit"
    basis: ClassVar[Basis] = Basis.USAGE
    unit_amount: Decimal
    per: int

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> PerUnit:
        """Read `unit_amount` and `transform_quantity`."""
        return cls(fields.amount("unit_amount"), read_per(fields))

    def rate(self, inputs: Inputs) -> Rated:
        """Return one part for the meter's total; none for no usage."""
        quantity = inputs.total
        if quantity == 0:
            return Rated(())
        amount = multiply(quantity, self.unit_amount, self.per)
        step = product_step(quantity, self.unit_amount, self.per, amount)
        return Rated((Part("", "", (), quantity, self.unit_amount, self.per, amount, (step,)),))
