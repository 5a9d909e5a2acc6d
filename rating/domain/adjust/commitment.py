"""Commitment of one charge: an amount is owed whether it is used up or not; beyond it another rate may apply.

Used + overage + true-up is the charge: up to `amount` usage is what it costs, what is missing to it is the true-up
(known only when the period has ended), and `overage_percent` of the price is due beyond it.
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

_WHOLE = Decimal(100)


@dataclass(frozen=True, slots=True)
class Commitment:
    """`amount` a period, prorated by the share held; `overage_percent` of the price beyond it (100: the same price)."""

    field: ClassVar[str] = "commitment"
    amount: Decimal
    overage_percent: Decimal

    @classmethod
    def read(cls, fields: Fields) -> Commitment:
        """Read `{amount, overage_percent}`."""
        inner = Fields(fields.raw("commitment"), fields.at("commitment"), fields.faults)
        amount = inner.amount("amount")
        percent = inner.percent("overage_percent", maximum=1000) if inner.has("overage_percent") else _WHOLE
        inner.finish()
        return cls(amount, percent)

    def adjust(self, priced: Sequence[Priced], extent: Extent) -> list[Part]:
        """Return the true-up, or what another rate beyond the commitment changes."""
        due, steps = agreed(self.amount, extent)
        subtotal = subtotal_of(priced)
        if subtotal < due:
            if not extent.closing:
                return []
            steps += (f"{plain(due)} - {plain(subtotal)} = {plain(due - subtotal)}",)
            label = ", ".join(
                text for text in (f"up to the commitment of {self.amount:,f}", share_label(extent.share)) if text
            )
            return [amount_part("charge-true-up", "true_up", label, due - subtotal, steps)]
        change = (subtotal - due) * (self.overage_percent - _WHOLE) / 100
        if change == 0:
            return []
        percent = plain(self.overage_percent)
        steps += (
            f"{plain(subtotal)} - {plain(due)} = {plain(subtotal - due)} beyond the commitment",
            f"{plain(subtotal - due)} × ({percent} - 100) % = {plain(change)}",
        )
        label = f"beyond the commitment of {self.amount:,f}, at {percent} %"
        return [amount_part("charge-commitment", "discount" if change < 0 else "true_up", label, change, steps)]
