"""What the others are told when a payment changes. Owns which change makes which message, and its identity."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from core.errors import must_hold
from core.ids import derive_id
from core.messages import PaymentDisputed, PaymentFailed, PaymentRefunded, PaymentSettled, encode_message
from core.period import format_instant
from core.topics import PAYMENT_DISPUTED, PAYMENT_FAILED, PAYMENT_REFUNDED, PAYMENT_SETTLED, Topic
from payments.domain.dispute import Dispute, DisputeStatus, steps_between
from payments.domain.payment import Payment, PaymentStatus
from payments.domain.refund import Refund, RefundStatus

_STEPS: dict[DisputeStatus, Literal["opened", "won", "lost"]] = {
    DisputeStatus.OPENED: "opened",
    DisputeStatus.WON: "won",
    DisputeStatus.LOST: "lost",
}


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


def announce_refund(before: RefundStatus | None, refund: Refund, now: datetime) -> Announcement | None:
    """Return the message that a refund's change of status makes: it went through, or came back after it had."""
    if before is refund.status:
        return None
    if refund.status is RefundStatus.SUCCEEDED:
        return _refunded(refund, "succeeded", refund.settled_at or now)
    if refund.status is RefundStatus.FAILED and before is RefundStatus.SUCCEEDED:
        return _refunded(refund, "failed", now)
    return None


def announce_dispute(before: DisputeStatus | None, dispute: Dispute, now: datetime) -> list[Announcement]:
    """Return the messages that a dispute's change makes, oldest first: money was held, came back or is lost."""
    return [_disputed(dispute, step, now) for step in steps_between(before, dispute.status)]


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


def _refunded(refund: Refund, status: Literal["succeeded", "failed"], at: datetime) -> Announcement:
    message = PaymentRefunded(
        refund_id=refund.refund_id,
        payment_id=refund.payment_id,
        invoice_id=refund.invoice_id,
        tenant_id=refund.tenant_id,
        provider=refund.provider,
        provider_reference=refund.provider_reference or "",
        currency=refund.amount.currency,
        amount=f"{refund.amount.amount:f}",
        reason=refund.reason,
        at=format_instant(at),
        status=status,
    )
    event_id = derive_id("evt", "payment.refunded", refund.refund_id, status)
    return Announcement(PAYMENT_REFUNDED, refund.tenant_id, event_id, encode_message(message))


def _disputed(dispute: Dispute, step: DisputeStatus, now: datetime) -> Announcement:
    at = dispute.opened_at if step is DisputeStatus.OPENED else dispute.closed_at or now
    message = PaymentDisputed(
        dispute_id=dispute.dispute_id,
        payment_id=dispute.payment_id,
        invoice_id=dispute.invoice_id,
        tenant_id=dispute.tenant_id,
        provider=dispute.provider,
        provider_reference=dispute.provider_reference,
        currency=dispute.amount.currency,
        amount=f"{dispute.amount.amount:f}",
        status=_STEPS[step],
        reason=dispute.reason,
        evidence_due_at=format_instant(dispute.evidence_due_at) if dispute.evidence_due_at else "",
        at=format_instant(at),
    )
    event_id = derive_id("evt", "payment.disputed", dispute.dispute_id, step.value)
    return Announcement(PAYMENT_DISPUTED, dispute.tenant_id, event_id, encode_message(message))
