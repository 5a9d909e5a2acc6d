"""Shows an invoice as known when it was issued, and what is owed for the same items as known now. Stores nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.clock import Clock
from core.errors import NotFoundError
from invoicing.domain.lines import Billed, Line
from invoicing.domain.standing import Standing
from invoicing.ports import Account, Books, UsageReader
from invoicing.propose_invoice import propose_invoice

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class ItemNow:
    """An item of an invoice as known now: what all documents billed of it, what was given back by hand, what is owed.

    `difference` is what the next invoice would bill of it.
    """

    description: str
    billed: Decimal
    given_back: Decimal
    owed: Decimal
    difference: Decimal


@dataclass(frozen=True, slots=True)
class ShownInvoice:
    """A document as it stands, its lines and what it showed; `items` is None where only that was asked for."""

    standing: Standing
    lines: tuple[Line, ...]
    snapshot: Mapping[str, Any]
    corrected_by: tuple[Standing, ...]
    items: tuple[ItemNow, ...] | None = None


async def show_invoice(
    reference: str, *, books: Books, usage: UsageReader, clock: Clock, is_now: bool = False
) -> ShownInvoice:
    """Return a document by number or id; with `is_now` also its items as known now.

    Raises `NotFoundError`, `BrokenInvariantError` where what is owed cannot be said.
    """
    tenant_id = await books.tenant_of(reference)
    if tenant_id is None:
        raise NotFoundError(f"no invoice {reference[:80]!r}")
    async with books.view_account(tenant_id) as account:
        standing = await account.issued.lock(reference) if account is not None else None
        if account is None or standing is None:
            raise NotFoundError(f"no invoice {reference[:80]!r}")
        lines = await account.issued.lines(standing.invoice_id)
        items = await _items(account, standing, lines, usage, clock.now()) if is_now else None
        return ShownInvoice(
            standing,
            tuple(lines),
            await account.issued.snapshot(standing.invoice_id),
            tuple(await account.issued.corrected_by(standing.invoice_id)),
            items,
        )


async def _items(
    account: Account, standing: Standing, lines: list[Line], usage: UsageReader, now: datetime
) -> tuple[ItemNow, ...]:
    billed = await account.issued.billed_with(standing.invoice_id)
    owed: dict[str, Line] = {}
    left: dict[str, Decimal] = {}
    meters = await account.meters()
    owners = {line.subscription_id or standing.subscription_id for line in lines}
    for subscribed in await account.subscriptions(datetime.max.replace(tzinfo=now.tzinfo)):
        if subscribed.subscription_id not in owners:
            continue
        starts = sorted({standing.period.start, *(line.settles for line in lines if line.settles is not None)})
        for start in starts:
            period = subscribed.start.cycle.period_at(start)
            proposal = await propose_invoice(account, subscribed, period, usage=usage, meters=meters)
            # What other periods are proposed in part, their own proposal says in whole.
            for one in proposal.others:
                owed = {line.item_key: line for line in one.lines} | owed
            owed |= {line.item_key: line for line in proposal.target.lines}
            differences: dict[str, Decimal] = {}
            for line in proposal.lines:
                differences[line.item_key] = differences.get(line.item_key, _ZERO) + line.amount
            left |= differences
    return tuple(_item(key, one, owed.get(key), left) for key, one in billed.items())


def _item(key: str, billed: Billed, owed: Line | None, left: Mapping[str, Decimal]) -> ItemNow:
    is_one_time = "one_time" in key.split("|")
    amount = billed.line.amount if is_one_time else owed.amount if owed is not None else _ZERO
    return ItemNow(
        billed.line.description,
        billed.line.amount,
        billed.adjusted,
        amount,
        _ZERO if is_one_time else left.get(key, _ZERO),
    )
