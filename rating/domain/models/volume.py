"""Volume: all units cost what the tier says in which their total lies.

More usage may therefore cost less in all: 1,001 units at 0.04 are cheaper than 1,000 at 0.05. That is the model, not a
fault. The line is named after the tier: when more usage moves the total into another tier, what was billed of the
earlier one is taken back and the whole is billed at the new price.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rating.domain.fields import Fields
from rating.domain.models.tiers import Tier, check_mode, cut, flat_part, read_tiers
from rating.domain.price import Basis, Inputs, Part, Price, Rated, multiply, plain, product_step, read_per


@dataclass(frozen=True, slots=True)
class Volume(Price):
    """Tiers of which one prices the whole quantity: the meter's total across dimensions, or the seats."""

    model: ClassVar[str] = "volume"
    basis: ClassVar[Basis] = Basis.USAGE
    tiers: tuple[Tier, ...]
    per: int

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Volume:
        """Read `tiers` (each `up_to`, `unit_amount`, `flat_amount`) and `transform_quantity`."""
        check_mode(fields, "volume")
        return cls(read_tiers(fields), read_per(fields))

    def rate(self, inputs: Inputs) -> Rated:
        """Return one part for all units, and one for the tier's flat amount; none for no usage."""
        total = inputs.total
        reached = list(cut(total, self.tiers))
        if not reached:
            return Rated(())
        number, tier, start, _ = reached[-1]
        amount = multiply(total, tier.unit_amount, self.per)
        steps = (
            f"{plain(total)} in all: tier {number}, {tier.label(start)}",
            product_step(total, tier.unit_amount, self.per, amount),
        )
        label = f"all units, total {tier.label(start)}"
        part = Part(f"tier-{number}", label, (), total, tier.unit_amount, self.per, amount, steps, tier=number)
        return Rated((part, *flat_part(number, tier, start)))
