"""Rates a plan: usage of a period in, lines out. Owns the order of charges and the one rounding of each line.

Pure and exact: each line keeps its exact amount and the same amount rounded half up to the currency's minor unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from core.errors import must_hold
from core.money import round_to_minor
from core.period import Period
from rating.domain.plan import Charge, Plan, Recurrence
from rating.domain.price import Basis, Dimensions, Inputs, Part
from rating.domain.term import Term
from rating.domain.usage import UsageRow, UsageTotals

ENGINE_VERSION = "1"
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class RatedLine:
    """One line of what a tenant owes for a period.

    `part` names the line within its charge. `kind` is fixed, usage, minimum or one_time. `quantity` is in `unit`;
    `unit_amount` is the price of `per` units, None where the line is not a plain multiplication. `exact_amount` is not
    rounded, `amount` is, to the currency's minor unit. `steps` is the sum written out. `price_digest` names the price.
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


def rate(plan: Plan, usage: Iterable[UsageRow], period: Period, term: Term) -> Rating:
    """Return what the plan charges for the period's usage.

    `usage` must already be cut to the part of the period that the term covers. Base fees and minimums are charged in
    arrears with the month they are for, by the share of its days that the term covers; included quantities are whole
    months'. One-time charges fall into the period that holds the term's start, yearly ones into those that hold the
    start or its anniversary, both in full.
    """
    totals = UsageTotals(usage)
    held = term.share(period)
    lines: list[RatedLine] = []
    unpriced: dict[str, list[UsageRow]] = {}
    priced: set[str] = set()
    for charge in sorted(plan.charges, key=lambda charge: charge.price.basis is Basis.MINIMUM):
        share = _share_due(charge, term, period, held)
        if share == 0 and charge.meter is None:
            continue
        of_meter = totals.of_meter(charge.meter.meter_id, charge.price.split_by) if charge.meter else {}
        subtotal = _subtotal(lines, plan.charges) if charge.price.basis is Basis.MINIMUM else _ZERO
        rated = charge.price.rate(Inputs(of_meter, share, subtotal, starts=term.holds_start(period)))
        lines += [_line(charge, part, plan.currency) for part in rated.parts]
        if charge.meter:
            priced.add(charge.meter.meter_id)
            rows = [UsageRow(charge.meter.meter_id, dimensions, quantity) for dimensions, quantity in rated.unpriced]
            unpriced.setdefault(charge.meter.meter_id, []).extend(rows)
    for meter_id in totals.meters():
        if meter_id not in priced:
            of_meter = totals.of_meter(meter_id, ())
            unpriced[meter_id] = [UsageRow(meter_id, dims, quantity) for dims, quantity in of_meter.items()]
    missing = sorted(
        (row for rows in unpriced.values() for row in rows if row.quantity),
        key=lambda row: (row.meter_id, row.dimensions),
    )
    return Rating(plan.currency, tuple(lines), tuple(missing))


def _share_due(charge: Charge, term: Term, period: Period, held: Fraction) -> Fraction:
    match charge.recurrence:
        case Recurrence.ONE_TIME:
            return Fraction(int(term.holds_start(period)))
        case Recurrence.YEAR:
            return Fraction(int(term.holds_anniversary(period)))
        case Recurrence.MONTH:
            return held


def _subtotal(lines: list[RatedLine], charges: tuple[Charge, ...]) -> Decimal:
    """Return what counts towards a monthly minimum: rounded amounts, so that the topped-up total is the minimum."""
    monthly = {charge.charge_id for charge in charges if charge.recurrence is Recurrence.MONTH}
    return sum((line.amount for line in lines if line.charge_id in monthly), _ZERO)


def _line(charge: Charge, part: Part, currency: str) -> RatedLine:
    must_hold(part.exact_amount >= 0, f"charge {charge.charge_id} came to {part.exact_amount}")
    kind = part.kind or ("one_time" if charge.recurrence is Recurrence.ONE_TIME else charge.price.basis.value)
    return RatedLine(
        charge_id=charge.charge_id,
        part=part.key,
        kind=kind,
        description=" — ".join(text for text in (charge.name, part.label) if text),
        meter_id=charge.meter.meter_id if charge.meter else None,
        dimensions=part.dimensions,
        quantity=part.quantity,
        unit=part.unit if part.unit is not None else charge.meter.unit if charge.meter else "",
        unit_amount=part.unit_amount,
        per=part.per,
        exact_amount=part.exact_amount,
        amount=round_to_minor(part.exact_amount, currency),
        steps=part.steps,
        price_digest=charge.digest,
    )


def dimensions_of(line: RatedLine) -> Mapping[str, str]:
    """Return the line's dimension values by name."""
    return dict(line.dimensions)
