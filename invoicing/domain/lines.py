"""Invoice lines and the difference between what should be billed and what was. Owns the item key.

An item key names what a line bills whatever its amount is: subscription, charge, part, dimension values, period, plan
version. Every run proposes all items of a period, lays them over what earlier invoices billed for the same keys,
whatever period those were of, and bills only the difference; so a second run bills nothing, and late usage or a change
put down later becomes lines that say which invoice they correct.

What is taken back comes off what each invoice billed of the item, the newest first (`Share`). What a person gave back
by hand (`Line.adjusts`) leaves the item billed, so it is not billed again; it only bounds what can still be taken back:
no item is ever credited below zero.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import structs

from core.errors import must_hold
from core.period import Period, format_instant
from invoicing.domain.tax.treatment import TaxBehavior, TaxTreatment
from rating.domain.net_lines import LineAmount
from rating.domain.price import Dimensions

_ZERO = Decimal(0)
# What lowers the other lines of its own charge, and so is given back with them.
BENEATH = frozenset({"discount", "maximum"})


# A structure of msgspec, because a run makes hundreds of thousands of them: a seventh of a data class's time to make, a
# fortieth to make one that differs (`msgspec.structs.replace`).
class Line(msgspec.Struct, frozen=True):
    """One line: proposed, billed or to be billed. Amounts as in `rating.rate_charges.RatedLine`.

    `corrects_invoice` is set when the line bills a difference: for more, the invoice that first billed the item, for
    less, the one whose share is taken back. `period` is what the line is for (a month, a year, the next month in
    advance), `settles` the start of the billing period whose account it settles; None for both stands for the
    invoice's own period. `adjusts`: given back by hand, so that the item stays billed. `subscription_id` is set where
    it is not the invoice's. `treatment` is how the line is taxed, None where that is still to be determined,
    `tax_amount` its share of the tax: on top of `amount`, or within it where the treatment says so. `tax_origin`: of a
    line that takes something back, the invoice whose tax it lowers; set when its tax is determined.
    """

    item_key: str
    charge_id: str
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
    price_digest: str
    evidence: Mapping[str, Any]
    corrects_invoice: str | None = None
    period: Period | None = None
    settles: datetime | None = None
    adjusts: bool = False
    subscription_id: str | None = None
    treatment: TaxTreatment | None = None
    tax_amount: Decimal = _ZERO
    tax_origin: str | None = None

    @property
    def tax_is_within(self) -> bool:
        """Whether the amount holds its tax."""
        return self.treatment is not None and self.treatment.behavior is TaxBehavior.INCLUSIVE

    @property
    def net(self) -> Decimal:
        """The amount without its tax."""
        return self.amount - self.tax_amount if self.tax_is_within else self.amount

    @property
    def gross(self) -> Decimal:
        """The amount with its tax."""
        return self.amount if self.tax_is_within else self.amount + self.tax_amount

    @property
    def plan_id(self) -> str:
        """The plan that the line's charge is of."""
        return str(self.evidence.get("plan", {}).get("id", ""))

    def as_amount(self) -> LineAmount:
        """Return what coupons and credits need to know of the line."""
        # What is taken back of one item may be several lines, one per invoice that billed it.
        key = f"{self.item_key}|{self.corrects_invoice}" if self.corrects_invoice else self.item_key
        # With its tax once that is determined: credits pay for it too. Coupons come before tax.
        return LineAmount(key, self.charge_id, self.meter_id, self.plan_id, self.kind, self.gross)


@dataclass(frozen=True, slots=True)
class BilledLine:
    """A line of a document that counts, with where it stands."""

    invoice_id: str
    number: str
    line: Line


