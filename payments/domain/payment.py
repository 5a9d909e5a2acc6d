"""The life of one payment: one attempt to collect an invoice's amount due.

    pending ──> processing <──> requires_action        (the provider works on it, or the customer must act)
       │             │                │
       └─────────────┴───────┬────────┘
                             ├──> succeeded            only a signed webhook says so
                             ├──> failed ──> succeeded the customer paid the same intent after all
                             └──> canceled

What the provider answers to our own call moves a pending payment only: a webhook that overtook the answer knows at
least as much. Webhooks come twice and in any order, so every step is either a move forward or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from core.ids import derive_id
from core.money import Money

# Stripe's word for "the cardholder must authenticate": a lane of its own, not a decline.
AUTHENTICATION_REQUIRED = "authentication_required"
# The payer was told where to authenticate and did not in time: canceled, and no decline either.
AUTHENTICATION_ABANDONED = "authentication_abandoned"
NO_PAYMENT_METHOD = "no_payment_method"
# The provider said 5xx for good (it replays that answer for our key) and holds no charge of ours.
PROVIDER_ERROR = "provider_error"


class PaymentStatus(StrEnum):
    """Where a payment is; the values of `payments.status`."""

    PENDING = "pending"
    PROCESSING = "processing"
    REQUIRES_ACTION = "requires_action"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


_OPEN = frozenset({PaymentStatus.PENDING, PaymentStatus.PROCESSING, PaymentStatus.REQUIRES_ACTION})
_MOVES: dict[PaymentStatus, frozenset[PaymentStatus]] = {
    PaymentStatus.PENDING: frozenset(PaymentStatus) - {PaymentStatus.PENDING},
    PaymentStatus.PROCESSING: frozenset(PaymentStatus) - {PaymentStatus.PENDING, PaymentStatus.PROCESSING},
    PaymentStatus.REQUIRES_ACTION: frozenset(PaymentStatus) - {PaymentStatus.PENDING, PaymentStatus.REQUIRES_ACTION},
    # Money that came is recorded even where a decline came first.
    PaymentStatus.FAILED: frozenset({PaymentStatus.SUCCEEDED}),
    PaymentStatus.SUCCEEDED: frozenset(),
    # Also where the payer was given up: a capture that came through all the same is money of ours.
    PaymentStatus.CANCELED: frozenset({PaymentStatus.SUCCEEDED}),
}


@dataclass(frozen=True, slots=True)
class Payment:
    """One attempt; `amount` is rounded to the minor unit, `provider_reference` the payment intent's id."""

    payment_id: str
    invoice_id: str
    tenant_id: str
    attempt: int
    provider: str
    amount: Money
    created_at: datetime
    status: PaymentStatus = PaymentStatus.PENDING
    provider_reference: str | None = None
    failure_code: str | None = None
    failure_reason: str | None = None
    settled_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether the provider or the customer may still finish it."""
        return self.status in _OPEN


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the provider says of a payment intent. `amount` is what it received or will receive, None if not told."""

    status: PaymentStatus
    reference: str | None
    amount: Money | None = None
    failure_code: str | None = None
    failure_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why news of a payment cannot be true: a stable code and a sentence."""

    code: str
    reason: str

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


def payment_id_of(invoice_id: str, attempt: int) -> str:
    """Return the payment's id, which is the provider's idempotency key too: one attempt, one key, one charge."""
    return derive_id("pay", invoice_id, str(attempt))


def record_answer(payment: Payment, answer: Outcome) -> Payment | Refusal:
    """Apply what the provider answered to our own call.

    "Succeeded" is recorded as processing: an answer can be lost or forged on the way, the signed webhook settles.
    """
    if payment.status is not PaymentStatus.PENDING:
        return payment
    if refused := _contradiction(payment, answer):
        return refused
    status = PaymentStatus.PROCESSING if answer.status is PaymentStatus.SUCCEEDED else answer.status
    return _move(payment, replace(answer, status=status))


def record_webhook(payment: Payment, news: Outcome, at: datetime) -> Payment | Refusal:
    """Apply what a signed webhook says; `at` is when it happened at the provider.

    Unchanged if it is a repeat or was overtaken. Refusals: `reference_mismatch`, `amount_mismatch`.
    """
    if refused := _contradiction(payment, news):
        return refused
    if news.status not in _MOVES[payment.status]:
        return payment
    if news.status is PaymentStatus.SUCCEEDED:
        if news.amount is None:
            return Refusal("amount_mismatch", "the provider names no received amount")
        return replace(
            payment,
            status=news.status,
            provider_reference=news.reference or payment.provider_reference,
            failure_code=None,
            failure_reason=None,
            settled_at=at,
        )
    return _move(payment, news)


def record_lookup(payment: Payment, found: Outcome, at: datetime) -> Payment | Refusal:
    """Apply what the provider says when it is asked later what became of a payment; `at` is when it was asked.

    It counts as much as a signed webhook: we asked the provider itself, and the call that may have lied is over.
    """
    return record_webhook(payment, found, at)


def fail(payment: Payment, code: str, reason: str) -> Payment:
    """End a pending payment without the provider; anything further along is returned unchanged."""
    if payment.status is not PaymentStatus.PENDING:
        return payment
    return replace(payment, status=PaymentStatus.FAILED, failure_code=code, failure_reason=reason)


def _contradiction(payment: Payment, news: Outcome) -> Refusal | None:
    known = payment.provider_reference
    if known is not None and news.reference is not None and known != news.reference:
        return Refusal("reference_mismatch", f"the payment is {known} at the provider, the news is of {news.reference}")
    if news.amount is not None and news.amount != payment.amount:
        return Refusal("amount_mismatch", f"{payment.amount} is due, the provider says {news.amount}")
    return None


def _move(payment: Payment, news: Outcome) -> Payment:
    failed = news.status in {PaymentStatus.FAILED, PaymentStatus.REQUIRES_ACTION, PaymentStatus.CANCELED}
    return replace(
        payment,
        status=news.status,
        provider_reference=news.reference or payment.provider_reference,
        failure_code=news.failure_code if failed else None,
        failure_reason=news.failure_reason if failed else None,
    )
