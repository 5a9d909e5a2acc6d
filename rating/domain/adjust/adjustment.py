"""What every adjustment has in common. Before the price it changes quantities, after it it adds parts.

Adjustments never round: `rating.rate_charges` rounds each part once, and hands the rounded amounts to the next one, so
that a topped-up sum is exactly what was agreed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar, Protocol

from rating.domain.extent import Extent
from rating.domain.fields import Fields
from rating.domain.price import ZERO, Dimensions, Part, plain, share_of
from rating.domain.value_object import value_object

Usage = Mapping[Dimensions, Decimal]


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Quantities as the price sees them, parts for what was taken off, and what happened, by dimension values."""

    usage: Usage
    parts: tuple[Part, ...] = ()
    steps: Mapping[Dimensions, tuple[str, ...]] = field(default_factory=dict)


@value_object
class Priced:
    """A part and its amount, rounded to the minor unit."""

    part: Part
    amount: Decimal


class Before(Protocol):
    """Changes quantities before they are priced."""

    field: ClassVar[str]

    def adjust(self, usage: Usage) -> Adjusted:
        """Return the quantities that are priced. `usage` has one entry per value that has a price of its own."""
        ...


class After(Protocol):
    """Adds parts to what was priced."""

    field: ClassVar[str]

    def adjust(self, priced: Sequence[Priced], extent: Extent) -> list[Part]:
        """Return the parts to add, none if there is nothing to do."""
        ...


def subtotal_of(priced: Sequence[Priced]) -> Decimal:
    """Return the sum of the rounded amounts."""
    return sum((one.amount for one in priced), ZERO)


def agreed(amount: Decimal, extent: Extent) -> tuple[Decimal, tuple[str, ...]]:
    """Return an amount agreed for a whole period by the share that is rated, and the step where it is not all of it."""
    due = share_of(amount, extent.share)
    if extent.share == 1:
        return due, ()
    return due, (f"{plain(amount)} × {extent.share.numerator}/{extent.share.denominator} = {plain(due)}",)


def amount_part(key: str, kind: str, label: str, amount: Decimal, steps: tuple[str, ...]) -> Part:
    """Return a part that is an amount and no multiplication."""
    return Part(key, label, (), Decimal(1), None, 1, amount, steps, kind=kind, unit="")


def read_percent_off(fields: Fields, name: str) -> Decimal:
    """Read `{percent_off: "10"}`: more than 0, at most 100."""
    inner = Fields(fields.raw(name), fields.at(name), fields.faults)
    percent = inner.percent("percent_off")
    inner.finish()
    return percent
