"""Reserved: capacity that is paid whether it is used or not, and a price for what goes beyond it.

What is paid for the capacity may be due for every period (`flat_amount`, prorated), once at the start
(`upfront_amount`), or both. The capacity is whole in every period, as included quantities are.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rating.domain.fields import Fields
from rating.domain.price import (
    ZERO,
    Basis,
    Inputs,
    Part,
    Price,
    Rated,
    multiply,
    plain,
    product_step,
    read_per,
    share_label,
    share_of,
)

_ONCE = Decimal(1)


@dataclass(frozen=True, slots=True)
class Reserved(Price):
    """`capacity` units for `upfront_amount` once and `flat_amount` per period, then `unit_amount` per `per` units."""

    model: ClassVar[str] = "reserved"
    basis: ClassVar[Basis] = Basis.USAGE
    has_fixed_part: ClassVar[bool] = True
    capacity: Decimal
    upfront_amount: Decimal
    flat_amount: Decimal
    unit_amount: Decimal
    per: int

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Reserved:
        """Read `capacity`, `upfront_amount` or `flat_amount` or both, `unit_amount` and `transform_quantity`."""
        if not fields.has("upfront_amount") and not fields.has("flat_amount"):
            fields.fault("flat_amount", "missing_field", "reserved capacity costs a flat_amount or an upfront_amount")
        return cls(
            fields.amount("capacity"),
            fields.amount("upfront_amount", ZERO),
            fields.amount("flat_amount", ZERO),
            fields.amount("unit_amount"),
            read_per(fields),
        )

    def rate(self, inputs: Inputs) -> Rated:
        """Return what the reservation costs, used or not, what lies within it, and what goes beyond it."""
        total = inputs.total
        within, beyond = min(total, self.capacity), max(total - self.capacity, ZERO)
        parts = self._reservation(inputs)
        if within > 0:
            unused = self.capacity - within
            rest = f", {plain(unused)} left unused and paid all the same" if unused else ""
            step = f"{plain(within)} of {plain(self.capacity)} reserved{rest} = 0"
            label = f"within the reserved {self.capacity:,f}"
            parts.append(Part("within", label, (), within, ZERO, self.per, ZERO, (step,)))
        if beyond > 0:
            amount = multiply(beyond, self.unit_amount, self.per)
            steps = (
                f"{plain(total)} - {plain(self.capacity)} = {plain(beyond)}",
                product_step(beyond, self.unit_amount, self.per, amount),
            )
            label = f"beyond the reserved {self.capacity:,f}"
            parts.append(Part("overage", label, (), beyond, self.unit_amount, self.per, amount, steps))
        return Rated(tuple(parts))

    def _reservation(self, inputs: Inputs) -> list[Part]:
        parts = []
        name = f"{self.capacity:,f} reserved"
        if inputs.starts and self.upfront_amount:
            amount = self.upfront_amount
            step = f"due once, at the start: {plain(amount)}"
            label = f"{name}, upfront"
            parts.append(Part("upfront", label, (), _ONCE, amount, 1, amount, (step,), kind="one_time", unit=""))
        due = share_of(self.flat_amount, inputs.share)
        if due:
            share = inputs.share
            whole = share == 1
            step = plain(due)
            if not whole:
                step = f"{plain(self.flat_amount)} × {share.numerator}/{share.denominator} = {plain(due)}"
            label = name if whole else f"{name}, {share_label(share)}"
            price = self.flat_amount if whole else None
            parts.append(Part("reserved", label, (), _ONCE, price, 1, due, (step,), kind="fixed", unit=""))
        return parts

    @property
    def included_quantity(self) -> tuple[Decimal, bool] | None:
        """The capacity; usage may go beyond it."""
        return self.capacity, False
