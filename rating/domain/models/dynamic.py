"""Dynamic: every event carries its own price; what is charged is their sum, times a multiplier."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rating.domain.fields import Fields
from rating.domain.models.corrections import refuse_negative
from rating.domain.price import (
    ZERO,
    Basis,
    Dimensions,
    Grain,
    Inputs,
    Part,
    Price,
    Rated,
    UsageEntry,
    multiply,
    plain,
    product_step,
)

_ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class Dynamic(Price):
    """The amount in the event's property `amount_property`, in the plan's currency, times `multiplier`.

    Usage that carries no amount is reported as unpriced.
    """

    model: ClassVar[str] = "dynamic"
    basis: ClassVar[Basis] = Basis.USAGE
    grain: ClassVar[Grain] = Grain.EVENT
    amount_property: str
    multiplier: Decimal

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Dynamic:
        """Read `amount_property` and the optional `multiplier`."""
        return cls(fields.text("amount_property"), fields.amount("multiplier", _ONE))

    def rate(self, inputs: Inputs) -> Rated:
        """Return one part for all events that carry an amount; corrections (negative amounts) lower it."""
        if not inputs.entries:
            return Rated((), tuple((dimensions, used) for dimensions, used in inputs.usage.items() if used))
        priced = [(entry, entry.amount) for entry in inputs.entries if entry.amount is not None]
        unpriced = _by_dimensions([entry for entry in inputs.entries if entry.amount is None])
        carried = sum((amount for _, amount in priced), ZERO)
        refuse_negative(carried, f"amounts in {self.amount_property}")
        quantity = sum((entry.quantity for entry, _ in priced), ZERO)
        if carried == 0 and quantity == 0:
            return Rated((), unpriced)
        amount = multiply(carried, self.multiplier, 1)
        events = sum(entry.events for entry, _ in priced)
        steps = [f"sum of {self.amount_property}, {events:,} {'event' if events == 1 else 'events'} = {plain(carried)}"]
        if self.multiplier != 1:
            steps.append(product_step(carried, self.multiplier, 1, amount))
        return Rated((Part("", "", (), quantity, None, 1, amount, tuple(steps)),), unpriced)


def _by_dimensions(entries: list[UsageEntry]) -> tuple[tuple[Dimensions, Decimal], ...]:
    sums: dict[Dimensions, Decimal] = {}
    for entry in entries:
        sums[entry.dimensions] = sums.get(entry.dimensions, ZERO) + entry.quantity
    return tuple((dimensions, quantity) for dimensions, quantity in sorted(sums.items()) if quantity)