@dataclass(frozen=True, slots=True)
class Share:
    """What is left of what one invoice billed of an item, after all that later documents took back of it.

    `line` is the one that billed it, with its figures and tax lowered to what is left.
    """

    invoice_id: str
    number: str
    line: Line

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left, neither money nor quantity."""
        return not (self.line.amount or self.line.quantity or self.line.tax_amount)


@dataclass(frozen=True, slots=True)
class Billed:
    """What documents billed for an item: the sums, and the line and invoice that billed it first.

    `adjusted` is what was given back by hand, with its sign: it is in no sum of `line`. `shares` are what is left by
    invoice, in the order of issue, without empty ones.
    """

    line: Line
    invoice_id: str
    number: str
    adjusted: Decimal = _ZERO
    shares: tuple[Share, ...] = ()

    @property
    def is_new_again(self) -> bool:
        """Whether all that was billed was taken back, so that the item is billed as if for the first time."""
        return not (self.line.amount or self.line.quantity or self.adjusted)


def bill_up(rows: Iterable[BilledLine]) -> dict[str, Billed]:
    """Return what was billed by item key; `rows` in the order of issue, the first of an item with its evidence.

    Raises `BrokenInvariantError` where more was taken back of an invoice's share than there was, or the shares are not
    the sum of the lines.
    """
    items: dict[str, list[BilledLine]] = {}
    for row in rows:
        items.setdefault(row.line.item_key, []).append(row)
    return {key: _bill_up(item) for key, item in items.items()}


def _bill_up(rows: Sequence[BilledLine]) -> Billed:
    first = rows[0]
    # An item that was taken back whole and billed anew begins with its new line.
    summed = structs.replace(first.line, quantity=_ZERO, exact_amount=_ZERO, amount=_ZERO, tax_amount=_ZERO)
    adjusted, shares = _ZERO, dict[str, Share]()
    for row in rows:
        line = row.line
        if line.adjusts:
            adjusted += line.amount
        elif not (summed.amount or summed.quantity or adjusted or line.corrects_invoice):
            summed, first = structs.replace(line), row
        else:
            summed = _plus(summed, line)
        target = shares.get(line.corrects_invoice or "")
        if target is not None and (line.adjusts or _opposes(line, target.line)):
            kept = _plus(target.line, line)
            must_hold(
                kept.amount * target.line.amount >= 0,
                f"{row.number} takes back more of {line.item_key} than {target.number} billed",
            )
            shares[target.invoice_id] = replace(target, line=kept)
        else:
            must_hold(not line.adjusts, f"{row.number} gives back {line.item_key}, which was not billed")
            # What a credit note takes off an item that nobody was billed (a coupon that came later) is of the invoice
            # that it lowers; anything else of the document it stands on.
            owner = line.corrects_invoice if target is None and line.corrects_invoice else row.invoice_id
            own = shares.get(owner)
            whole = line if own is None else _plus(own.line, line)
            shares[owner] = Share(owner, row.number, whole)
    left = sum((share.line.amount for share in shares.values()), _ZERO)
    must_hold(left == summed.amount + adjusted, f"what is left of {first.line.item_key} is not the sum of its lines")
    bearing = tuple(share for share in shares.values() if not share.is_empty)
    return Billed(summed, first.invoice_id, first.number, adjusted, bearing)


def _opposes(line: Line, share: Line) -> bool:
    """Tell whether a line takes back of a share rather than adding to the item."""
    if line.amount or share.amount:
        return line.amount * share.amount < 0
    return line.quantity * share.quantity < 0


def _plus(one: Line, other: Line) -> Line:
    return structs.replace(
        one,
        quantity=one.quantity + other.quantity,
        exact_amount=one.exact_amount + other.exact_amount,
        amount=one.amount + other.amount,
        tax_amount=one.tax_amount + other.tax_amount,
    )


def item_key(
    subscription_id: str, charge_id: str, part: str, dimensions: Dimensions, period: Period, plan: str = ""
) -> str:
    """Return the key of an item; readable, because people look at it when an account is parked.

    `period` is what the item is for, `plan` the version of the plan it is priced by (`PlanReference.text`).
    """
    key = (subscription_id, charge_id, part, _values(dimensions), format_instant(period.start))
    return "|".join((*key, plan) if plan else key)


# Kept: few sets of values stand on very many lines.
@lru_cache(maxsize=4_096)
def _values(dimensions: Dimensions) -> str:
    return json.dumps(dict(dimensions), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def coupon_key(redemption_id: str, line_key: str) -> str:
    """Return the key of what a coupon takes off an item."""
    return f"{line_key}|{redemption_id}"


def difference(proposed: Sequence[Line], billed: Mapping[str, Billed]) -> list[Line]:
    """Return the lines still to be billed: whole for new items, the difference for items billed before.

    An item that is no longer proposed comes back with everything negative. Less is taken back from the invoices that
    billed it, a line for each, and never more than is left after what was given back by hand. Items without any
    difference are left out.
    """
    must_hold(len({line.item_key for line in proposed}) == len(proposed), "two proposed lines share an item key")
    owed = {line.item_key: line for line in proposed}
    for key in sorted(billed.keys() - owed.keys()):
        owed[key] = structs.replace(billed[key].line, quantity=_ZERO, exact_amount=_ZERO, amount=_ZERO)
    lines: list[Line] = []
    for line in _not_below_what_was_given_back(owed, billed):
        before = billed.get(line.item_key)
        if before is None or before.is_new_again:
            lines.append(line)
        else:
            lines += _less(line, before)
    return [line for line in lines if line.corrects_invoice is None or line.amount or line.quantity]


def _less(line: Line, before: Billed) -> list[Line]:
    """Return what is to be billed of an item that was billed before."""
    was = before.line
    evidence = {
        **line.evidence,
        "billed_before": {"number": before.number, "quantity": f"{was.quantity:f}", "amount": f"{was.amount:f}"},
    }
    more = structs.replace(
        line,
        quantity=line.quantity - was.quantity,
        exact_amount=line.exact_amount - was.exact_amount,
        amount=line.amount - was.amount,
        corrects_invoice=before.invoice_id,
        evidence=evidence,
        # Where only the quantity moved nothing is supplied anew.
        treatment=was.treatment if line.amount == was.amount else None,
        tax_amount=_ZERO,
    )
    left = was.amount + before.adjusted
    if more.amount * left >= 0:
        return [more]
    if line.amount * left < 0:
        # What was owed to us is owed by us now, or the other way round: all is taken back, and the rest is new.
        whole = structs.replace(more, quantity=-was.quantity, exact_amount=-was.exact_amount, amount=-left)
        return [*_taken_back(whole, before.shares), structs.replace(line, evidence=evidence)]
    must_hold(
        abs(more.amount) <= abs(left),
        f"{-more.amount:f} would be taken back of {line.item_key}, of which {left:f} is left",
    )
    return _taken_back(more, before.shares)


def _not_below_what_was_given_back(owed: Mapping[str, Line], billed: Mapping[str, Billed]) -> list[Line]:
    """Return what is owed with what was given back by hand still standing: never credited below zero by both.

    First by item. Then together with what lowers it: a coupon that came later takes nothing off what was given back,
    and neither does a discount or maximum of the charge.
    """
    adjusted = {key: one.adjusted for key, one in billed.items() if one.adjusted}
    if not adjusted:
        return list(owed.values())
    held = {key: _held(line, adjusted.get(key, _ZERO)) for key, line in owed.items()}
    for key in sorted(adjusted):
        if held[key].kind != "coupon":
            _hold_together(held, adjusted, {key})
    beneath = {_place(line) for line in held.values() if line.kind in BENEATH}
    for place in {_place(held[key]) for key in adjusted} & beneath:
        _hold_together(held, adjusted, {key for key, line in held.items() if _place(line) == place})
    return [line for key, line in held.items() if line.amount or not owed[key].amount or key in billed]


def _held(line: Line, adjusted: Decimal) -> Line:
    if adjusted == 0:
        return line
    return _owing(line, max(line.amount, -adjusted) if adjusted < 0 else min(line.amount, -adjusted))


def _hold_together(held: dict[str, Line], adjusted: Mapping[str, Decimal], keys: set[str]) -> None:
    """Raise what lowers these items, and if need be the items, until together they owe what was given back of them."""
    members = keys | {key for key, line in held.items() if line.evidence.get("coupon", {}).get("lowers") in keys}
    short = -sum((held[key].amount + adjusted.get(key, _ZERO) for key in members), _ZERO)
    for key in sorted(members, key=lambda key: (held[key].amount, key)):
        line = held[key]
        if short <= 0:
            return
        room = -line.amount - adjusted.get(key, _ZERO) if line.amount < 0 else short
        raised = min(short, max(room, _ZERO))
        held[key], short = _owing(line, line.amount + raised), short - raised


def _owing(line: Line, amount: Decimal) -> Line:
    return line if amount == line.amount else structs.replace(line, amount=amount, exact_amount=amount)


def _place(line: Line) -> tuple[str, str, datetime | None]:
    """Return the charge of a plan and the period it settles."""
    return (line.plan_id, line.charge_id, line.settles)


def _taken_back(back: Line, shares: Sequence[Share]) -> list[Line]:
    """Split what is taken back over the invoices that billed it, the newest first."""
    quantity, exact, amount = back.quantity, back.exact_amount, back.amount
    lines: list[Line] = []
    for share in reversed(shares):
        of = share.line
        if not amount or of.amount * amount >= 0:
            continue
        part = -of.amount if abs(of.amount) < abs(amount) else amount
        is_last = part == amount
        line = structs.replace(
            back,
            quantity=quantity if is_last else -of.quantity,
            exact_amount=exact if is_last else -of.exact_amount,
            amount=part,
            corrects_invoice=share.invoice_id,
            treatment=of.treatment,
        )
        lines.append(line)
        quantity, exact, amount = quantity - line.quantity, exact - line.exact_amount, amount - part
    must_hold(not amount, f"{amount:f} would be taken back of {back.item_key}, which nobody was billed")
    return lines


def split_lines(lines: Sequence[Line], billed: Mapping[str, Billed]) -> tuple[list[Line], list[Line]]:
    """Split what is less than nothing into what is owed for the first time and what is taken back.

    What lowers something billed before (a coupon that came later) goes with what is taken back. Where nothing is left
    to be asked for, all of it does.
    """
    new: list[Line] = []
    back: list[Line] = []
    for line in lines:
        lowered = _lowers(line, billed) if line.corrects_invoice is None else None
        if lowered is not None:
            # Taxed as what it lowers was, so that both together never give back more tax than was charged.
            treatment = line.treatment or lowered.line.treatment
            back.append(structs.replace(line, corrects_invoice=lowered.invoice_id, treatment=treatment))
        elif line.corrects_invoice is not None:
            back.append(line)
        else:
            new.append(line)
    return (new, back) if total_of(new) > 0 else ([], [*back, *new])


def _lowers(line: Line, billed: Mapping[str, Billed]) -> Share | None:
    """Return the newest share of what a line lowers; None if it lowers nothing billed."""
    if line.amount >= 0:
        return None
    key = line.evidence.get("coupon", {}).get("lowers")
    bearing = [one for one in billed.values() if one.shares]
    if key:
        found = [one for one in bearing if one.line.item_key == key]
    else:
        found = [one for one in bearing if _place(one.line) == _place(line)]
    return found[-1].shares[-1] if found else None


def check_recurring(lines: Sequence[Line]) -> None:
    """Stop the work if a recurring fee would be billed twice for the same time (`BrokenInvariantError`).

    The fees of one charge in one plan version are for the same stretch, as parts of it, or for stretches apart.
    """
    stretches: dict[tuple[str, ...], list[Period]] = {}
    for line in lines:
        if line.kind in ("fixed", "licensed") and line.period is not None and line.amount:
            start = format_instant(line.period.start)
            stretches.setdefault(tuple(line.item_key.replace(start, "").split("|")), []).append(line.period)
    for key, found in stretches.items():
        for one, other in pairwise(sorted(found, key=lambda period: period.start)):
            must_hold(
                one.end <= other.start or one == other,
                f"{' '.join(key)} is billed for {one} and for {other}, which overlap",
            )


def total_of(lines: Sequence[Line]) -> Decimal:
    """Return the sum of the rounded amounts."""
    return sum((line.amount for line in lines), _ZERO)
