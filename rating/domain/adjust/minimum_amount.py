"""Minimum of one charge: a line tops it up, prorated by the share of the period that is held.

What is missing is known only when the period has ended, so a bill before its end leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rating.domain.adjust.adjustment import Priced, agreed, amount_part, subtotal_of
from rating.domain.extent import Extent
from rating.domain.fields import Fields
from rating.domain.price import Part, plain, share_label


@dataclass(frozen=True, slots=True)
class MinimumAmount:
    """At least `amount` a period."""

    field: ClassVar[str] = "minimum_amount"
    amount: Decimal

    @classmethod
    def read(cls, fields: Fields) -> MinimumAmount:
        """Read `minimum_amount`."""
        return cls(fields.amount("minimum_amount"))

    def adjust(self, priced: Sequence[Priced], extent: Extent) -> list[Part]:
        """Return what is missing to the minimum."""
        due, steps = agreed(self.amount, extent)
        subtotal = subtotal_of(priced)
        if not extent.closing or subtotal >= due:
            return []
        steps += (f"{plain(due)} - {plain(subtotal)} = {plain(due - subtotal)}",)
        label = ", ".join(
            text for text in (f"up to the minimum of {self.amount:,f}", share_label(extent.share)) if text
        )
        return [amount_part("charge-minimum", "minimum", label, due - subtotal, steps)]
