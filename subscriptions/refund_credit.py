"""Pays back what is left of a credit that was paid for."""

from __future__ import annotations

from datetime import datetime

from core.errors import ConflictError, Fault, InvalidInputError, NotFoundError
from rating.credit_ledger import CreditLedger
from rating.domain.credit import Credit, CreditEntry, CreditKind, EntryKind
from subscriptions.domain.coupon_wish import read_money


class RefundedBeforeError(ConflictError):
    """The key was used before, for another amount."""

    code = "refund_exists"


async def refund_credit(
    grant_id: str, amount: str | None, *, key: str, reason: str, ledger: CreditLedger, now: datetime
) -> tuple[CreditEntry, bool]:
    """Enter a refund of `amount`, or of all that is left; returns the entry and whether it is new.

    The money itself is moved by whoever asks; `key` names that movement, and the same key is entered once. Raises
    `NotFoundError`, `RefundedBeforeError`, or `InvalidInputError` (`not_refundable` for what was given,
    `credit_voided`, `credit_expired`, `insufficient_credit`, and those of amounts).
    """
    credit = await ledger.lock_credit(grant_id)
    if credit is None:
        raise NotFoundError(f"no credit {grant_id[:80]!r}")
    if not key:
        raise InvalidInputError([Fault("missing_field", "a refund needs a key", "key")])
    wanted = None if amount is None else read_money(amount, credit.grant.currency, "amount")
    for entry in await ledger.entries_of(credit.grant.tenant_id):
        if (entry.grant_id, entry.kind, entry.reference) == (grant_id, EntryKind.REFUNDED, key):
            if wanted is not None and -entry.amount != wanted:
                raise RefundedBeforeError(f"the key {key[:80]!r} refunded {-entry.amount:f} before")
            return entry, False
    faults = _reasons_against(credit, now)
    if wanted is not None and wanted > credit.balance:
        reason_against = f"{credit.balance:f} {credit.grant.currency} are left"
        faults.append(Fault("insufficient_credit", reason_against, "amount"))
    if faults:
        raise InvalidInputError(faults)
    refunded = credit.balance if wanted is None else wanted
    return await ledger.enter(credit.grant, EntryKind.REFUNDED, -refunded, at=now, reference=key, reason=reason), True


def _reasons_against(credit: Credit, now: datetime) -> list[Fault]:
    grant, faults = credit.grant, []
    if grant.kind is not CreditKind.PAID:
        faults.append(Fault("not_refundable", "nobody paid for it", "credit"))
    if credit.is_voided:
        faults.append(Fault("credit_voided", "it is void", "credit"))
    elif grant.expires_at is not None and grant.expires_at <= now:
        faults.append(Fault("credit_expired", f"it expired at {grant.expires_at}", "credit"))
    elif not credit.balance:
        faults.append(Fault("insufficient_credit", "nothing is left of it", "credit"))
    return faults
