"""Takes the money of PayPal orders that their payers approved: once each, whatever breaks on the way.

A payment is approved when it is in `processing` (the webhook CHECKOUT.ORDER.APPROVED or a look-up said so). That it is
asked for is written down before the call, so that two workers do not ask at once; the call bears one PayPal-Request-Id,
and PayPal captures an order only once, so that asking again is harmless anyhow. The answer does not settle: PayPal's
signed webhook or a later look-up does.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter

from core.clock import Clock
from core.errors import UnavailableError
from payments.domain.history import Cause, CauseKind
from payments.domain.payment import Payment, PaymentStatus, Refusal, record_lookup
from payments.paypal_ports import CaptureAnswer, CaptureStore, OrderCapturer
from payments.ports import PaymentStore
from payments.record_change import record_change

_BATCH = 50
# Longer than a call may take. Not ever longer, because an approval lasts a few hours only.
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=30), timedelta(minutes=5)
_CAPTURES = Counter("meterbook_paypal_captures_total", "Captures of PayPal orders", ["outcome"])
log = structlog.get_logger()


async def capture_approved_orders(
    *, store: PaymentStore, captures: CaptureStore, capturer: OrderCapturer, clock: Clock
) -> int:
    """Capture what is due, one batch, and return how many were captured; what stays unknown is asked for again."""
    captured = 0
    for due in await captures.due_captures(clock.now(), _BATCH):
        now = clock.now()
        if not await captures.claim_capture(due, now, pause_after(due.asked, now)):
            continue
        try:
            answer = await capturer.capture(due.payment)
        except UnavailableError as error:
            _CAPTURES.labels("unknown").inc()
            log.warning("paypal.capture_unknown", payment_id=due.payment.payment_id, error=str(error)[:300])
            continue
        await _record(due.payment, answer, store, captures, clock)
        captured += answer.capture_id is not None
    return captured


def pause_after(asked: int, now: datetime) -> datetime:
    """Return when to ask again if the call about to be made stays without an answer."""
    return now + min(_FIRST_PAUSE * (1 << min(asked, 10)), _LONGEST_PAUSE)


async def _record(
    asked: Payment, answer: CaptureAnswer, store: PaymentStore, captures: CaptureStore, clock: Clock
) -> None:
    now = clock.now()
    if answer.capture_id is not None:
        await captures.note_captured(asked.payment_id, answer.capture_id, now)
    outcome = answer.outcome
    if outcome.status is PaymentStatus.SUCCEEDED:
        outcome = replace(outcome, status=PaymentStatus.PROCESSING)
    async with store.transaction() as unit:
        payment = await unit.lock_payment(asked.payment_id) or asked
        changed = record_lookup(payment, outcome, now)
        if isinstance(changed, Refusal):
            # Money moved that does not fit: its webhook will be refused for the same reason, and a person must look.
            _CAPTURES.labels("contradiction").inc()
            log.error("paypal.capture_contradicts", payment_id=payment.payment_id, refusal=str(changed))
            return
        await record_change(unit, payment, changed, now, Cause(CauseKind.ANSWER))
    _CAPTURES.labels(changed.status.value).inc()
    log.info("paypal.capture_recorded", payment_id=changed.payment_id, status=changed.status.value)
