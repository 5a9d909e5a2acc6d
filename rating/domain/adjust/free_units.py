"""Free units: the first units of a period cost nothing and count towards nothing that follows (tiers begin after them).

Where values of a dimension have prices of their own, the free units fall on them in proportion to their usage, so that
no value is preferred and more usage never costs less. Shares are cut to 12 decimal places; what is left over goes, by
10^-12, to the largest remainders, so the parts add up exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from core.quantity import SCALE, UNIT
from rating.domain.adjust.adjustment import Adjusted, Usage
from rating.domain.fields import Fields
from rating.domain.price import ZERO, Dimensions, Part, plain


@dataclass(frozen=True, slots=True)
class FreeUnits:
    """`quantity` units a period, in the unit of the price, whole however long the plan is held."""

    field: ClassVar[str] = "free_units"
    quantity: Decimal

    @classmethod
    def read(cls, fields: Fields) -> FreeUnits:
        """Read `free_units`."""
        return cls(fields.amount("free_units"))

    def adjust(self, usage: Usage) -> Adjusted:
        """Return what is left, a part for what was free."""
        left: dict[Dimensions, Decimal] = {}
        parts: list[Part] = []
        steps: dict[Dimensions, tuple[str, ...]] = {}
        for dimensions, free in _spread(self.quantity, usage).items():
            quantity = usage[dimensions]
            left[dimensions] = quantity - free
            if free:
                step = f"{plain(free)} of {plain(quantity)} free = 0"
                label = " ".join([f"free, up to {self.quantity:,f}", *(value for _, value in dimensions if value)])
                parts.append(Part("free-units", label, dimensions, free, ZERO, 1, ZERO, (step,)))
                steps[dimensions] = (f"{plain(quantity)} - {plain(free)} free = {plain(quantity - free)}",)
        return Adjusted(left, tuple(parts), steps)


def _spread(free: Decimal, usage: Usage) -> dict[Dimensions, Decimal]:
    """Return how many units of each value are free."""
    total = sum(usage.values(), ZERO)
    if free >= total:
        return dict(usage)
    if len(usage) == 1:
        return dict.fromkeys(usage, free)
    scaled, whole = int(free * UNIT), int(total * UNIT)
    weights = {dimensions: int(quantity * UNIT) for dimensions, quantity in sorted(usage.items())}
    cut = {dimensions: divmod(scaled * weight, whole) for dimensions, weight in weights.items()}
    missing = scaled - sum(share for share, _ in cut.values())
    first = set(sorted(cut, key=lambda dimensions: (-cut[dimensions][1], dimensions))[:missing])
    return {dimensions: Decimal(share + (dimensions in first)).scaleb(-SCALE) for dimensions, (share, _) in cut.items()}
