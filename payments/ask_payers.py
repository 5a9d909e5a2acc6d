"""The lane of payments that wait for their payer: 3-D Secure at the bank, or approval at the provider.

A payment that needs its payer is no decline, so no retry is burned: the payer gets a link by e-mail, once. Who does not
go there in time is taken to have left: the payment is canceled at the provider and `payment.failed` tells dunning, with
the code `authentication_abandoned`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import structlog
from prometheus_client import Counter

from core.clock import Clock
from core.errors import ConflictError, InvalidInputError, UnavailableError
from payments.domain.history import Cause, CauseKind
from payments.domain.payment import AUTHENTICATION_ABANDONED, Outcome, Payment, PaymentStatus, Refusal, record_lookup
from payments.ports import ActionProvider, PayerAction, PayerNotice, PayerStore, PaymentStore
from payments.record_change import record_change

_BATCH = 50
# A payment nobody could be told of, because the provider or the mail server stayed away, is given up too.
_LONGEST_WITHOUT_LINK = timedelta(days=7)
_ASKED = Counter("meterbook_payers_asked_total", "Payers asked to act, by what became of it", ["provider", "outcome"])
log = structlog.get_logger()


async def tell_payers(
    *,
    store: PaymentStore,
    payers: PayerStore,
    provider: ActionProvider,
    notice: PayerNotice,
    time_to_act: timedelta,
    clock: Clock,
) -> int:
    """Send the link of every waiting payment whose payer was not told yet; returns how many were told.

    An outage of provider or mail leaves the payment for the next run: the provider gives the same link again, and the
    mail has the same id.
    """
    async with store.transaction() as unit:
        waiting = await unit.waiting_for_payer(provider.name, _BATCH)
    told = 0
    for payment in waiting:
        try:
            told += await _tell(payment, store, payers, provider, notice, time_to_act, clock)
        except (UnavailableError, InvalidInputError) as error:
            _ASKED.labels(provider.name, error.code).inc()
            log.warning("payer.not_told", payment_id=payment.payment_id, code=error.code, error=str(error)[:300])
    return told


async def give_up_waiting(*, store: PaymentStore, provider: ActionProvider, clock: Clock) -> int:
    """Cancel payments whose payer did not act in time; returns how many ended."""
    now = clock.now()
    async with store.transaction() as unit:
        expired = await unit.expired_actions(provider.name, now, now - _LONGEST_WITHOUT_LINK, _BATCH)
    ended = 0
    for payment in expired:
        try:
            outcome = await provider.abandon(payment)
        except UnavailableError as error:
            log.warning("payer.not_abandoned", payment_id=payment.payment_id, error=str(error)[:300])
            continue
        if outcome.status is PaymentStatus.CANCELED:
            reason = "the payer did not authenticate in time"
            outcome = replace(outcome, failure_code=AUTHENTICATION_ABANDONED, failure_reason=reason)
        changed = await record_action(store, payment, outcome, Cause(CauseKind.CLOCK), clock)
        ended += not changed.is_open
        _ASKED.labels(provider.name, changed.status.value).inc()
    return ended


async def _tell(
    payment: Payment,
    store: PaymentStore,
    payers: PayerStore,
    provider: ActionProvider,
    notice: PayerNotice,
    time_to_act: timedelta,
    clock: Clock,
) -> int:
    async with store.transaction() as unit:
        method = await unit.method_at(payment.tenant_id, provider.name)
    payer = await payers.find_payer(payment.tenant_id)
    if method is None or payer is None:
        raise UnavailableError(f"{payment.tenant_id} has no saved method any more")
    found = await provider.request_action(payment, method)
    if isinstance(found, Outcome):
        # The payer acted before we asked, or there is nothing to be done.
        await record_action(store, payment, found, Cause(CauseKind.LOOKUP), clock)
        return 0
    now = clock.now()
    async with store.transaction() as unit:
        await unit.save_action(PayerAction(payment.payment_id, found, now + time_to_act), now)
        action = await unit.find_action(payment.payment_id)
    if action is None:
        return 0
    is_told = True
    try:
        await notice.send_action_link(payer, payment, action)
    except InvalidInputError as refused:
        # The address takes no mail for good: no use in trying every few seconds. The clock ends it.
        is_told = False
        log.error("payer.unreachable", payment_id=payment.payment_id, error=str(refused)[:300])
    async with store.transaction() as unit:
        await unit.mark_payer_told(payment.payment_id, clock.now())
    _ASKED.labels(provider.name, "told" if is_told else "unreachable").inc()
    log.info("payer.told", payment_id=payment.payment_id, tenant_id=payment.tenant_id, told=is_told)
    return int(is_told)


async def record_action(store: PaymentStore, asked: Payment, outcome: Outcome, cause: Cause, clock: Clock) -> Payment:
    """Record what became of a payment that waited for its payer, and return it as it is then."""
    now = clock.now()
    async with store.transaction() as unit:
        payment = await unit.lock_payment(asked.payment_id) or asked
        changed = record_lookup(payment, outcome, now)
        if isinstance(changed, Refusal):
            log.error("payer.contradiction", payment_id=payment.payment_id, refusal=str(changed))
            return payment
        try:
            await record_change(unit, payment, changed, now, cause)
        except ConflictError as error:
            log.error("payer.second_payment", payment_id=payment.payment_id, error=str(error))
            return payment
    return changed
