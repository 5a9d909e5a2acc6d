"""The janitor: asks providers what became of payments and refunds whose outcome is open, and records it.

It looks 5 minutes after the start, after an hour, then daily (`payments.domain.schedule`), and never charges: what a
provider knows nothing of is left to the caller who repeats with the same key, and given up once that key is dead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import datetime

import structlog
from prometheus_client import Counter

from core.clock import Clock
from core.errors import ConflictError, InvalidInputError, UnavailableError
from payments.apply_aftermath import apply_refund_news
from payments.charge_invoice import KEY_LIFE
from payments.domain.history import Cause, CauseKind
from payments.domain.payment import (
    PROVIDER_ERROR,
    Outcome,
    Payment,
    PaymentStatus,
    Refusal,
    fail,
    record_lookup,
)
from payments.domain.schedule import next_check_after
from payments.ports import DuePayment, DueRefund, PaymentMethod, PaymentProvider, PaymentStore, RefundLister
from payments.record_change import record_change
from payments.refund_payment import finish_refund

_BATCH = 50
_LOOKED_UP = Counter("meterbook_payments_looked_up_total", "Look-ups of open outcomes", ["provider", "outcome"])
log = structlog.get_logger()


async def close_pending_payments(*, store: PaymentStore, providers: Mapping[str, PaymentProvider], clock: Clock) -> int:
    """Look up everything that is due, one batch of each, and return how much it was.

    A provider that does not answer, and an answer that cannot be true, move only that one thing to its next time.
    """
    async with store.transaction() as unit:
        payments = await unit.due_checks(clock.now(), _BATCH)
        refunds = await unit.due_refund_checks(clock.now(), _BATCH)
    for payment in payments:
        await _guarded(payment.payment.payment_id, _check_payment(payment, store, providers, clock))
    for refund in refunds:
        await _guarded(refund.refund.refund_id, _check_refund(refund, store, providers, clock))
    return len(payments) + len(refunds)


async def _guarded(subject: str, work: Awaitable[None]) -> None:
    try:
        await work
    except (UnavailableError, InvalidInputError, ConflictError) as error:
        log.warning("look_up.failed", subject=subject, code=error.code, error=str(error)[:300])


async def _check_payment(
    due: DuePayment, store: PaymentStore, providers: Mapping[str, PaymentProvider], clock: Clock
) -> None:
    payment, now = due.payment, clock.now()
    async with store.transaction() as unit:
        # First the next time, so that nothing that goes wrong below is tried without end.
        at = next_check_after(due.checks + 1, payment.created_at, now)
        await unit.schedule_check(payment.payment_id, due.checks + 1, at)
        method = await unit.method_at(payment.tenant_id, payment.provider)
    provider = providers.get(payment.provider)
    if provider is None:
        _LOOKED_UP.labels(payment.provider, "no_provider").inc()
        return
    if method is None and payment.provider_reference is not None:
        # The method was removed meanwhile; the provider's own id of the payment is enough to find it.
        method = PaymentMethod(payment.tenant_id, payment.provider, "", "")
    if payment.is_open and method is not None:
        found = await provider.find_charge(payment, method)
        payment = await _record(store, payment, found, clock)
    if payment.status is PaymentStatus.SUCCEEDED:
        await _read_refunds(store, payment, provider, clock)
    if not payment.is_open:
        async with store.transaction() as unit:
            await unit.schedule_check(payment.payment_id, due.checks + 1, None)
    _LOOKED_UP.labels(payment.provider, payment.status.value).inc()


async def _record(store: PaymentStore, asked: Payment, found: Outcome | None, clock: Clock) -> Payment:
    now = clock.now()
    async with store.transaction() as unit:
        payment = await unit.lock_payment(asked.payment_id) or asked
        changed = _after_lookup(payment, found, now)
        if isinstance(changed, Refusal):
            log.error("look_up.contradicts", payment_id=payment.payment_id, refusal=str(changed))
            return payment
        await record_change(unit, payment, changed, now, Cause(CauseKind.LOOKUP))
    return changed


def _after_lookup(payment: Payment, found: Outcome | None, now: datetime) -> Payment | Refusal:
    if found is not None:
        return record_lookup(payment, found, now)
    if now - payment.created_at < KEY_LIFE:
        # Our call may still be on its way; whoever made it repeats it with the same key.
        return payment
    return fail(payment, PROVIDER_ERROR, "the outcome stayed unknown and the provider holds no charge")


async def _read_refunds(store: PaymentStore, payment: Payment, provider: object, clock: Clock) -> None:
    if not isinstance(provider, RefundLister):
        return
    for news in await provider.list_refunds(payment):
        async with store.transaction() as unit:
            refused = await apply_refund_news(unit, payment.provider, news, clock.now(), Cause(CauseKind.LOOKUP))
        if refused is not None:
            log.error("look_up.contradicts", payment_id=payment.payment_id, refusal=str(refused))


async def _check_refund(
    due: DueRefund, store: PaymentStore, providers: Mapping[str, PaymentProvider], clock: Clock
) -> None:
    refund, now = due.refund, clock.now()
    async with store.transaction() as unit:
        at = next_check_after(due.checks + 1, refund.created_at, now)
        await unit.schedule_refund_check(refund.refund_id, due.checks + 1, at)
        payment = await unit.lock_payment(refund.payment_id)
    provider = providers.get(refund.provider)
    if provider is None or payment is None:
        _LOOKED_UP.labels(refund.provider, "no_provider").inc()
        return
    changed = await finish_refund(refund, payment, store=store, provider=provider, clock=clock, is_new=False)
    _LOOKED_UP.labels(refund.provider, f"refund_{changed.status.value}").inc()
    log.info("refund.recorded", refund_id=changed.refund_id, status=changed.status.value, code=changed.failure_code)
