"""Gives news of what comes after a payment its effect: refunds, ours or made in the provider's panel, and disputes.

Called in the transaction that closes the webhook or the look-up; everything is counted under the payment's lock.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from core.money import Money
from payments.domain.dispute import Dispute, dispute_id_of, record_dispute
from payments.domain.history import Cause
from payments.domain.payment import Payment, PaymentStatus, Refusal
from payments.domain.refund import Refund, RefundStatus, foreign_refund_id_of, left_to_refund, record_refund
from payments.ports import DisputeNews, PaymentUnit, RefundNews, RefundTotal
from payments.record_change import record_dispute_change, record_refund_change

_PANEL = "the provider's panel"
_UNKNOWN = Refusal("unknown_payment", "no payment of ours has this id or reference")


async def apply_aftermath(
    unit: PaymentUnit, provider: str, news: RefundNews | RefundTotal | DisputeNews, now: datetime, cause: Cause
) -> Refusal | None:
    """Record the news; returns why it cannot be true, if so. Repeats and disorder change nothing."""
    match news:
        case RefundNews():
            return await apply_refund_news(unit, provider, news, now, cause)
        case RefundTotal():
            return await _apply_total(unit, provider, news, now)
        case DisputeNews():
            return await _apply_dispute(unit, provider, news, now, cause)


async def apply_refund_news(
    unit: PaymentUnit, provider: str, news: RefundNews, now: datetime, cause: Cause
) -> Refusal | None:
    """Record what the provider says of one refund; one that nobody asked for here is written down as found."""
    known = None if news.refund_id is None else await unit.find_refund(news.refund_id)
    if known is not None and known.provider != provider:
        return Refusal("provider_mismatch", f"{known.refund_id} is not a {provider} refund")
    if known is not None:
        payment = await unit.lock_payment(known.payment_id)
    elif news.payment_reference is not None:
        payment = await unit.lock_payment_of(provider, news.payment_reference)
    elif news.payment_id is not None:
        payment = await unit.lock_payment(news.payment_id)
    else:
        payment = None
    if payment is None:
        return _UNKNOWN
    if payment.provider != provider:
        return Refusal("provider_mismatch", f"{payment.payment_id} is not a {provider} payment")
    if payment.status is not PaymentStatus.SUCCEEDED:
        # The refund overtook the news that the money came: both are looked up together.
        await unit.ask_for_refunds(payment.payment_id, now)
        return None
    if known is None and news.outcome.reference is not None:
        refunds = await unit.refunds_of(payment.payment_id)
        known = next((refund for refund in refunds if refund.provider_reference == news.outcome.reference), None)
    if known is not None:
        # Read again under the payment's lock.
        known = await unit.find_refund(known.refund_id)
    return await _record(unit, payment, known, news, now, cause)


async def _record(
    unit: PaymentUnit, payment: Payment, known: Refund | None, news: RefundNews, now: datetime, cause: Cause
) -> Refusal | None:
    refund = known or _found(payment, news, now)
    if isinstance(refund, Refusal):
        return refund
    changed = record_refund(refund, news.outcome, news.happened_at or now)
    if isinstance(changed, Refusal):
        return changed
    if known is None and changed.status not in {RefundStatus.FAILED, RefundStatus.CANCELED}:
        left = left_to_refund(payment, await unit.refunds_of(payment.payment_id))
        if changed.amount.amount > left:
            reason = f"{changed.amount} was refunded at the provider, {left:f} of {payment.payment_id} is left"
            return Refusal("refund_exceeds_payment", reason)
    await record_refund_change(unit, known, changed, now, cause)
    return None


def _found(payment: Payment, news: RefundNews, now: datetime) -> Refund | Refusal:
    reference, amount = news.outcome.reference, news.outcome.amount
    if reference is None or amount is None:
        return Refusal("malformed_event", "a refund nobody asked for here needs a reference and an amount")
    if amount.currency != payment.amount.currency:
        return Refusal("currency_mismatch", f"{payment.payment_id} is {payment.amount}, the refund {amount}")
    return Refund(
        refund_id=foreign_refund_id_of(payment.provider, reference),
        payment_id=payment.payment_id,
        invoice_id=payment.invoice_id,
        tenant_id=payment.tenant_id,
        provider=payment.provider,
        amount=amount,
        reason=news.reason,
        requested_by=_PANEL,
        created_at=news.happened_at or now,
        provider_reference=reference,
    )


async def _apply_total(unit: PaymentUnit, provider: str, news: RefundTotal, now: datetime) -> Refusal | None:
    payment = await unit.lock_payment_of(provider, news.payment_reference)
    if payment is None:
        return _UNKNOWN
    gone = {RefundStatus.FAILED, RefundStatus.CANCELED}
    refunds = await unit.refunds_of(payment.payment_id)
    known = sum((refund.amount.amount for refund in refunds if refund.status not in gone), Decimal(0))
    if Money(known, payment.amount.currency) != news.refunded:
        await unit.ask_for_refunds(payment.payment_id, now)
    return None


async def _apply_dispute(
    unit: PaymentUnit, provider: str, news: DisputeNews, now: datetime, cause: Cause
) -> Refusal | None:
    payment = None
    if news.payment_reference is not None:
        payment = await unit.lock_payment_of(provider, news.payment_reference)
    if payment is None and news.payment_id is not None:
        payment = await unit.lock_payment(news.payment_id)
    if payment is None:
        return _UNKNOWN
    if news.amount.currency != payment.amount.currency:
        return Refusal("currency_mismatch", f"{payment.payment_id} is {payment.amount}, the dispute {news.amount}")
    at = news.happened_at or now
    dispute = Dispute(
        dispute_id=dispute_id_of(provider, news.reference),
        payment_id=payment.payment_id,
        invoice_id=payment.invoice_id,
        tenant_id=payment.tenant_id,
        provider=provider,
        provider_reference=news.reference,
        amount=news.amount,
        reason=news.reason,
        status=news.status,
        opened_at=news.opened_at or at,
        evidence_due_at=news.evidence_due_at,
    )
    known = await unit.find_dispute(dispute.dispute_id)
    await record_dispute_change(unit, known, record_dispute(known, dispute, at), now, cause)
    return None
