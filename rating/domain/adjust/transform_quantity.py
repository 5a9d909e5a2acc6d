"""Unit conversion: usage is priced in another unit than it is metered in.

With `round` only whole units of the price count (3.2 packages are 4, or 3); each value that has a price of its own is
rounded by itself. Without, nothing is rounded: prices that can are then simply for so many units
(`rating.domain.price.read_per`), the others see the quotient, which must have an end in decimals to be exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar, Literal

from rating.domain.adjust.adjustment import Adjusted, Usage
from rating.domain.fields import Fields
from rating.domain.price import plain, read_transform


@dataclass(frozen=True, slots=True)
class TransformQuantity:
    """Divides by `divide_by`; rounds up or down to whole units unless `rounding` is None."""

    field: ClassVar[str] = "transform_quantity"
    divide_by: int
    rounding: Literal["up", "down"] | None

    @classmethod
    def read(cls, fields: Fields, *, per_is_read: bool) -> TransformQuantity | None:
        """Read `{divide_by, round}`; None where the price itself is for `divide_by` units (`per_is_read`)."""
        divide_by, rounding = read_transform(fields, note=not per_is_read)
        if rounding is None and per_is_read:
            return None
        if rounding is None and not _ends(divide_by):
            reason = f"÷ {divide_by} has no end in decimals: add `round`, or give tiers and prices in the meter's unit"
            fields.fault("transform_quantity.divide_by", "inexact_conversion", reason)
        return cls(divide_by, rounding)

    def adjust(self, usage: Usage) -> Adjusted:
        """Return the quantities in the price's unit."""
        converted: dict[tuple[tuple[str, str], ...], Decimal] = {}
        steps: dict[tuple[tuple[str, str], ...], tuple[str, ...]] = {}
        for dimensions, quantity in usage.items():
            result = self._convert(quantity)
            converted[dimensions] = result
            rounded = f", rounded {self.rounding}" if self.rounding else ""
            steps[dimensions] = (f"{plain(quantity)} ÷ {self.divide_by}{rounded} = {plain(result)}",)
        return Adjusted(converted, (), steps)

    def unit(self, unit: str) -> str:
        """Return the name of the price's unit."""
        return f"{self.divide_by:,} {unit or 'units'}"

    def _convert(self, quantity: Decimal) -> Decimal:
        if self.rounding is None:
            return quantity / self.divide_by
        whole, rest = divmod(quantity, self.divide_by)
        return whole + 1 if rest and self.rounding == "up" else whole


def _ends(divisor: int) -> bool:
    for factor in (2, 5):
        while divisor % factor == 0:
            divisor //= factor
    return divisor == 1
