"""Bills a period in slices: each time only what is due beyond what was billed before. Pure.

Everything so far is rated anew and what was billed is taken away, line by line (tier by tier), so however a period is
cut, its slices come to what one bill for all of it would say, to the cent. A line whose price has changed meanwhile
(the volume is in another tier) is taken back whole and billed anew. Late usage of a period that was billed is its next
slice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rating.domain.extent import WHOLE, Extent
from rating.domain.meter_usage import MeterUsage, Used
from rating.domain.models.corrections import refuse_negative
from rating.domain.plan import Charge
from rating.domain.price import Basis, Dimensions, plain
from rating.domain.usage import UsageRow
from rating.rate_charges import RatedLine, Rating, rate_bounds, rate_charge

Key = tuple[str, str, Dimensions]


_NOTHING = MeterUsage()


def rate_list(charges: Sequence[Charge], currency: str, used: Used, extent: Extent = WHOLE) -> Rating:
    """Return what a list of charges comes to; fees that are due in arrears wait for the period's end."""
    lines: list[RatedLine] = []
    unpriced: list[UsageRow] = []
    for charge in charges:
        if charge.basis is Basis.MINIMUM or (not extent.closing and _waits(charge)):
            continue
        meter_id = charge.meter.meter_id if charge.meter else ""
        usage = used.get(meter_id, _NOTHING) if charge.meter else _NOTHING
        charged, missing = rate_charge(charge, currency, usage.totals, usage.entries, extent)
        lines += charged
        for dimensions, quantity in missing:
            refuse_negative(quantity, f"{charge.charge_id} without a price")
            unpriced.append(UsageRow(meter_id, dimensions, quantity))
    lines += rate_bounds(charges, currency, lines, extent)
    return Rating(currency, tuple(lines), tuple(unpriced))


def _waits(charge: Charge) -> bool:
    """Tell whether a charge is a fee for the period that is due when it has ended."""
    return charge.basis in (Basis.FIXED, Basis.LICENSED) and charge.interval is not None and not charge.in_advance


def join_used(slices: Iterable[Used]) -> dict[str, MeterUsage]:
    """Return the usage of all slices together."""
    joined: dict[str, MeterUsage] = {}
    for used in slices:
        for meter_id, usage in used.items():
            joined[meter_id] = joined.get(meter_id, _NOTHING).plus(usage)
    return joined


def rate_slices(
    charges: Sequence[Charge], currency: str, slices: Iterable[Used], extent: Extent = WHOLE
) -> Iterator[Rating]:
    """Yield what each slice of a period's usage adds to the bill; with the last one the period is over.

    What was taken back and billed anew cancels out, so the slices' totals add up to that of all usage at once.
    """
    remaining = list(slices)
    so_far: dict[str, MeterUsage] = {}
    before: Sequence[RatedLine] = ()
    for number, used in enumerate(remaining, 1):
        so_far = join_used([so_far, used])
        closing = extent.closing and number == len(remaining)
        now = rate_list(charges, currency, so_far, replace(extent, closing=closing))
        yield Rating(currency, tuple(bill_difference(before, now.lines)), now.unpriced)
        before = now.lines


def bill_difference(before: Sequence[RatedLine], now: Sequence[RatedLine]) -> list[RatedLine]:
    """Return the lines that lead from what was billed to what is due now; none where nothing has changed.

    What is no longer due comes first, negative. Amounts are differences of rounded ones, so nothing is rounded twice.
    """
    billed = {_key(line): line for line in before}
    due = {_key(line): line for line in now}
    taken_back: list[RatedLine] = []
    lines: list[RatedLine] = []
    for key, line in billed.items():
        present = due.get(key)
        if present is None or _price(present) != _price(line):
            taken_back.append(_reversed(line))
    for key, line in due.items():
        earlier = billed.get(key)
        if earlier is None or _price(earlier) != _price(line):
            lines.append(line)
        elif (line.quantity, line.exact_amount) != (earlier.quantity, earlier.exact_amount):
            lines.append(_less(line, earlier))
    return [line for line in taken_back if line.quantity or line.exact_amount] + lines


def _key(line: RatedLine) -> Key:
    return line.charge_id, line.part, line.dimensions


def _price(line: RatedLine) -> tuple[object, ...]:
    return line.kind, line.unit_amount, line.per, line.unit, line.tier, line.price_digest


def _reversed(line: RatedLine) -> RatedLine:
    return replace(
        line,
        quantity=-line.quantity,
        exact_amount=-line.exact_amount,
        amount=-line.amount,
        steps=(*line.steps, f"billed before, taken back: {plain(-line.exact_amount)}"),
    )


def _less(line: RatedLine, earlier: RatedLine) -> RatedLine:
    exact = line.exact_amount - earlier.exact_amount
    step = f"{plain(line.exact_amount)} so far - {plain(earlier.exact_amount)} billed before = {plain(exact)}"
    return replace(
        line,
        quantity=line.quantity - earlier.quantity,
        exact_amount=exact,
        amount=line.amount - earlier.amount,
        steps=(*line.steps, step),
    )
