"""Writes a change of state together with its history and its announcement, in the caller's transaction."""

from __future__ import annotations

from datetime import datetime

from prometheus_client import Counter

from payments.domain.announcement import announce_change, announce_dispute, announce_refund
from payments.domain.dispute import Dispute
from payments.domain.history import Cause, PaymentChange, Subject
from payments.domain.payment import Payment
from payments.domain.refund import Refund
from payments.ports import PaymentUnit

_Subject = Payment | Refund | Dispute
_STATUSES = Counter("billing_payments_total", "Payments by the status they came to", ["status"])


async def record_opening(unit: PaymentUnit, payment: Payment, now: datetime, cause: Cause) -> bool:
    """Write a new payment and the first entry of its history; False if it or another live one of the invoice exists."""
    if not await unit.insert_payment(payment, now):
        return False
    await _note(unit, Subject.PAYMENT, payment.payment_id, None, payment, now, cause)
    return True


async def record_change(unit: PaymentUnit, before: Payment, after: Payment, now: datetime, cause: Cause) -> None:
    """Store `after`, note the change and put what it announces into the outbox; nothing if it is `before`.

    Raises `ConflictError` if another payment of the invoice is live or has succeeded.
    """
    if after == before:
        return
    await unit.update_payment(after, now)
    await _note(unit, Subject.PAYMENT, after.payment_id, before, after, now, cause)
    announcement = announce_change(before.status, after, now)
    if announcement is not None:
        await unit.announce(announcement, now)


async def record_refund_change(
    unit: PaymentUnit, before: Refund | None, after: Refund, now: datetime, cause: Cause
) -> None:
    """Store a refund, new if `before` is None, with its history and announcement; nothing if it is `before`."""
    if after == before:
        return
    await unit.save_refund(after, now)
    await _note(unit, Subject.REFUND, after.refund_id, before, after, now, cause)
    announcement = announce_refund(None if before is None else before.status, after, now)
    if announcement is not None:
        await unit.announce(announcement, now)


async def record_dispute_change(
    unit: PaymentUnit, before: Dispute | None, after: Dispute, now: datetime, cause: Cause
) -> None:
    """Store a dispute, new if `before` is None, with its history and announcements; nothing if it is `before`."""
    if after == before:
        return
    await unit.save_dispute(after, now)
    await _note(unit, Subject.DISPUTE, after.dispute_id, before, after, now, cause)
    for announcement in announce_dispute(None if before is None else before.status, after, now):
        await unit.announce(announcement, now)


async def _note(
    unit: PaymentUnit,
    subject: Subject,
    subject_id: str,
    before: _Subject | None,
    after: _Subject,
    now: datetime,
    cause: Cause,
) -> None:
    """Add what changed to the payment's history; nothing where the status is as it was."""
    if before is not None and after.status is before.status:
        return
    if subject is Subject.PAYMENT:
        _STATUSES.labels(after.status.value).inc()
    # A dispute has no failure, but the bank's reason for it.
    code, reason = (after.reason, None) if isinstance(after, Dispute) else (after.failure_code, after.failure_reason)
    await unit.note_change(
        PaymentChange(
            subject=subject,
            subject_id=subject_id,
            payment_id=after.payment_id,
            tenant_id=after.tenant_id,
            before=None if before is None else before.status.value,
            after=after.status.value,
            cause=cause,
            changed_at=now,
            code=code,
            reason=reason,
        )
    )
