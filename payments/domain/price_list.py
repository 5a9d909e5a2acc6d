"""What a payment provider's product list shows of the catalogue: plans as products, fixed fees as prices.

What depends on usage has no price there: Meterbook rates it. A plan version never changes, so neither does its price;
the next version has prices of its own beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from core.errors import Fault, InvalidInputError
from core.money import Money

_INTERVALS = {"month": ("month", 1), "quarter": ("month", 3), "year": ("year", 1)}


@dataclass(frozen=True, slots=True)
class ListedProduct:
    """A plan. `name` is that of its newest version: a name may change, what was sold under it may not."""

    plan_id: str
    name: str


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """A fixed fee of one plan version; `every` counts `interval`s (`month`, `year`), None for a one-time fee."""

    key: str
    plan_id: str
    name: str
    amount: Money
    interval: str | None
    every: int


@dataclass(frozen=True, slots=True)
class PlanDocument:
    """A stored plan version with the document it was read from."""

    plan_id: str
    version: int
    document: Mapping[str, Any]


def list_products(versions: Iterable[PlanDocument]) -> list[ListedProduct]:
    """Return one product per plan, by plan id."""
    newest: dict[str, PlanDocument] = {}
    for each in versions:
        known = newest.get(each.plan_id)
        if known is None or each.version > known.version:
            newest[each.plan_id] = each
    return [ListedProduct(plan_id, str(newest[plan_id].document.get("name") or plan_id)) for plan_id in sorted(newest)]


def list_prices(versions: Iterable[PlanDocument]) -> list[ListedPrice]:
    """Return the fixed fees of all versions, by key; raises `InvalidInputError` for a document that is none."""
    prices = [
        _price(each, charge)
        for each in versions
        for charge in each.document.get("charges", ())
        if charge.get("model") == "flat" and charge.get("flat_amount") not in (None, "0")
    ]
    return sorted(prices, key=lambda price: price.key)


def _price(version: PlanDocument, charge: Mapping[str, Any]) -> ListedPrice:
    key = f"meterbook:{version.plan_id}@{version.version}:{charge['id']}"
    recurring = charge.get("recurring") or {}
    interval = str(recurring.get("interval", "month"))
    try:
        amount = Decimal(str(charge["flat_amount"]))
    except InvalidOperation:
        raise InvalidInputError([Fault("invalid_amount", f"no amount: {charge['flat_amount']!r}", key)]) from None
    return ListedPrice(
        key=key,
        plan_id=version.plan_id,
        name=str(charge.get("name") or charge["id"]),
        amount=Money(amount, str(version.document["currency"])),
        interval=None if charge.get("type") == "one_time" else _INTERVALS[interval][0],
        every=_INTERVALS[interval][1] * int(recurring.get("interval_count", 1)),
    )
