"""What every price model has in common: what it is given, what it answers, how it is read from a document.

A model is one file with one class: `read` (from the catalogue's fields) and `rate` (inputs to parts). Models never
round; parts keep exact amounts and `rating.rate_charges` rounds each line once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import ClassVar, Literal, Protocol

from rating.domain.fields import Fields
from rating.domain.value_object import value_object

Dimensions = tuple[tuple[str, str], ...]
ZERO = Decimal(0)


class Basis(Enum):
    """What a model prices."""

    FIXED = "fixed"
    # The subscription's quantity (seats): prorated like a fixed amount, priced like usage.
    LICENSED = "licensed"
    USAGE = "usage"
    MINIMUM = "minimum"


class Grain(Enum):
    """How fine a model must see usage."""

    # One total per set of dimension values.
    TOTAL = "total"
    # Quarter hours (`core.calendar.SLOT_SECONDS`), because the price depends on when.
    SLOT = "slot"
    # Every event by itself, because each has a price of its own.
    EVENT = "event"


@value_object
class UsageEntry:
    """Usage as fine as the model's grain: a slot's total per dimension values, or one event.

    `at` is when the slot begins or the event happened, aware. `quantity` may be negative (a correction). `events` is
    how many events stand behind it, `amount` what the event itself says it costs, in the plan's currency.
    """

    at: datetime
    quantity: Decimal
    dimensions: Dimensions = ()
    events: int = 1
    amount: Decimal | None = None


@value_object
class Inputs:
    """What a model may look at.

    `usage` is the charge's meter by dimension values, `entries` the same usage as fine as the model's grain asks (empty
    for `Grain.TOTAL`). `share` is the part of the period that is charged for fixed amounts (1 is the whole), `subtotal`
    the rounded sum of the lines a minimum tops up, `licensed` the subscription's quantity (seats). Hours of the day are
    those of `time_zone`. `starts`: what is due once, at the start of the subscription, is due now.
    """

    usage: Mapping[Dimensions, Decimal]
    share: Fraction
    subtotal: Decimal
    entries: tuple[UsageEntry, ...] = ()
    licensed: Decimal = Decimal(1)
    time_zone: str = "UTC"
    starts: bool = False

    @property
    def total(self) -> Decimal:
        """The meter's total across all dimensions."""
        return sum(self.usage.values(), ZERO)


@value_object
class Part:
    """One priced part of a charge; becomes one line.

    `key` names the part within its charge for ever (later runs compare by it), `label` is for people. `unit_amount` is
    the price of `per` units. `exact_amount` is not rounded. `steps` is the sum written out. `tier` counts from 1 where
    the price has tiers. `kind` is the line's where it is another than the model's basis ("fixed" for the part of a
    usage price that is due without usage). `unit` is what the quantity counts where that is not the meter's unit
    ("event", "" for an amount that is there once): only quantities in the meter's unit add up to its usage.
    """

    key: str
    label: str
    dimensions: Dimensions
    quantity: Decimal
    unit_amount: Decimal | None
    per: int
    exact_amount: Decimal
    steps: tuple[str, ...]
    tier: int | None = None
    kind: str | None = None
    unit: str | None = None


@value_object
class Rated:
    """A model's answer: its parts, and usage it has no price for, which is never passed over silently."""

    parts: tuple[Part, ...]
    unpriced: tuple[tuple[Dimensions, Decimal], ...] = ()


class Price(Protocol):
    """A price model. Adding one touches its file, its cases and one line in `rating.domain.registry`.

    Models inherit from it for the defaults below: usage in totals, no split, nothing included.
    """

    __slots__ = ()

    model: ClassVar[str]
    basis: ClassVar[Basis]
    grain: ClassVar[Grain] = Grain.TOTAL
    # Whether a usage price has parts of kind "fixed", which may be billed in advance.
    has_fixed_part: ClassVar[bool] = False

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Price:
        """Read the model's fields, noting faults; `dimensions` are those of the charge's meter."""
        ...

    def rate(self, inputs: Inputs) -> Rated:
        """Price the inputs exactly; `rating.rate_charges` sees to it that no total is negative, an entry may be."""
        ...

    @property
    def included_quantity(self) -> tuple[Decimal, bool] | None:
        """The quantity that costs nothing extra and whether usage stops there, None if the model has no such notion."""
        return None

    @property
    def split_by(self) -> tuple[str, ...]:
        """The dimensions whose values have prices of their own: usage must come split by them."""
        return ()


def plain(number: Decimal) -> str:
    """Write a decimal without exponent and without trailing zeros ("1234.5", "100000")."""
    text = str(number)
    if "E" in text:
        text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def share_of(amount: Decimal, share: Fraction) -> Decimal:
    """Return `amount x share`; 60 digits, so a cent's tie is never mistaken for something else."""
    return amount * share.numerator / share.denominator


def share_label(share: Fraction) -> str:
    """Write a share for people ("21/31 of the period"), "" for the whole: what it was counted in may cancel out."""
    return "" if share == 1 else f"{share.numerator}/{share.denominator} of the period"


def multiply(quantity: Decimal, unit_amount: Decimal, per: int) -> Decimal:
    """Return what `quantity` costs at `unit_amount` for each `per` units, exact."""
    return quantity * unit_amount / per


def product_step(quantity: Decimal, unit_amount: Decimal, per: int, amount: Decimal) -> str:
    """Write one multiplication out for `explain`."""
    divided = f" ÷ {per}" if per != 1 else ""
    return f"{plain(quantity)} × {plain(unit_amount)}{divided} = {plain(amount)}"


def read_per(fields: Fields) -> int:
    """Read Stripe's `transform_quantity: {divide_by: 1000}`: the price is for that many units; 1 when it is missing.

    With `round` the quantity itself is turned into whole units of the price before the model sees it
    (`rating.domain.adjust.transform_quantity`), so the price is for 1.
    """
    if not fields.has("transform_quantity"):
        return 1
    divide_by, rounding = read_transform(fields)
    return 1 if rounding else divide_by


def read_transform(fields: Fields, *, note: bool = True) -> tuple[int, Literal["up", "down"] | None]:
    """Read `transform_quantity` as (`divide_by`, `round`); its faults are noted unless that was done before."""
    faults = fields.faults if note else []
    transform = Fields(fields.raw("transform_quantity"), fields.at("transform_quantity"), faults)
    if not transform.has("divide_by"):
        transform.fault("divide_by", "missing_field", "this field is required")
    divide_by = transform.whole("divide_by", 1)
    rounding = transform.choice("round", ("up", "down"), "invalid_choice") if transform.has("round") else ""
    transform.finish()
    return divide_by, "up" if rounding == "up" else "down" if rounding == "down" else None


class AnyDimensions(tuple[str, ...]):
    """Stands for the dimensions of a meter that is not known: holds every name."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        return True
