"""Time-weighted: a price per unit and month (or hour) of a meter that measures a level over time.

The quantity is level × time already, such as GB-months: 100 GB held for half of the month are 50. The division by the
month's length was the meter's (`core.time_weighted`), once and exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rating.domain.fields import Fields
from rating.domain.price import Basis, Inputs, Part, Price, Rated, multiply, product_step, read_per


@dataclass(frozen=True, slots=True)
class TimeWeighted(Price):
    """`unit_amount` for each `per` of the meter's unit of level and time."""

    model: ClassVar[str] = "time_weighted"
    basis: ClassVar[Basis] = Basis.USAGE
    unit_amount: Decimal
    per: int

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> TimeWeighted:
        """Read `unit_amount` and `transform_quantity`."""
        return cls(fields.amount("unit_amount"), read_per(fields))

    def rate(self, inputs: Inputs) -> Rated:
        """Return one part for the level held over the period; none if there was none."""
        quantity = inputs.total
        if quantity == 0:
            return Rated(())
        amount = multiply(quantity, self.unit_amount, self.per)
        steps = ("level × time over the period", product_step(quantity, self.unit_amount, self.per, amount))
        return Rated((Part("", "level held over time", (), quantity, self.unit_amount, self.per, amount, steps),))
