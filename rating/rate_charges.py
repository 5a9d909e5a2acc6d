"""Rates charges: usage in, lines out. Owns the order of adjustments and charges, and the one rounding of each line.

Pure and exact: each line keeps its exact amount and the same amount rounded half up to the currency's minor unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from core.errors import BrokenInvariantError
from core.money import round_to_minor
from rating.domain.adjust.adjustment import After, Priced, Usage
from rating.domain.cycle import Interval
from rating.domain.extent import WHOLE, Extent
from rating.domain.models.corrections import refuse_negative
from rating.domain.plan import Charge
from rating.domain.price import Basis, Dimensions, Inputs, Part, Rated, UsageEntry, plain, share_label, share_of
from rating.domain.usage import UsageRow
from rating.domain.value_object import value_object

ENGINE_VERSION = "2"
_ZERO = Decimal(0)
# Lines that take something off. Every other line is at least zero.
_TAKES_OFF = frozenset({"discount", "maximum"})


@value_object
class RatedLine:
    """One line of what a tenant owes for a period.

    `part` names the line within its charge. `kind` is fixed, licensed, usage, minimum, maximum, true_up, discount or
    one_time; only discounts and maximums are negative. `quantity` is in `unit` ("" for an amount that is there once);
    `unit_amount` is the price of `per` units, None where the line is not a plain multiplication. `exact_amount` is not
    rounded, `amount` is, to the currency's minor unit. `steps` is the sum written out. `price_digest` names the price.
    `tier` counts from 1 where the price has tiers.
    """

    charge_id: str
    part: str
    kind: str
    description: str
    meter_id: str | None
    dimensions: Dimensions
    quantity: Decimal
    unit: str
    unit_amount: Decimal | None
    per: int
    exact_amount: Decimal
    amount: Decimal
    steps: tuple[str, ...]
    price_digest: str
    tier: int | None = None


@dataclass(frozen=True, slots=True)
class Rating:
    """A rated period: its lines in the plan's order, and usage that the plan has no price for."""

    currency: str
    lines: tuple[RatedLine, ...]
    unpriced: tuple[UsageRow, ...]

    @property
    def total(self) -> Decimal:
        """The sum of the rounded lines."""
        return sum((line.amount for line in self.lines), _ZERO)

    @property
    def exact_total(self) -> Decimal:
        """The sum of the exact lines."""
        return sum((line.exact_amount for line in self.lines), _ZERO)


def rate_charge(
    charge: Charge,
    currency: str,
    usage: Usage,
    entries: Sequence[UsageEntry] = (),
    extent: Extent = WHOLE,
) -> tuple[list[RatedLine], Sequence[tuple[Dimensions, Decimal]]]:
    """Return a charge's lines, and usage it has no price for (in the meter's unit).

    `usage` is the charge's meter by dimension values, split at least by those the price splits by; `entries` is the
    same as fine as the price's grain asks. Raises `InvalidInputError` (`negative_usage`) where corrections leave less
    than nothing of a quantity that has a price.
    """
    if charge.basis is Basis.MINIMUM:
        raise BrokenInvariantError(f"{charge.charge_id} is rated when all other lines are there")
    price, adjustments = charge.price, charge.adjustments
    of_seats = charge.licensed and price.basis is Basis.USAGE
    has_adjustments = adjustments.before or adjustments.after
    if charge.basis is Basis.USAGE and not (usage or entries or price.has_fixed_part or has_adjustments):
        return [], ()  # as the price would say: most charges of most tenants have no usage
    if of_seats:
        usage = {(): extent.licensed}
    if usage and min(usage.values()) < 0:
        _refuse_negative(charge, usage)
    if adjustments.before:
        rated = _rate_adjusted(charge, usage, extent)
    else:
        rated = price.rate(_inputs(usage, entries, extent))
    parts: Iterable[Part] = rated.parts
    if of_seats and extent.share != 1:
        parts = [_of_share(part, extent.share) for part in parts]
    if adjustments.after:
        parts = _adjust_amounts(parts, adjustments.after, currency, extent)
    return [_line(charge, part, currency) for part in parts], rated.unpriced


