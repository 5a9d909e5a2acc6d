"""Percent discount: a line of its own for every line it takes from.

One line each rather than one for all: a discount of 100 % then leaves nothing, to the cent, whatever was rounded, and a
discount never exceeds what it discounts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rating.domain.adjust.adjustment import Priced, read_percent_off
from rating.domain.extent import Extent
from rating.domain.fields import Fields
from rating.domain.price import Part, plain


@dataclass(frozen=True, slots=True)
class Discount:
    """`percent_off` of every amount."""

    field: ClassVar[str] = "discount"
    percent_off: Decimal

    @classmethod
    def read(cls, fields: Fields) -> Discount:
        """Read `{percent_off}`."""
        return cls(read_percent_off(fields, "discount"))

    def adjust(self, priced: Sequence[Priced], extent: Extent) -> list[Part]:
        """Return a negative part for each part that costs something."""
        parts = []
        for part in (one.part for one in priced):
            if part.exact_amount == 0:
                continue
            amount = -part.exact_amount * self.percent_off / 100
            parts.append(
                Part(
                    key=discount_of(part.key),
                    label=", ".join(text for text in (part.label, f"{plain(self.percent_off)} % off") if text),
                    dimensions=part.dimensions,
                    quantity=Decimal(1),
                    unit_amount=None,
                    per=1,
                    exact_amount=amount,
                    steps=(f"{plain(part.exact_amount)} × -{plain(self.percent_off)} % = {plain(amount)}",),
                    tier=part.tier,
                    kind="discount",
                    unit="",
                )
            )
        return parts


def discount_of(key: str) -> str:
    """Return the key of the discount on the part of this key."""
    return f"discount-{key}" if key else "discount"
