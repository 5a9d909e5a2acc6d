"""Usage discount: a percentage of usage is not counted, which also slows the climb through tiers."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rating.domain.adjust.adjustment import Adjusted, Usage, read_percent_off
from rating.domain.fields import Fields
from rating.domain.price import ZERO, Dimensions, Part, plain


@dataclass(frozen=True, slots=True)
class UsageDiscount:
    """`percent_off` of every quantity."""

    field: ClassVar[str] = "usage_discount"
    percent_off: Decimal

    @classmethod
    def read(cls, fields: Fields) -> UsageDiscount:
        """Read `{percent_off}`."""
        return cls(read_percent_off(fields, "usage_discount"))

    def adjust(self, usage: Usage) -> Adjusted:
        """Return what counts, a part for what does not."""
        left: dict[Dimensions, Decimal] = {}
        parts: list[Part] = []
        steps: dict[Dimensions, tuple[str, ...]] = {}
        percent = plain(self.percent_off)
        for dimensions, quantity in usage.items():
            left[dimensions] = counted = quantity * (100 - self.percent_off) / 100
            if quantity:
                off = quantity - counted
                label = " ".join([f"{percent} % not counted", *(value for _, value in dimensions if value)])
                step = f"{plain(quantity)} × {percent} % = {plain(off)}, not charged = 0"
                parts.append(Part("usage-discount", label, dimensions, off, ZERO, 1, ZERO, (step,)))
                steps[dimensions] = (f"{plain(quantity)} - {plain(off)} not counted = {plain(counted)}",)
        return Adjusted(left, tuple(parts), steps)
