"""What happened to a payment, its refunds and its disputes: one entry per change of state, never changed or removed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class CauseKind(StrEnum):
    """What made a state change; the values of `payment_changes.cause`."""

    REQUEST = "request"
    """Somebody or something asked for it: a finalized invoice, a command, an API call."""
    ANSWER = "answer"
    """The provider's answer to our own call."""
    WEBHOOK = "webhook"
    """A provider event, signed or fetched by the sweep."""
    LOOKUP = "lookup"
    """We asked the provider what became of it."""
    CLOCK = "clock"
    """A time ran out."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a state changed; `reference` names the event, request or person, None if there is nothing to name."""

    kind: CauseKind
    reference: str | None = None


class Subject(StrEnum):
    """Whose state changed; the values of `payment_changes.subject`."""

    PAYMENT = "payment"
    REFUND = "refund"
    DISPUTE = "dispute"


@dataclass(frozen=True, slots=True)
class PaymentChange:
    """One entry of a payment's history. `before` is None when the subject was first written down."""

    subject: Subject
    subject_id: str
    payment_id: str
    tenant_id: str
    before: str | None
    after: str
    cause: Cause
    changed_at: datetime
    code: str | None = None
    reason: str | None = None
