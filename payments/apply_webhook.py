"""Gives a stored webhook its effect: the payment's change, its announcement and `processed_at` in one transaction.

A webhook that cannot be true is closed with its reason and kept; it never blocks the ones behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import structlog
from prometheus_client import Counter

from core.clock import Clock
from core.errors import ConflictError, InvalidInputError
from payments.apply_aftermath import apply_aftermath
from payments.domain.history import Cause, CauseKind
from payments.domain.payment import Payment, Refusal, record_webhook
from payments.ports import (
    DisputeNews,
    MethodNews,
    News,
    PaymentMethod,
    PaymentNews,
    PaymentStore,
    PaymentUnit,
    RefundNews,
    RefundTotal,
    StoredWebhook,
    WebhookReader,
)
from payments.record_change import record_change

log = structlog.get_logger()
_APPLIED = Counter("meterbook_webhooks_applied_total", "Webhooks given effect", ["provider", "outcome"])


async def apply_next_webhook(
    *, store: PaymentStore, readers: Mapping[str, WebhookReader], clock: Clock
) -> StoredWebhook | None:
    """Apply the oldest open webhook and return it; None if there is none."""
    async with store.transaction() as unit:
        webhook = await unit.next_webhook()
        if webhook is None:
            return None
        reader = readers.get(webhook.provider)
        news = reader.read(webhook) if reader else Refusal("unknown_provider", "nothing here reads its webhooks")
        try:
            async with unit.savepoint():
                refusal = await _apply(unit, webhook, news, clock)
        except InvalidInputError as error:
            refusal = Refusal(error.faults[0].code, error.faults[0].reason)
        await unit.close_webhook(webhook, clock.now(), None if refusal is None else str(refusal))
    outcome = "refused" if refusal else "ignored" if news is None else "applied"
    _APPLIED.labels(webhook.provider, outcome).inc()
    level = log.warning if refusal else log.info
    level(
        f"webhook.{outcome}",
        provider=webhook.provider,
        event_id=webhook.event_id,
        event_type=webhook.event_type,
        refusal=str(refusal or ""),
    )
    return webhook


async def _apply(
    unit: PaymentUnit, webhook: StoredWebhook, news: News | Refusal | None, clock: Clock
) -> Refusal | None:
    cause = Cause(CauseKind.WEBHOOK, webhook.event_id)
    match news:
        case PaymentNews():
            return await apply_payment_news(unit, webhook.provider, news, clock.now(), cause)
        case RefundNews() | RefundTotal() | DisputeNews():
            return await apply_aftermath(unit, webhook.provider, news, clock.now(), cause)
        case MethodNews():
            return await _apply_method(unit, webhook.provider, news, clock.now())
        case _:
            return news


async def apply_payment_news(
    unit: PaymentUnit, provider: str, news: PaymentNews, now: datetime, cause: Cause
) -> Refusal | None:
    """Give news of a payment its effect in the caller's transaction; returns why it cannot be true, if so."""
    payment = await _find_payment(unit, provider, news)
    if payment is None:
        return Refusal("unknown_payment", "no payment of ours has this id or reference")
    if payment.provider != provider:
        return Refusal("provider_mismatch", f"{payment.payment_id} is not a {provider} payment")
    changed = record_webhook(payment, news.outcome, news.happened_at or now)
    if isinstance(changed, Refusal):
        return changed
    try:
        await record_change(unit, payment, changed, now, cause)
    except ConflictError as error:
        # Two attempts of one invoice both got money: a person must refund one.
        return Refusal("second_payment", f"{changed.payment_id}: {error}")
    return None


async def _find_payment(unit: PaymentUnit, provider: str, news: PaymentNews) -> Payment | None:
    if news.payment_id is not None:
        found = await unit.lock_payment(news.payment_id)
        if found is not None:
            return found
    if news.outcome.reference is None:
        return None
    return await unit.lock_payment_of(provider, news.outcome.reference)


async def _apply_method(unit: PaymentUnit, provider: str, news: MethodNews, now: datetime) -> Refusal | None:
    if not news.is_usable:
        await unit.remove_payer_method(provider, news.customer_reference, news.method_reference)
        return None
    if news.customer_reference is None:
        return Refusal("unknown_customer", f"{news.method_reference} belongs to nobody")
    known = await unit.tenant_of_customer(provider, news.customer_reference)
    if known is not None and news.tenant_id not in (None, known):
        return Refusal("customer_mismatch", f"{news.customer_reference} is {known}, the news says {news.tenant_id}")
    tenant = known or news.tenant_id
    if tenant is None:
        return Refusal("unknown_customer", f"no tenant is {news.customer_reference}")
    method = PaymentMethod(tenant, provider, news.customer_reference, news.method_reference)
    await unit.save_payer_method(method, news.happened_at or now)
    return None
