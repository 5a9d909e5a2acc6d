"""What a credit note takes back, line by line, and where its value goes. Owns both algebras; pure.

Lines: what is given back of an invoice is split over what is left of its lines, discounts and coupons included, so that
parts add up to the whole and no line is ever credited below zero. What is taken back whole (a reissue) is all that is
left of every line.

Value: of each invoice it first lowers what is open, then gives back what was paid, as a new credit, then what the
invoice had drawn, to the credits it was drawn from. A line that an invoice billed may be worth more than the invoice
asked for, where other lines of it took something back of an earlier one; the rest then goes to the others, the newest
first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from msgspec import structs

from core.errors import Fault, InvalidInputError, must_hold
from core.money import from_minor, round_to_minor, to_minor
from invoicing.domain.lines import BENEATH, Billed, Line, Share
from invoicing.domain.standing import Application, Standing

_ZERO = Decimal(0)


def shares_of(invoice_id: str, billed: Mapping[str, Billed]) -> list[Share]:
    """Return what is left of each item that an invoice billed."""
    return [share for one in billed.values() for share in one.shares if share.invoice_id == invoice_id]


def value_of(shares: Iterable[Share]) -> Decimal:
    """Return what is left of shares, with tax."""
    return sum((share.line.gross for share in shares), _ZERO)


def taken_back(shares: Sequence[Share]) -> list[Line]:
    """Return the lines that take back all that is left, so that the items can be billed anew."""
    return [
        structs.replace(
            share.line,
            quantity=-share.line.quantity,
            exact_amount=-share.line.exact_amount,
            amount=-share.line.amount,
            tax_amount=-share.line.tax_amount,
            corrects_invoice=share.invoice_id,
            tax_origin=share.invoice_id,
            evidence=_evidence(share, "taken back whole"),
        )
        for share in shares
    ]


def given_back(shares: Sequence[Share], amount: Decimal, currency: str) -> list[Line]:
    """Return the lines that give back `amount` (with tax, above zero) of what is left, by hand.

    Every line bears its part, by largest remainder, and its tax with it; all of what is left gives exactly the tax that
    was charged. Raises `InvalidInputError` (`exceeds_invoice`) for more than is left.
    """
    left = value_of(shares)
    if amount > left:
        reason = f"{amount:f} {currency} is more than what is left, {left:f} {currency}"
        raise InvalidInputError([Fault("exceeds_invoice", reason, "amount")])
    bearing = [share for share in shares if share.line.gross]
    parts = split(amount, [share.line.gross for share in bearing], currency)
    lines = [_given_back(share, part, currency) for share, part in zip(bearing, parts, strict=True) if part]
    must_hold(-sum((line.gross for line in lines), _ZERO) == amount, "the parts given back are not the amount")
    return lines


def split(amount: Decimal, weights: Sequence[Decimal], currency: str) -> list[Decimal]:
    """Split an amount over signed weights that add up to at least as much, in whole minor units.

    No part lies beyond its weight, and all of them together are the amount: largest remainder, earlier ones first.
    """
    units, of = to_minor(amount, currency), [to_minor(weight, currency) for weight in weights]
    whole = sum(of)
    must_hold(0 <= units <= whole and whole > 0, f"{amount:f} is not within {whole} minor units")
    parts = [units * weight // whole for weight in of]
    remainders = [(units * weight % whole, -index) for index, weight in enumerate(of)]
    for _, index in sorted(remainders, reverse=True)[: units - sum(parts)]:
        parts[-index] += 1
    for part, weight in zip(parts, of, strict=True):
        must_hold(min(0, weight) <= part <= max(0, weight), "a line would be credited below zero")
    return [from_minor(part, currency) for part in parts]


def lowered_together(share: Share, shares: Sequence[Share]) -> list[Share]:
    """Return the shares that are given back with one: it, what coupons took off it, and its charge's own discounts.

    Where a charge has a discount or maximum of its own, all lines of the charge go together.
    """
    place = (share.line.plan_id, share.line.charge_id, share.line.settles)
    charge = [
        one
        for one in shares
        if one.line.kind != "coupon" and (one.line.plan_id, one.line.charge_id, one.line.settles) == place
    ]
    members = charge if any(one.line.kind in BENEATH for one in charge) else [share]
    keys = {one.line.item_key for one in members}
    coupons = [one for one in shares if one.line.evidence.get("coupon", {}).get("lowers") in keys]
    return [*members, *coupons]


def spread_value(lines: Iterable[Line], standings: Sequence[Standing]) -> list[Application]:
    """Return where the value of a credit note goes, given its lines.

    `standings` are the account's invoices that may bear it, by issue. Raises `BrokenInvariantError` where they cannot.
    """
    by_invoice: dict[str | None, Decimal] = {}
    for line in lines:
        by_invoice[line.corrects_invoice] = by_invoice.get(line.corrects_invoice, _ZERO) - line.gross
    # A correction may raise one invoice's line and lower another's: only the sum is given back.
    wanted = {invoice_id: value for invoice_id, value in by_invoice.items() if value > 0}
    raised = -sum((value for value in by_invoice.values() if value < 0), _ZERO)
    taken: dict[str, Decimal] = {}
    # What a coupon that came later takes off is of no invoice; it goes to the newest that can bear it.
    over = sum(wanted.values(), _ZERO) - sum((wanted.get(one.invoice_id, _ZERO) for one in standings), _ZERO)
    lowered = min(over, raised)
    over, raised = over - lowered, raised - lowered
    for standing in reversed(standings):
        value = wanted.get(standing.invoice_id, _ZERO)
        lowered = min(value, raised)
        value, raised = value - lowered, raised - lowered
        taken[standing.invoice_id] = min(value, standing.creditable)
        over += value - taken[standing.invoice_id]
    must_hold(not raised, "a credit note asks for more than it gives back")
    for standing in reversed(standings):
        more = min(over, standing.creditable - taken[standing.invoice_id])
        taken[standing.invoice_id], over = taken[standing.invoice_id] + more, over - more
    must_hold(not over, f"{over:f} more would be given back than was billed")
    return [_apply(standing, taken[standing.invoice_id]) for standing in standings if taken[standing.invoice_id]]


def _apply(standing: Standing, value: Decimal) -> Application:
    """Split one invoice's part: off what is open, then what was paid, then what was drawn."""
    # What a payment under way was asked for is not lowered: when it has come, it is money paid.
    is_open = _ZERO if standing.in_flight else standing.amount_open
    coming = standing.amount_open - is_open
    amount = min(value, is_open)
    # Below nothing where a payment failed whose end was given back already: that much stays open.
    paid = max(_ZERO, standing.amount_paid + coming - standing.credit_granted)
    granted = min(value - amount, paid)
    returned = value - amount - granted
    drawn = standing.credits_applied - standing.credits_returned
    must_hold(
        0 <= returned <= drawn and granted >= 0, f"{standing.name}: {returned:f} would go back to {drawn:f} drawn"
    )
    return Application(standing.invoice_id, amount, returned, granted)


