"""Minimum: a line that tops the month's charges up to an agreed amount, prorated like a base fee."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rating.domain.fields import Fields
from rating.domain.price import Basis, Inputs, Part, Price, Rated, plain, share_label, share_of


@dataclass(frozen=True, slots=True)
class Minimum(Price):
    """`minimum_amount` per month; one-time and yearly charges do not count towards it."""

    model: ClassVar[str] = "minimum"
    basis: ClassVar[Basis] = Basis.MINIMUM
    minimum_amount: Decimal

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Minimum:
        """Read `minimum_amount`."""
        return cls(fields.amount("minimum_amount"))

    def rate(self, inputs: Inputs) -> Rated:
        """Return what is missing to the minimum; nothing when the lines reach it."""
        due = share_of(self.minimum_amount, inputs.share)
        missing = due - inputs.subtotal
        if missing <= 0:
            return Rated(())
        steps = (f"{plain(due)} - {plain(inputs.subtotal)} = {plain(missing)}",)
        return Rated((Part("", share_label(inputs.share), (), Decimal(1), None, 1, missing, steps),))
