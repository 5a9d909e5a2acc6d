"""Writes down what has expired."""

from __future__ import annotations

from datetime import datetime

from rating.domain.credit import CreditEntry, EntryKind
from subscriptions.coupon_ports import CreditBooks

_AT_ONCE = 200


async def expire_credits(books: CreditBooks, *, now: datetime) -> list[CreditEntry]:
    """Enter as expired what is left of every credit whose end has passed by `now`; returns the entries.

    Only bookkeeping waits for this: a draw looks at a credit's end itself. Running it twice, or two at once, enters
    nothing twice.
    """
    written: list[CreditEntry] = []
    while True:
        async with books.transaction() as ledger:
            due = await ledger.expired(now, _AT_ONCE)
            for grant_id in due:
                credit = await ledger.lock_credit(grant_id)
                # Somebody else may have been here while we waited for the lock.
                if credit is not None and credit.balance:
                    written.append(await ledger.enter(credit.grant, EntryKind.EXPIRED, -credit.balance, at=now))
        if len(due) < _AT_ONCE:
            return written
