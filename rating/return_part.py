"""Gives back a part of what an invoice had drawn, in the transaction of the credit note that does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from core.errors import must_hold
from rating.credit_ledger import CreditLedger
from rating.domain.credit import Draw, EntryKind


def reference_of(credit_note_id: str, invoice_id: str) -> str:
    """Return the cause that the ledger keeps: a credit note gives back to a credit once per invoice."""
    return f"{credit_note_id}:{invoice_id}"


async def return_part(
    invoice_id: str,
    amount: Decimal,
    *,
    credit_note_id: str,
    before: Sequence[str],
    ledger: CreditLedger,
    at: datetime,
) -> list[Draw]:
    """Return what each credit got back, the last drawn first; `before` are the credit notes that gave back before.

    As with a void (`rating.return_credits`): to what has expired it expires again, what was voided is voided again.
    Raises `BrokenInvariantError` for more than is still drawn.
    """
    drawn = [entry for entry in await ledger.entries_for(invoice_id) if entry.kind is EntryKind.DRAWN]
    for grant_id in sorted({entry.grant_id for entry in drawn}):
        await ledger.lock_credit(grant_id)
    given: dict[str, Decimal] = {}
    for credit_note in before:
        for entry in await ledger.entries_for(reference_of(credit_note, invoice_id)):
            given[entry.grant_id] = given.get(entry.grant_id, Decimal(0)) + entry.amount
    returned, left = [], amount
    reference = reference_of(credit_note_id, invoice_id)
    for entry in reversed(drawn):
        part = min(left, -entry.amount - given.get(entry.grant_id, Decimal(0)))
        if part <= 0:
            continue
        credit = await ledger.lock_credit(entry.grant_id)
        must_hold(credit is not None, f"credit {entry.grant_id} was drawn and is not there")
        if credit is not None:
            await ledger.enter(credit.grant, EntryKind.RETURNED, part, at=at, reference=reference)
            if credit.is_voided:
                reason = f"given back by credit note {credit_note_id} after it was voided"
                await ledger.enter(credit.grant, EntryKind.VOIDED, -part, at=at, reason=reason)
        returned.append(Draw(entry.grant_id, part))
        left -= part
    must_hold(not left, f"{left:f} would go back to credits that {invoice_id} did not draw")
    return returned
