"""Pays an invoice from the tenant's credits, in the transaction that finalizes it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from core.errors import ConflictError
from rating.credit_ledger import CreditLedger
from rating.domain.credit import Draw, Due, EntryKind, plan_draws


class CreditsReturnedError(ConflictError):
    """The invoice has given its credits back, so it draws none again."""

    code = "credits_returned"


async def draw_credits(
    tenant_id: str, invoice_id: str, dues: Sequence[Due], currency: str, *, ledger: CreditLedger, at: datetime
) -> list[Draw]:
    """Return what each credit pays of the dues, in the draw order, and write it down as drawn by the invoice.

    An invoice that has drawn before draws nothing more: the same is returned, whatever has changed since. Credits that
    have expired by `at` are not touched, whether or not their expiry is written down. Raises `CreditsReturnedError`
    after the credits were given back.
    """
    # Locked before looking for entries: of two that draw for one invoice, the second then finds what the first drew.
    credits = await ledger.lock_credits(tenant_id)
    before = await ledger.entries_for(invoice_id)
    if any(entry.kind is EntryKind.RETURNED for entry in before):
        raise CreditsReturnedError(f"invoice {invoice_id} has given its credits back")
    if before:
        return [Draw(entry.grant_id, -entry.amount) for entry in before]
    draws = plan_draws(credits, dues, currency, at)
    grants = {credit.grant.grant_id: credit.grant for credit in credits}
    for draw in draws:
        await ledger.enter(grants[draw.grant_id], EntryKind.DRAWN, -draw.amount, at=at, reference=invoice_id)
    return draws


def total_drawn(draws: Sequence[Draw]) -> Decimal:
    """Return the sum of the draws: the invoice's `credits_applied`."""
    return sum((draw.amount for draw in draws), Decimal(0))
