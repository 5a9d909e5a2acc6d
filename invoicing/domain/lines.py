"""Invoice lines and the difference between what should be billed and what was. Owns the item key.

An item key names what a line bills whatever its amount is: subscription, charge, part, dimension values, period. Every
run proposes all items of a period, lays them over what earlier invoices billed for the same keys, and bills only the
difference; so a second run bills nothing, and late usage becomes lines that say which invoice they correct.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from core.errors import must_hold
from core.period import Period, format_instant
from rating.domain.price import Dimensions

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Line:
    """One line: proposed, billed or to be billed. Amounts as in `rating.rate_charges.RatedLine`.

    `corrects_invoice` is the invoice that first billed the item, set when the line bills a difference to it.
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


@dataclass(frozen=True, slots=True)
class Billed:
    """What earlier invoices billed for an item: the sums, and the line and invoice that billed it first."""

    line: Line
    invoice_id: str
    number: str


def item_key(subscription_id: str, charge_id: str, part: str, dimensions: Dimensions, period: Period) -> str:
    """Return the key of an item; readable, because people look at it when an account is parked."""
    values = json.dumps(dict(dimensions), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return "|".join((subscription_id, charge_id, part, values, format_instant(period.start)))


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
