"""Invoice lines and the difference between what should be billed and what was. Owns the item key.

An item key names what a line bills whatever its amount is: subscription, charge, part, dimension values, period, plan
version. Every run proposes all items of a period, lays them over what earlier invoices billed for the same keys,
whatever period those were of, and bills only the difference; so a second run bills nothing, and late usage or a change
put down later becomes lines that say which invoice they correct.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.errors import must_hold
from core.period import Period, format_instant
from rating.domain.net_lines import LineAmount
from rating.domain.price import Dimensions

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Line:
    """One line: proposed, billed or to be billed. Amounts as in `rating.rate_charges.RatedLine`.

    `corrects_invoice` is the invoice that first billed the item, set when the line bills a difference to it. `period`
    is what the line is for (a month, a year, the next month in advance), `settles` the start of the billing period
    whose account it settles; None for both stands for the invoice's own period.
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

    @property
    def plan_id(self) -> str:
        """The plan that the line's charge is of."""
        return str(self.evidence.get("plan", {}).get("id", ""))

    def as_amount(self) -> LineAmount:
        """Return what coupons and credits need to know of the line."""
        return LineAmount(self.item_key, self.charge_id, self.meter_id, self.plan_id, self.kind, self.amount)


@dataclass(frozen=True, slots=True)
class Billed:
    """What earlier invoices billed for an item: the sums, and the line and invoice that billed it first."""

    line: Line
    invoice_id: str
    number: str


def item_key(
    subscription_id: str, charge_id: str, part: str, dimensions: Dimensions, period: Period, plan: str = ""
) -> str:
    """Return the key of an item; readable, because people look at it when an account is parked.

    `period` is what the item is for, `plan` the version of the plan it is priced by (`PlanReference.text`).
    """
    values = json.dumps(dict(dimensions), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    key = (subscription_id, charge_id, part, values, format_instant(period.start))
    return "|".join((*key, plan) if plan else key)


def coupon_key(redemption_id: str, line_key: str) -> str:
    """Return the key of what a coupon takes off an item."""
    return f"{line_key}|{redemption_id}"


def difference(proposed: Sequence[Line], billed: Mapping[str, Billed]) -> list[Line]:
    """Return the lines still to be billed: whole for new items, the difference for items billed before.

    An item that is no longer proposed comes back with everything negative. Items without any difference are left out.
    """
    must_hold(len({line.item_key for line in proposed}) == len(proposed), "two proposed lines share an item key")
    lines = []
    for line in proposed:
        before = billed.get(line.item_key)
        if before is None:
            lines.append(line)
        else:
            lines.append(_less(line, before))
    keys = {line.item_key for line in proposed}
    for key in sorted(billed.keys() - keys):
        gone = billed[key]
        nothing = replace(gone.line, quantity=_ZERO, exact_amount=_ZERO, amount=_ZERO)
        lines.append(_less(nothing, gone))
    return [line for line in lines if line.corrects_invoice is None or line.amount or line.quantity]


def _less(line: Line, before: Billed) -> Line:
    was = before.line
    evidence = {
        **line.evidence,
        "billed_before": {"number": before.number, "quantity": f"{was.quantity:f}", "amount": f"{was.amount:f}"},
    }
    return replace(
        line,
        quantity=line.quantity - was.quantity,
        exact_amount=line.exact_amount - was.exact_amount,
        amount=line.amount - was.amount,
        corrects_invoice=before.invoice_id,
        evidence=evidence,
    )


def total_of(lines: Sequence[Line]) -> Decimal:
    """Return the sum of the rounded amounts."""
    return sum((line.amount for line in lines), _ZERO)
