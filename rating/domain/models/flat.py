"""Flat: one amount for the period, prorated by the share of it that is held."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rating.domain.fields import Fields
from rating.domain.price import Basis, Inputs, Part, Price, Rated, plain, share_label, share_of


@dataclass(frozen=True, slots=True)
class Flat(Price):
    """`flat_amount` in the plan's currency for each time the charge falls due."""

    model: ClassVar[str] = "flat"
    basis: ClassVar[Basis] = Basis.FIXED
    flat_amount: Decimal

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Flat:
        """Read `flat_amount`."""
        return cls(fields.amount("flat_amount"))

    def rate(self, inputs: Inputs) -> Rated:
        """Return the amount, or its share; nothing when the amount is zero."""
        amount = share_of(self.flat_amount, inputs.share)
        if amount == 0:
            return Rated(())
        whole = inputs.share == 1
        fraction = f"{inputs.share.numerator}/{inputs.share.denominator}"
        label = share_label(inputs.share)
        step = plain(amount) if whole else f"{plain(self.flat_amount)} × {fraction} = {plain(amount)}"
        return Rated((Part("", label, (), Decimal(1), self.flat_amount if whole else None, 1, amount, (step,)),))
