"""The life of one refund: money of a settled payment that goes back to the payer.

    pending ──> processing ──┬──> succeeded ──> failed    the bank sent it back: the money is ours again
       │                     ├──> failed
       └─────────────────────┴──> canceled

Source of the states: Stripe API reference, Refund `status`, and page "Refunds", failed refunds: one that has succeeded
can still fail. Whatever is not failed or canceled counts against the amount settled, so that the sum of all refunds
never exceeds it, unknown outcomes included.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from core.ids import derive_id
from core.money import Money
from payments.domain.payment import Payment, PaymentStatus, Refusal


class RefundStatus(StrEnum):
    """Where a refund is; the values of `refunds.status`."""

    PENDING = "pending"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


_MOVES: dict[RefundStatus, frozenset[RefundStatus]] = {
    RefundStatus.PENDING: frozenset(RefundStatus) - {RefundStatus.PENDING},
    RefundStatus.PROCESSING: frozenset({RefundStatus.SUCCEEDED, RefundStatus.FAILED, RefundStatus.CANCELED}),
    RefundStatus.SUCCEEDED: frozenset({RefundStatus.FAILED}),
    RefundStatus.FAILED: frozenset(),
    RefundStatus.CANCELED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Refund:
    """One refund; `amount` is rounded to the minor unit, `provider_reference` the provider's id of it.

    `refund_id` is the provider's idempotency key. A refund somebody made in the provider's own panel has one too.
    """

    refund_id: str
    payment_id: str
    invoice_id: str
    tenant_id: str
    provider: str
    amount: Money
    reason: str
    requested_by: str
    created_at: datetime
    status: RefundStatus = RefundStatus.PENDING
    provider_reference: str | None = None
    failure_code: str | None = None
    failure_reason: str | None = None
    settled_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether its outcome is not known yet."""
        return self.status in {RefundStatus.PENDING, RefundStatus.PROCESSING}


@dataclass(frozen=True, slots=True)
class RefundOutcome:
    """What the provider says of a refund. `amount` is None if it names none."""

    status: RefundStatus
    reference: str | None
    amount: Money | None = None
    failure_code: str | None = None
    failure_reason: str | None = None


def refund_id_of(payment_id: str, request_key: str) -> str:
    """Return the refund's id: the same request for the same payment is the same refund, however often it is made."""
    return derive_id("ref", payment_id, request_key)


def foreign_refund_id_of(provider: str, reference: str) -> str:
    """Return the id under which a refund that was not asked for here is kept."""
    return derive_id("ref", provider, reference)


def left_to_refund(payment: Payment, refunds: Iterable[Refund]) -> Decimal:
    """Return how much of a payment has not been refunded, in its currency; 0 of one that has not succeeded.

    A refund with an unknown outcome counts in full.
    """
    if payment.status is not PaymentStatus.SUCCEEDED:
        return Decimal(0)
    gone = {RefundStatus.FAILED, RefundStatus.CANCELED}
    return payment.amount.amount - sum((r.amount.amount for r in refunds if r.status not in gone), Decimal(0))


def record_refund(refund: Refund, news: RefundOutcome, at: datetime) -> Refund | Refusal:
    """Apply what the provider says of a refund, by answer, webhook or look-up; `at` is when it happened there.

    Unchanged if it is a repeat or was overtaken. Refusals: `reference_mismatch`, `amount_mismatch`. Unlike a payment
    (`record_answer`), a refund may succeed by the answer to our call: a wrongly believed refund costs us, not the
    customer, and the provider's events correct it.
    """
    known = refund.provider_reference
    if known is not None and news.reference is not None and known != news.reference:
        return Refusal("reference_mismatch", f"the refund is {known} at the provider, the news is of {news.reference}")
    if news.amount is not None and news.amount != refund.amount:
        return Refusal("amount_mismatch", f"{refund.amount} was to be refunded, the provider says {news.amount}")
    if news.status not in _MOVES[refund.status]:
        return refund
    ended_badly = news.status in {RefundStatus.FAILED, RefundStatus.CANCELED}
    return replace(
        refund,
        status=news.status,
        provider_reference=news.reference or known,
        failure_code=(news.failure_code or news.status.value) if ended_badly else None,
        failure_reason=news.failure_reason if ended_badly else None,
        settled_at=at if news.status is RefundStatus.SUCCEEDED else None,
    )
