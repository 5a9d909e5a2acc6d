"""Commitment: the plan's charges come to at least what was committed to; the rest is trued up.

Unlike a minimum it is a promise of spend, so its line is a true-up, which books and reports keep apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rating.domain.fields import Fields
from rating.domain.price import Basis, Inputs, Part, Price, Rated, plain, share_label, share_of


@dataclass(frozen=True, slots=True)
class Commitment(Price):
    """`commitment_amount` per period, prorated like a base fee; one-time and yearly charges do not count towards it."""

    model: ClassVar[str] = "commitment"
    basis: ClassVar[Basis] = Basis.MINIMUM
    commitment_amount: Decimal

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Commitment:
        """Read `commitment_amount`."""
        return cls(fields.amount("commitment_amount"))

    def rate(self, inputs: Inputs) -> Rated:
        """Return the true-up: commitment less what was charged; nothing when charges reach it."""
        due = share_of(self.commitment_amount, inputs.share)
        missing = due - inputs.subtotal
        if missing <= 0:
            return Rated(())
        step = f"{plain(due)} committed - {plain(inputs.subtotal)} charged = {plain(missing)}"
        label = share_label(inputs.share)
        return Rated((Part("", label, (), Decimal(1), None, 1, missing, (step,), kind="true_up"),))
