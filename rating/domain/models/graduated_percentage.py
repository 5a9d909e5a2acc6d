"""Graduated percentage: each tier takes its own percentage of the part of the amount that falls into it.

Bounds are of amounts and half-open like those of every tier: 0 to 10 and 10 to 20 share no unit, and none is counted
twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rating.domain.fields import Fields
from rating.domain.models.percentage import HUNDRED, percent_step
from rating.domain.models.tiers import Tier, cut, flat_part, read_tiers
from rating.domain.price import Basis, Inputs, Part, Price, Rated, multiply, plain


@dataclass(frozen=True, slots=True)
class GraduatedPercentage(Price):
    """Tiers over the total of an amount meter; a tier's `unit_amount` is its percentage."""

    model: ClassVar[str] = "graduated_percentage"
    basis: ClassVar[Basis] = Basis.USAGE
    tiers: tuple[Tier, ...]

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> GraduatedPercentage:
        """Read `tiers` (each `up_to`, `percent`, `flat_amount`)."""
        return cls(read_tiers(fields, "percent"))

    def rate(self, inputs: Inputs) -> Rated:
        """Return one part per tier that the amount reaches, and one for its flat amount."""
        parts = []
        for number, tier, start, amount in cut(inputs.total, self.tiers):
            share = multiply(amount, tier.unit_amount, HUNDRED)
            label = f"{plain(tier.unit_amount)} % of {tier.label(start)}"
            steps = (percent_step(amount, tier.unit_amount, share),)
            key = f"tier-{number}"
            parts.append(Part(key, label, (), amount, tier.unit_amount, HUNDRED, share, steps, tier=number))
            parts += flat_part(number, tier, start)
        return Rated(tuple(parts))