def _rate_adjusted(charge: Charge, usage: Usage, extent: Extent) -> Rated:
    """Return the parts of what is left of usage after the adjustments before the price, and those of what is not.

    Only prices of totals have such adjustments.
    """
    price = charge.price
    usage = _by_value(usage, price.split_by)
    unpriced: tuple[tuple[Dimensions, Decimal], ...] = ()
    if price.split_by:
        # What has no price takes no part in what is free.
        unpriced = price.rate(_inputs(usage, (), extent)).unpriced
        without = {dimensions for dimensions, _ in unpriced}
        usage = {dimensions: quantity for dimensions, quantity in usage.items() if dimensions not in without}
    taken_off: list[Part] = []
    steps: dict[Dimensions, tuple[str, ...]] = {}
    for before in charge.adjustments.before:
        adjusted = before.adjust(usage)
        usage = adjusted.usage
        taken_off += adjusted.parts
        for dimensions, more in adjusted.steps.items():
            steps[dimensions] = (*steps.get(dimensions, ()), *more)
    rated = price.rate(_inputs(usage, (), extent))
    explained = (
        replace(part, steps=(*steps.get(part.dimensions, steps.get((), ())), *part.steps)) for part in rated.parts
    )
    return Rated((*taken_off, *explained), unpriced or rated.unpriced)


def _adjust_amounts(parts: Iterable[Part], adjustments: Sequence[After], currency: str, extent: Extent) -> list[Part]:
    """Return the parts and those that adjustments add; each adjustment sees what the ones before it left."""
    priced = [Priced(part, round_to_minor(part.exact_amount, currency)) for part in parts]
    for after in adjustments:
        added = after.adjust(priced, extent)
        priced += [Priced(part, round_to_minor(part.exact_amount, currency)) for part in added]
    return [one.part for one in priced]


def rate_bounds(
    charges: Sequence[Charge], currency: str, lines: Sequence[RatedLine], extent: Extent = WHOLE
) -> list[RatedLine]:
    """Return the lines of the plan's own minimums and then commitments, given all its other lines.

    Rounded amounts count, so that a topped-up total is the minimum to the cent; one-time charges and those of other
    intervals than the month do not. Nothing before the period has ended.
    """
    bounds = [charge for charge in charges if charge.basis is Basis.MINIMUM]
    if not bounds or not extent.closing:
        return []
    counting = {charge.charge_id for charge in charges if charge.interval is Interval.MONTH}
    counted = [line for line in lines if line.charge_id in counting]
    added: list[RatedLine] = []
    for charge in sorted(bounds, key=lambda charge: charge.price.model != "minimum"):
        subtotal = sum((line.amount for line in (*counted, *added)), _ZERO)
        rated = charge.price.rate(_inputs({}, (), extent, subtotal))
        added += [_line(charge, part, currency) for part in rated.parts]
    return added


def _inputs(usage: Usage, entries: Sequence[UsageEntry], extent: Extent, subtotal: Decimal = _ZERO) -> Inputs:
    return Inputs(usage, extent.share, subtotal, tuple(entries), extent.licensed, extent.time_zone, extent.starts)


def _by_value(usage: Usage, split_by: tuple[str, ...]) -> dict[Dimensions, Decimal]:
    """Return the totals of each set of values that has a price of its own; an unknown value is empty."""
    totals: dict[Dimensions, Decimal] = {}
    for dimensions, quantity in usage.items():
        values = dict(dimensions)
        key = tuple((name, values.get(name, "")) for name in split_by)
        totals[key] = totals.get(key, _ZERO) + quantity
    # In order, so that the order in which usage came cannot show in the order of lines.
    return dict(sorted(totals.items()))


def _refuse_negative(charge: Charge, usage: Usage) -> None:
    """Refuse totals below zero; single values may be, where all values have one price."""
    for dimensions, quantity in _by_value(usage, charge.price.split_by).items():
        refuse_negative(quantity, " ".join([charge.charge_id, *(f"{name}={value}" for name, value in dimensions)]))


def _of_share(part: Part, share: Fraction) -> Part:
    """Return a part of a price of seats by the share of the period they are held."""
    amount = share_of(part.exact_amount, share)
    step = f"{plain(part.exact_amount)} × {share.numerator}/{share.denominator} = {plain(amount)}"
    label = ", ".join(text for text in (part.label, share_label(share)) if text)
    return replace(part, label=label, unit_amount=None, exact_amount=amount, steps=(*part.steps, step))


def _line(charge: Charge, part: Part, currency: str) -> RatedLine:
    exact, name, label = part.exact_amount, charge.name, part.label
    kind = part.kind or charge.line_kind
    if exact < 0 and kind not in _TAKES_OFF:
        raise BrokenInvariantError(f"charge {charge.charge_id} came to {exact}")
    # By position: the names alone would cost a tenth of the time.
    return RatedLine(
        charge.charge_id,
        part.key,
        kind,
        f"{name} — {label}" if name and label else name or label,
        charge.meter.meter_id if charge.meter else None,
        part.dimensions,
        part.quantity,
        charge.line_unit if part.unit is None else part.unit,
        part.unit_amount,
        part.per,
        exact,
        round_to_minor(exact, currency),
        part.steps,
        charge.digest,
        part.tier,
    )
