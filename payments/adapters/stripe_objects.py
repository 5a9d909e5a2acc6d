"""Reads Stripe's objects into our words. Pure; with `stripe_events` the one place that knows their JSON.

Source: Stripe API reference 2026-10-28, "PaymentIntents", "Refunds", "Disputes"; page "PaymentIntent lifecycle".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from core.money import Money
from payments.adapters.stripe_amounts import from_stripe_amount
from payments.adapters.stripe_errors import read_error
from payments.domain.dispute import DisputeStatus
from payments.domain.payment import AUTHENTICATION_ABANDONED, AUTHENTICATION_REQUIRED, Outcome, PaymentStatus
from payments.domain.refund import RefundOutcome, RefundStatus
from payments.ports import DisputeNews, RefundNews, RefundTotal

_STATUS = {
    "requires_payment_method": PaymentStatus.FAILED,
    "requires_confirmation": PaymentStatus.PROCESSING,
    "requires_action": PaymentStatus.REQUIRES_ACTION,
    "requires_capture": PaymentStatus.PROCESSING,
    "processing": PaymentStatus.PROCESSING,
    "succeeded": PaymentStatus.SUCCEEDED,
    "canceled": PaymentStatus.CANCELED,
}
_REFUND_STATUS = {
    "pending": RefundStatus.PROCESSING,
    "requires_action": RefundStatus.PROCESSING,
    "succeeded": RefundStatus.SUCCEEDED,
    "failed": RefundStatus.FAILED,
    "canceled": RefundStatus.CANCELED,
}
_DISPUTE_STATUS = {
    # Page "How disputes work", inquiries: the bank asks before it takes; no money moves.
    "warning_needs_response": DisputeStatus.INQUIRY,
    "warning_under_review": DisputeStatus.INQUIRY,
    "warning_closed": DisputeStatus.CLOSED,
    "needs_response": DisputeStatus.OPENED,
    "under_review": DisputeStatus.OPENED,
    "won": DisputeStatus.WON,
    "lost": DisputeStatus.LOST,
    # Page "Dispute prevention": settled with a refund before it became a dispute.
    "prevented": DisputeStatus.CLOSED,
}
_LATEST_INSTANT = 253_402_300_799


def read_intent(intent: Mapping[str, Any], status: str | None = None) -> Outcome:
    """Return what a PaymentIntent says; `status` overrides its own. Raises `InvalidInputError` or `ValueError`.

    An amount is told where money is named: received if it succeeded, else what it asks for.
    """
    state = status or intent.get("status")
    if state not in _STATUS:
        raise ValueError(f"unknown status {state!r}")
    amount = read_money(intent, "amount_received" if state == "succeeded" else "amount")
    code, reason = read_error(intent.get("last_payment_error")) if state != "succeeded" else (None, None)
    ours = _STATUS[state]
    if ours is PaymentStatus.FAILED and code == AUTHENTICATION_REQUIRED:
        ours = PaymentStatus.REQUIRES_ACTION
    if ours is PaymentStatus.CANCELED:
        reason = str(intent.get("cancellation_reason") or "")
        code = AUTHENTICATION_ABANDONED if reason == "abandoned" else "canceled"
    return Outcome(ours, read_id(intent), amount, code, reason)


def read_refund(refund: Mapping[str, Any]) -> RefundOutcome:
    """Return what a Refund says; raises `InvalidInputError` or `ValueError`."""
    status = _REFUND_STATUS.get(str(refund.get("status")))
    if status is None:
        raise ValueError(f"unknown status {refund.get('status')!r}")
    failure = refund.get("failure_reason")
    code = str(failure) if failure else None
    return RefundOutcome(status, read_id(refund), read_money(refund, "amount"), code, code)


def read_refund_news(refund: Mapping[str, Any], happened_at: datetime | None) -> RefundNews:
    """Return the news a Refund object is; raises `InvalidInputError` or `ValueError`."""
    return RefundNews(
        refund_id=read_metadata(refund, "refund_id"),
        payment_reference=read_reference(refund, "payment_intent"),
        outcome=read_refund(refund),
        reason=str(refund.get("reason") or "refunded at Stripe"),
        happened_at=happened_at or read_instant(refund.get("created")),
    )


def read_refund_total(charge: Mapping[str, Any]) -> RefundTotal | None:
    """Return how much of a charge is refunded; None if it belongs to no payment intent."""
    reference = read_reference(charge, "payment_intent")
    return None if reference is None else RefundTotal(reference, read_money(charge, "amount_refunded"))


def read_dispute(dispute: Mapping[str, Any], happened_at: datetime | None) -> DisputeNews:
    """Return the news a Dispute object is; raises `InvalidInputError` or `ValueError`."""
    status = _DISPUTE_STATUS.get(str(dispute.get("status")))
    if status is None:
        raise ValueError(f"unknown status {dispute.get('status')!r}")
    details = dispute.get("evidence_details")
    return DisputeNews(
        reference=read_id(dispute),
        payment_reference=read_reference(dispute, "payment_intent"),
        payment_id=read_metadata(dispute, "payment_id"),
        status=status,
        amount=read_money(dispute, "amount"),
        reason=str(dispute.get("reason") or "general"),
        opened_at=read_instant(dispute.get("created")),
        evidence_due_at=read_instant(details.get("due_by")) if isinstance(details, Mapping) else None,
        happened_at=happened_at,
    )


def read_metadata(subject: Mapping[str, Any], name: str) -> str | None:
    """Return a text of the object's metadata, which we wrote there ourselves."""
    metadata = subject.get("metadata")
    value = metadata.get(name) if isinstance(metadata, Mapping) else None
    return value if isinstance(value, str) and value and "\0" not in value else None


def read_reference(subject: Mapping[str, Any], name: str) -> str | None:
    """Return the id of another object, which may be expanded."""
    value = subject.get(name)
    if isinstance(value, Mapping):
        value = value.get("id")
    return value if isinstance(value, str) and value and "\0" not in value else None


def read_instant(seconds: Any) -> datetime | None:
    """Return Unix seconds as an instant, None if they are none."""
    return datetime.fromtimestamp(seconds, UTC) if type(seconds) is int and 0 < seconds <= _LATEST_INSTANT else None


def read_id(subject: Mapping[str, Any]) -> str:
    """Return the object's id; raises `ValueError`."""
    identity = subject.get("id")
    if not isinstance(identity, str):
        raise ValueError("id is missing or no text")
    return identity


def read_money(subject: Mapping[str, Any], name: str) -> Money:
    """Return an amount of the object in its currency; raises `InvalidInputError` or `ValueError`."""
    currency, minor = subject.get("currency"), subject.get(name)
    if not isinstance(currency, str) or type(minor) is not int:
        raise ValueError(f"currency or {name} is missing or no text and integer")
    return from_stripe_amount(minor, currency.upper())
