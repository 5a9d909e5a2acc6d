"""Included quantity and overage: the first units of a period cost nothing extra, the rest a price per unit.

With `hard_limit` there is no overage: the quota stops usage at the included quantity. What slipped past it all the same
is shown on the invoice at no charge, because nobody agreed to a price for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rating.domain.fields import Fields
from rating.domain.price import ZERO, Basis, Inputs, Part, Price, Rated, multiply, plain, product_step, read_per


@dataclass(frozen=True, slots=True)
class Included(Price):
    """`included` units of the meter's total across dimensions, then `unit_amount` for each `per` units.

    `unit_amount` is None exactly when the limit is hard.
    """

    model: ClassVar[str] = "included"
    basis: ClassVar[Basis] = Basis.USAGE
    included: Decimal
    unit_amount: Decimal | None
    per: int

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Included:
        """Read `included` and either `unit_amount` (with `transform_quantity`) or `hard_limit: true`."""
        included, per = fields.amount("included"), read_per(fields)
        if fields.flag("hard_limit"):
            if fields.has("unit_amount"):
                fields.fault("unit_amount", "contradiction", "a hard limit has no overage: drop one of both")
            return cls(included, None, per)
        return cls(included, fields.amount("unit_amount"), per)

    def rate(self, inputs: Inputs) -> Rated:
        """Return the included part, and the part beyond it if there is one."""
        total = inputs.total
        within, beyond = min(total, self.included), max(total - self.included, ZERO)
        parts = []
        if within > 0:
            step = f"{plain(within)} of {plain(self.included)} included = 0"
            label = f"included, up to {self.included:,f}"
            parts.append(Part("included", label, (), within, ZERO, self.per, ZERO, (step,)))
        if beyond > 0:
            cut = f"{plain(total)} - {plain(self.included)} = {plain(beyond)}"
            if self.unit_amount is None:
                label, amount, price = f"beyond the limit of {self.included:,f}, not charged", ZERO, ZERO
                steps = (cut, "beyond a hard limit: not charged = 0")
            else:
                label, price = f"beyond {self.included:,f}", self.unit_amount
                amount = multiply(beyond, price, self.per)
                steps = (cut, product_step(beyond, price, self.per, amount))
            parts.append(Part("overage", label, (), beyond, price, self.per, amount, steps))
        return Rated(tuple(parts))

    @property
    def included_quantity(self) -> tuple[Decimal, bool] | None:
        """The included quantity; hard when there is no overage price."""
        return self.included, self.unit_amount is None