def _given_back(share: Share, part: Decimal, currency: str) -> Line:
    """Return the line that gives back `part` of a share with its tax; of all of it, all its tax."""
    line = share.line
    tax = line.tax_amount if part == line.gross else _part_of_tax(line, part, currency)
    net = part - tax
    whole = part == line.gross
    amount = part if line.tax_is_within else net
    return structs.replace(
        line,
        quantity=-line.quantity if whole else _ZERO,
        exact_amount=-amount,
        amount=-amount,
        tax_amount=-tax,
        corrects_invoice=share.invoice_id,
        tax_origin=share.invoice_id,
        adjusts=True,
        evidence=_evidence(share, f"given back by hand: {part:f} of {line.gross:f} {currency}"),
    )


def _part_of_tax(line: Line, part: Decimal, currency: str) -> Decimal:
    """Return the tax in a part of a line's amount with tax, rounded half up."""
    return round_to_minor(line.tax_amount * part / line.gross, currency)


def _evidence(share: Share, step: str) -> dict[str, object]:
    line = share.line
    kept = {name: line.evidence[name] for name in ("engine_version", "plan", "coupon", "per", "period", "settles")
            if name in line.evidence}  # fmt: skip
    before = {"number": share.number, "quantity": f"{line.quantity:f}", "amount": f"{line.amount:f}"}
    return {**kept, "steps": [step], "billed_before": before, "by_hand": True}
