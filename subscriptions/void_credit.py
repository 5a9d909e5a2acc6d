"""Takes back what is left of a credit."""

from __future__ import annotations

from datetime import datetime

from core.errors import NotFoundError
from rating.credit_ledger import CreditLedger
from rating.domain.credit import CreditEntry, EntryKind


async def void_credit(grant_id: str, *, reason: str, ledger: CreditLedger, now: datetime) -> CreditEntry | None:
    """Take out what is left and let nothing be drawn any more; what was drawn stays drawn.

    Returns the entry, None if the credit was void before. Raises `NotFoundError`.
    """
    credit = await ledger.lock_credit(grant_id)
    if credit is None:
        raise NotFoundError(f"no credit {grant_id[:80]!r}")
    if credit.is_voided:
        return None
    return await ledger.enter(credit.grant, EntryKind.VOIDED, -credit.balance, at=now, reason=reason)
