"""Tiers: how a quantity is cut, and how tiers are read.

Tier bounds are half-open on the real line, `(previous up_to, up_to]`, so fractional quantities find no hole between
tiers (99.5 lies in the tier that ends at 100); the last tier has no end, so nothing is left over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from rating.domain.fields import Fields
from rating.domain.price import ZERO, Part, plain

_ENDLESS = "inf"
_ONCE = Decimal(1)


@dataclass(frozen=True, slots=True)
class Tier:
    """Quantities above the previous tier's end and up to `up_to` (None: without end).

    `unit_amount` is the price of `per` units (a percentage is the price of 100), `flat_amount` is due once when the
    quantity reaches the tier: it is above the previous tier's end.
    """

    up_to: Decimal | None
    unit_amount: Decimal
    flat_amount: Decimal = ZERO

    def label(self, start: Decimal) -> str:
        """Return the tier's name for people, given where it begins."""
        return f"above {start:,f}" if self.up_to is None else f"{start:,f} to {self.up_to:,f}"


def read_tiers(fields: Fields, rate_field: str = "unit_amount") -> tuple[Tier, ...]:
    """Read `tiers`: each `up_to`, and `rate_field` or `flat_amount` or both; rising, and the last one "inf".

    Faults: `tier_hole` (no tier, or the last one ends), `tier_overlap` (not above the tier before), and those of the
    fields, each with its path.
    """
    tiers: list[Tier] = []
    documents = fields.items("tiers")
    if not documents:
        fields.fault("tiers", "tier_hole", "expected at least one tier")
    for index, document in enumerate(documents):
        tier = Fields(document, fields.at(f"tiers[{index}]"), fields.faults)
        endless = tier.raw("up_to") == _ENDLESS
        up_to = None if endless else tier.amount("up_to")
        last = index == len(documents) - 1
        if last and not endless:
            tier.fault("up_to", "tier_hole", 'the last tier must end at "inf", or usage beyond it has no price')
        if endless and not last:
            tier.fault("up_to", "tier_overlap", 'only the last tier may end at "inf"')
        before = tiers[-1].up_to if tiers else ZERO
        if up_to is not None and before is not None and up_to <= before:
            tier.fault("up_to", "tier_overlap", f"must be above the tier before, which ends at {plain(before)}")
        # A tier that costs only a flat amount has no price per unit, as at Stripe.
        flat_only = tier.has("flat_amount") and not tier.has(rate_field)
        rate = ZERO if flat_only else tier.amount(rate_field)
        tiers.append(Tier(up_to, rate, tier.amount("flat_amount", ZERO)))
        tier.finish()
    return tuple(tiers)


def check_mode(fields: Fields, mode: str) -> None:
    """Read Stripe's `tiers_mode` where the model says the same already; another mode is a `contradiction`."""
    if fields.has("tiers_mode") and fields.raw("tiers_mode") != mode:
        fields.fault("tiers_mode", "contradiction", f'the model is {mode}: leave it out or say "{mode}"')


def cut(quantity: Decimal, tiers: tuple[Tier, ...]) -> Iterator[tuple[int, Tier, Decimal, Decimal]]:
    """Yield each tier that the quantity reaches: its number from 1, the tier, where it begins, how much lies in it."""
    start = ZERO
    for number, tier in enumerate(tiers, 1):
        end = quantity if tier.up_to is None else min(tier.up_to, quantity)
        if end <= start:
            return
        yield number, tier, start, end - start
        start = end


def flat_part(number: int, tier: Tier, start: Decimal) -> list[Part]:
    """Return the part for a tier's flat amount, none if it has none."""
    if tier.flat_amount == 0:
        return []
    label, step = f"{tier.label(start)}, flat amount", f"tier {number} reached: {plain(tier.flat_amount)}"
    amount = tier.flat_amount
    return [Part(f"tier-{number}-flat", label, (), _ONCE, amount, 1, amount, (step,), tier=number, unit="")]
