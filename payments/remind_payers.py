"""Tells payers once more where to act, when half of their time is over: who has acted meanwhile is not bothered."""

from __future__ import annotations

import structlog

from core.clock import Clock
from core.errors import InvalidInputError, UnavailableError
from payments.ask_payers import record_action
from payments.domain.history import Cause, CauseKind
from payments.domain.payment import Outcome, Payment
from payments.ports import ActionProvider, PayerNotice, PayerStore, PaymentStore

_BATCH = 50
log = structlog.get_logger()


async def remind_payers(
    *, store: PaymentStore, payers: PayerStore, provider: ActionProvider, notice: PayerNotice, clock: Clock
) -> int:
    """Send each reminder that is due, once; returns how many. An outage leaves it for the next run."""
    async with store.transaction() as unit:
        waiting = await unit.payers_to_remind(provider.name, clock.now(), _BATCH)
    reminded = 0
    for payment in waiting:
        try:
            reminded += await _remind(payment, store, payers, provider, notice, clock)
        except (UnavailableError, InvalidInputError) as error:
            log.warning("payer.not_reminded", payment_id=payment.payment_id, code=error.code, error=str(error)[:300])
    return reminded


async def _remind(
    payment: Payment,
    store: PaymentStore,
    payers: PayerStore,
    provider: ActionProvider,
    notice: PayerNotice,
    clock: Clock,
) -> int:
    async with store.transaction() as unit:
        method = await unit.method_at(payment.tenant_id, provider.name)
        action = await unit.find_action(payment.payment_id)
    payer = await payers.find_payer(payment.tenant_id)
    if method is None or payer is None or action is None:
        raise UnavailableError(f"{payment.tenant_id} has no saved method any more")
    found = await provider.request_action(payment, method)
    if isinstance(found, Outcome):
        await record_action(store, payment, found, Cause(CauseKind.LOOKUP), clock)
        return 0
    await notice.send_action_link(payer, payment, action, is_reminder=True)
    async with store.transaction() as unit:
        await unit.mark_payer_reminded(payment.payment_id, clock.now())
    log.info("payer.reminded", payment_id=payment.payment_id, tenant_id=payment.tenant_id)
    return 1
