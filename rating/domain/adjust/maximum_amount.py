"""Maximum of one charge: a negative line takes off what is beyond it; prorated by the share of the period held."""

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
class MaximumAmount:
    """At most `amount` a period."""

    field: ClassVar[str] = "maximum_amount"
    amount: Decimal

    @classmethod
    def read(cls, fields: Fields) -> MaximumAmount:
        """Read `maximum_amount`."""
        return cls(fields.amount("maximum_amount"))

    def adjust(self, priced: Sequence[Priced], extent: Extent) -> list[Part]:
        """Return what is beyond the maximum, negative."""
        due, steps = agreed(self.amount, extent)
        subtotal = subtotal_of(priced)
        if subtotal <= due:
            return []
        steps += (f"{plain(due)} - {plain(subtotal)} = {plain(due - subtotal)}",)
        label = ", ".join(
            text for text in (f"above the maximum of {self.amount:,f}", share_label(extent.share)) if text
        )
        return [amount_part("charge-maximum", "maximum", label, due - subtotal, steps)]
