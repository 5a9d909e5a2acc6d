"""Gives back what a voided invoice had drawn, in the transaction that voids it."""

from __future__ import annotations

from datetime import datetime

from core.errors import BrokenInvariantError
from rating.credit_ledger import CreditLedger
from rating.domain.credit import Draw, EntryKind


async def return_credits(invoice_id: str, *, ledger: CreditLedger, at: datetime) -> list[Draw]:
    """Return what each credit got back; all of what the invoice drew, once, however often it is asked for.

    Each credit gets back what was its own, with its own end: what has expired meanwhile expires again with the next
    run, and what was voided meanwhile is voided again here, because both would have gone had there been no invoice.
    """
    drawn_from = sorted({entry.grant_id for entry in await ledger.entries_for(invoice_id)})
    credits = {grant_id: await ledger.lock_credit(grant_id) for grant_id in drawn_from}
    # Read again: whoever held the locks before may have returned them.
    entries = await ledger.entries_for(invoice_id)
    done = {entry.grant_id for entry in entries if entry.kind is EntryKind.RETURNED}
    returned = []
    for entry in entries:
        if entry.grant_id in done:
            continue
        credit = credits[entry.grant_id]
        if credit is None:
            raise BrokenInvariantError(f"credit {entry.grant_id} was drawn and is not there")
        await ledger.enter(credit.grant, EntryKind.RETURNED, -entry.amount, at=at, reference=invoice_id)
        if credit.is_voided:
            reason = f"given back by invoice {invoice_id} after it was voided"
            await ledger.enter(credit.grant, EntryKind.VOIDED, entry.amount, at=at, reason=reason)
        returned.append(Draw(entry.grant_id, -entry.amount))
    return returned
