"""What the others are told when a payment changes. Owns which change makes which message, and its identity."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from core.errors import must_hold
from core.ids import derive_id
from core.messages import PaymentFailed, PaymentSettled, encode_message
from core.period import format_instant
from core.topics import PAYMENT_FAILED, PAYMENT_SETTLED, Topic
from payments.domain.payment import Payment, PaymentStatus


@dataclass(frozen=True, slots=True)
class Announcement:
    """One message for the outbox; the same change always has the same `event_id`."""

    topic: Topic
    key: str
    event_id: str
    payload: bytes


def announce_change(before: PaymentStatus, payment: Payment, now: datetime) -> Announcement | None:
    """Return the message that a payment's change of status makes, if any."""
    if before is payment.status:
        return None
    if payment.status is PaymentStatus.SUCCEEDED:
        return _settled(payment)
    if payment.status in {PaymentStatus.FAILED, PaymentStatus.CANCELED}:
        return _failed(payment, now)
    return None


def _settled(payment: Payment) -> Announcement:
    must_hold(payment.settled_at is not None, f"{payment.payment_id} succeeded without an instant")
    assert payment.settled_at is not None
    message = PaymentSettled(
        payment_id=payment.payment_id,
        invoice_id=payment.invoice_id,
        tenant_id=payment.tenant_id,
        provider=payment.provider,
        provider_reference=payment.provider_reference or "",
        currency=payment.amount.currency,
        amount=f"{payment.amount.amount:f}",
        settled_at=format_instant(payment.settled_at),
    )
    event_id = derive_id("evt", "payment.settled", payment.payment_id)
    return Announcement(PAYMENT_SETTLED, payment.tenant_id, event_id, encode_message(message))


def _failed(payment: Payment, now: datetime) -> Announcement:
    message = PaymentFailed(
        payment_id=payment.payment_id,
        invoice_id=payment.invoice_id,
        tenant_id=payment.tenant_id,
        provider=payment.provider,
        code=payment.failure_code or payment.status.value,
        reason=payment.failure_reason or "",
        currency=payment.amount.currency,
        amount=f"{payment.amount.amount:f}",
        failed_at=format_instant(now),
    )
    event_id = derive_id("evt", "payment.failed", payment.payment_id)
    return Announcement(PAYMENT_FAILED, payment.tenant_id, event_id, encode_message(message))
