"""The life of one dispute: the payer's bank takes a settled payment back, at first for the time of the dispute.

    inquiry ──> opened ──┬──> won     the money is ours again
       │                 └──> lost    the money is gone
       └──> closed                    the bank only asked; no money ever moved

Source: Stripe API reference, Dispute `status`; page "How disputes work": the disputed amount is taken from the balance
when the dispute opens and given back when it is won. Won, lost and closed are final, so disorder is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from core.ids import derive_id
from core.money import Money


class DisputeStatus(StrEnum):
    """Where a dispute is; the values of `disputes.status`."""

    INQUIRY = "inquiry"
    OPENED = "opened"
    WON = "won"
    LOST = "lost"
    CLOSED = "closed"


# Where the payer's bank has the money.
HELD = frozenset({DisputeStatus.OPENED, DisputeStatus.LOST})
_FINAL = frozenset({DisputeStatus.WON, DisputeStatus.LOST, DisputeStatus.CLOSED})


@dataclass(frozen=True, slots=True)
class Dispute:
    """One dispute of a payment. `amount` may differ from the payment's: a part, or the bank's exchange rate.

    `evidence_due_at` is the last instant at which the provider takes evidence; None if it asks for none.
    """

    dispute_id: str
    payment_id: str
    invoice_id: str
    tenant_id: str
    provider: str
    provider_reference: str
    amount: Money
    reason: str
    status: DisputeStatus
    opened_at: datetime
    evidence_due_at: datetime | None = None
    closed_at: datetime | None = None


def dispute_id_of(provider: str, reference: str) -> str:
    """Return our id of a dispute: one per dispute at the provider."""
    return derive_id("dsp", provider, reference)


def record_dispute(known: Dispute | None, news: Dispute, at: datetime) -> Dispute:
    """Return the dispute after news of it, which came at any time and in any order; `at` is when it happened.

    News that is older than what is known moves nothing, except that a deadline never heard of is kept.
    """
    if known is None:
        return replace(news, closed_at=at if news.status in _FINAL else None)
    if known.status in _FINAL:
        return known
    status = known.status if news.status is DisputeStatus.INQUIRY else news.status
    return replace(
        known,
        status=status,
        amount=news.amount,
        evidence_due_at=news.evidence_due_at or known.evidence_due_at,
        closed_at=at if status in _FINAL else None,
    )


def steps_between(before: DisputeStatus | None, after: DisputeStatus) -> tuple[DisputeStatus, ...]:
    """Return which of opened, won and lost are new, in their order: a dispute first heard of when lost has two."""
    if before is after or after in {DisputeStatus.INQUIRY, DisputeStatus.CLOSED}:
        return ()
    if after is DisputeStatus.OPENED or before is DisputeStatus.OPENED:
        return (after,)
    return (DisputeStatus.OPENED, after)
