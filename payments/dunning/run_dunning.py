"""Takes the steps of dunning that are due: each once, whoever else does the same at the same time.

An invoice is locked while it is looked at, with the lock that settling it takes: a payment that comes in is seen, or
waits until the step is written down. Mails and announcements are written with the step and go out afterwards. A retry
is written down before the provider is asked, and asked for by the payment it follows, so it is one attempt however
often it is asked for.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import structlog
from prometheus_client import Counter

from core.clock import Clock
from core.creditor_reference import creditor_reference, print_reference
from core.errors import ConflictError, InvalidInputError, UnavailableError
from payments.domain.language import language_of
from payments.dunning.domain.case import Case, judge, may_retry
from payments.dunning.domain.reminder import Reminder
from payments.dunning.domain.schedule import MAILED, DoneStep, PlannedStep, Schedules, StepKind
from payments.dunning.ports import HELD_FOR, STARTED, ChargeAgain, DunningBook, OpenCase, StartedRetry

_BATCH = 200
_STEPS = Counter("meterbook_dunning_steps_total", "Steps of dunning taken", ["kind", "outcome"])
log = structlog.get_logger()


async def run_dunning(
    *, book: DunningBook, charge_again: ChargeAgain, schedules: Schedules, clock: Clock, limit: int = _BATCH
) -> int:
    """Look at every invoice that is to be looked at now, take at most one step of each, return how many were taken."""
    taken = 0
    for invoice_id in await book.due(clock.now(), schedules.longest_before_due, limit):
        taken += await take_next_step(
            invoice_id, book=book, charge_again=charge_again, schedules=schedules, clock=clock
        )
    return taken


async def take_next_step(
    invoice_id: str, *, book: DunningBook, charge_again: ChargeAgain, schedules: Schedules, clock: Clock
) -> bool:
    """Take the step of an invoice that is due, if one is; tells whether one was taken or gone on with."""
    async with book.open_case(invoice_id) as case:
        if case is None:
            return False
        now = clock.now()
        started = case.started
        if started is not None:
            if started.held_until > now:
                return False
            await case.hold(started, now)
            is_taken = True
        else:
            started, is_taken = await _decide(case, schedules, now)
    if started is not None:
        await _charge(case, started, book, charge_again, clock)
    return is_taken


async def _decide(case: OpenCase, schedules: Schedules, now: datetime) -> tuple[StartedRetry | None, bool]:
    invoice = case.invoice
    judged = judge(invoice, schedules, case.done, now, is_paused=case.standing.is_paused(now))
    # First the case, which the steps belong to.
    await case.note(judged.stage, judged.waits_for, _look_at(case, judged), now)
    started, planned = None, judged.step
    if planned is not None:
        started = await _take(case, planned, judged, now)
        after = judge(invoice, schedules, [*case.done, DoneStep(planned.step.name, planned.due_at, now)], now)
        await case.note(after.stage, after.waits_for, _look_at(case, after), now)
    before, stage = await case.change_standing(now, _reason(case, planned))
    if before is not stage:
        of = {"tenant": invoice.tenant_id, "invoice": invoice.invoice_id}
        log.warning("account.standing", before=before.value, after=stage.value, **of)
    return started, planned is not None


async def _take(case: OpenCase, planned: PlannedStep, judged: Case, now: datetime) -> StartedRetry | None:
    invoice, kind, outcome, started = case.invoice, planned.step.kind, "done", None
    if kind is StepKind.RETRY:
        outcome = may_retry(invoice) or STARTED
        if outcome == STARTED:
            retry_of = invoice.charges[-1].payment_id
            started = StartedRetry(planned.step.name, retry_of, now + HELD_FOR)
    await case.take(planned, outcome, now, retry_of=None if started is None else started.retry_of)
    if kind in MAILED:
        await case.queue_mail(planned, _reminder(case, planned, judged), now)
    _STEPS.labels(kind.value, outcome).inc()
    log.info(
        "dunning.step", tenant=invoice.tenant_id, invoice=invoice.invoice_id, step=planned.step.name, outcome=outcome,
        amount_open=str(invoice.amount_open),
    )  # fmt: skip
    return started


async def _charge(
    case: OpenCase, started: StartedRetry, book: DunningBook, charge_again: ChargeAgain, clock: Clock
) -> None:
    invoice = case.invoice
    try:
        payment = await charge_again(invoice, started.retry_of)
    except UnavailableError as error:
        # The step stays begun: whoever looks after the hold is over asks again, for the same attempt.
        log.warning("dunning.retry_unknown", invoice=invoice.invoice_id, step=started.name, error=str(error)[:300])
        return
    except (InvalidInputError, ConflictError) as refused:
        code = refused.faults[0].code if isinstance(refused, InvalidInputError) else refused.code
        log.error("dunning.retry_refused", invoice=invoice.invoice_id, step=started.name, error=str(refused)[:300])
        await book.finish_retry(invoice.invoice_id, started.name, code, None, clock.now())
        return
    outcome = "nothing_due" if payment is None else payment.status.value
    payment_id = None if payment is None else payment.payment_id
    await book.finish_retry(invoice.invoice_id, started.name, outcome, payment_id, clock.now())


def _look_at(case: OpenCase, judged: Case) -> datetime | None:
    """A pause that ends by itself is a reason to look."""
    if judged.waits_for == "paused" and (until := case.standing.paused_until) is not None:
        return until if judged.look_at is None else min(judged.look_at, until)
    return judged.look_at


def _reminder(case: OpenCase, planned: PlannedStep, judged: Case) -> Reminder:
    invoice, addressee = case.invoice, case.addressee
    ahead = [one for one in judged.upcoming if one.due_at > planned.due_at]
    announced = StepKind.SUSPENSION if planned.step.kind is StepKind.FINAL_NOTICE else StepKind.RETRY
    next_at = next((one.due_at for one in ahead if one.step.kind is announced), None)
    if announced is StepKind.RETRY and may_retry(invoice):
        next_at = None
    reminder = Reminder(
        kind=planned.step.kind.value,
        language=language_of(addressee.language),
        name=addressee.name,
        email=addressee.email,
        invoice_id=invoice.invoice_id,
        number=invoice.number,
        amount_open=f"{invoice.amount_open:f}",
        currency=invoice.currency,
        due_on=invoice.calendar.local_day(invoice.due_at).isoformat(),
        next_on="" if next_at is None else invoice.calendar.local_day(next_at).isoformat(),
    )
    if invoice.is_charged:
        return reminder
    return replace(reminder, reference=print_reference(creditor_reference(invoice.number)))


def _reason(case: OpenCase, planned: PlannedStep | None) -> str:
    if not case.invoice.is_open:
        return f"{case.invoice.number} is {case.invoice.status}"
    return f"{case.invoice.number}: {planned.step.name if planned else 'the time that has passed'}"
