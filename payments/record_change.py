"""Writes a change of state together with its history and its announcement, in the caller's transaction."""

from __future__ import annotations

from datetime import datetime

from payments.domain.announcement import announce_change, announce_dispute, announce_refund
from payments.domain.dispute import Dispute
from payments.domain.history import Cause, PaymentChange, Subject
from payments.domain.payment import Payment
from payments.domain.refund import Refund
from payments.ports import PaymentUnit


async def record_opening(unit: PaymentUnit, payment: Payment, now: datetime, cause: Cause) -> bool:
    """Write a new payment and the first entry of its history; False if it or another live one of the invoice exists."""
    if not await unit.insert_payment(payment, now):
        return False
    await unit.note_change(_change_of(payment, None, now, cause))
    return True


async def record_change(unit: PaymentUnit, before: Payment, after: Payment, now: datetime, cause: Cause) -> None:
    """Store `after`, note the change and put what it announces into the outbox; nothing if it is `before`.

    Raises `ConflictError` if another payment of the invoice is live or has succeeded.
    """
    if after == before:
        return
    await unit.update_payment(after, now)
    if after.status is not before.status:
        await unit.note_change(_change_of(after, before.status.value, now, cause))
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
    if before is None or after.status is not before.status:
        await unit.note_change(
            PaymentChange(
                subject=Subject.REFUND,
                subject_id=after.refund_id,
                payment_id=after.payment_id,
                tenant_id=after.tenant_id,
                before=None if before is None else before.status.value,
                after=after.status.value,
                cause=cause,
                changed_at=now,
                code=after.failure_code,
                reason=after.failure_reason,
            )
        )
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
    if before is None or after.status is not before.status:
        await unit.note_change(
            PaymentChange(
                subject=Subject.DISPUTE,
                subject_id=after.dispute_id,
                payment_id=after.payment_id,
                tenant_id=after.tenant_id,
                before=None if before is None else before.status.value,
                after=after.status.value,
                cause=cause,
                changed_at=now,
                code=after.reason,
            )
        )
    for announcement in announce_dispute(None if before is None else before.status, after, now):
        await unit.announce(announcement, now)


def _change_of(payment: Payment, before: str | None, now: datetime, cause: Cause) -> PaymentChange:
    return PaymentChange(
        subject=Subject.PAYMENT,
        subject_id=payment.payment_id,
        payment_id=payment.payment_id,
        tenant_id=payment.tenant_id,
        before=before,
        after=payment.status.value,
        cause=cause,
        changed_at=now,
        code=payment.failure_code,
        reason=payment.failure_reason,
    )
