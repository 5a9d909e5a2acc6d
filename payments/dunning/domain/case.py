"""One unpaid invoice under dunning: what is to be done about it now. Owns lanes, stages, and when to look again. Pure.

current ──> grace ──> past_due ──> suspended ──> collected      an account is as its worst invoice
   ^          │          │             │             │
   └──────────┴──────────┴─────────────┴─────────────┘          paid, voided or written off
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from core.calendar import Calendar
from payments.domain.payment import PaymentStatus
from payments.dunning.domain.decline import UNKNOWN_TRIES_MAX, Lane, is_unknown, lane_of
from payments.dunning.domain.schedule import (
    Anchor,
    DoneStep,
    PlannedStep,
    Schedule,
    Schedules,
    Step,
    StepKind,
    plan_steps,
)

_OPEN = frozenset({PaymentStatus.PENDING, PaymentStatus.PROCESSING, PaymentStatus.REQUIRES_ACTION})
_FAILED = frozenset({PaymentStatus.FAILED, PaymentStatus.CANCELED})
_PAYABLE = frozenset({"finalized", "overdue"})
WIRE = "wire"
NO_PROVIDER = "none"


class Stage(StrEnum):
    """How far it has come with an invoice, and so with an account; in order of severity."""

    CURRENT = "current"
    GRACE = "grace"
    PAST_DUE = "past_due"
    SUSPENDED = "suspended"
    COLLECTED = "collected"

    @property
    def is_shut_out(self) -> bool:
        """Whether the account may not be used."""
        return self in {Stage.SUSPENDED, Stage.COLLECTED}


SEVERITY = {stage: place for place, stage in enumerate(Stage)}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One payment of an invoice; `changed_at` is when it came to its status."""

    payment_id: str
    attempt: int
    provider: str
    status: PaymentStatus
    code: str | None
    reason: str | None
    created_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class UnpaidInvoice:
    """An invoice and all that decides about it. `method_saved_at` is None where there is nothing to charge."""

    invoice_id: str
    number: str
    tenant_id: str
    tier: str
    status: str
    currency: str
    amount_open: Decimal
    issued_at: datetime
    due_at: datetime
    calendar: Calendar
    attempts: tuple[Attempt, ...] = ()
    method_saved_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether money is owed on it."""
        return self.status in _PAYABLE and self.amount_open > 0

    @property
    def charges(self) -> list[Attempt]:
        """The attempts to charge, oldest first; what came by bank is none."""
        return sorted((one for one in self.attempts if one.provider != WIRE), key=lambda one: one.attempt)

    @property
    def is_charged(self) -> bool:
        """Whether it is paid by charging a saved method, now or when it was tried."""
        return self.method_saved_at is not None or any(one.provider != NO_PROVIDER for one in self.charges)

    @property
    def failed_at(self) -> datetime | None:
        """When the first charge failed."""
        failed = [one for one in self.charges if one.status in _FAILED and one.provider != NO_PROVIDER]
        return min((one.changed_at for one in failed), default=None)

    @property
    def under_way(self) -> bool:
        """Whether a charge may still succeed: at the provider, or with its payer."""
        return any(one.status in _OPEN for one in self.charges)

    @property
    def due_day_ends_at(self) -> datetime:
        """From when on it is overdue: the end of the local day on which it is due."""
        return self.calendar.day_of(self.due_at).end


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be done: `step` is due now, if it is not None; `look_at` is when to look again at the latest.

    `waits_for` says why nothing is done although something would be due.
    """

    stage: Stage
    step: PlannedStep | None
    upcoming: tuple[PlannedStep, ...]
    look_at: datetime | None
    waits_for: str = ""


def judge(
    invoice: UnpaidInvoice, schedules: Schedules, done: Sequence[DoneStep], now: datetime, *, is_paused: bool = False
) -> Case:
    """Return what is to be done about an invoice now; nothing of one that is not open any more."""
    if not invoice.is_open:
        return Case(Stage.CURRENT, None, (), None)
    schedule = schedules.for_tier(invoice.tier, is_charged=invoice.is_charged)
    stage = stage_of(invoice, schedule, done, now)
    planned = plan_steps(
        schedule, calendar=invoice.calendar, due_at=invoice.due_at, failed_at=invoice.failed_at, done=done
    )
    if (again := _with_new_method(invoice, done)) is not None:
        planned.insert(0, again)
    changes = [at for at in _stage_changes(invoice, schedule) if at > now]
    if is_paused:
        return Case(stage, None, tuple(planned), min(changes, default=None), "paused")
    if invoice.under_way:
        # The money may be on its way, or its payer before the bank's page: nobody is told off meanwhile.
        return Case(stage, None, tuple(planned), min(changes, default=None), "payment_under_way")
    due = [one for one in planned if one.due_at <= now]
    later = [one.due_at for one in planned if one.due_at > now]
    look_at = now if due else min([*changes, *later], default=None)
    return Case(stage, due[0] if due else None, tuple(planned), look_at)


def stage_of(invoice: UnpaidInvoice, schedule: Schedule, done: Iterable[DoneStep], now: datetime) -> Stage:
    """Return how far it has come with an open invoice."""
    kinds = {step.name: step.kind for step in schedule.steps}
    # The kind stands in the name, so that a step of a schedule that has changed since still counts.
    taken = {kinds.get(one.name) or StepKind(one.name.partition("-")[0]) for one in done}
    if StepKind.COLLECTION in taken:
        return Stage.COLLECTED
    if StepKind.SUSPENSION in taken:
        return Stage.SUSPENDED
    if now >= invoice.due_day_ends_at + timedelta(days=schedule.grace_days):
        return Stage.PAST_DUE
    if now >= invoice.due_day_ends_at or invoice.failed_at is not None:
        return Stage.GRACE
    return Stage.CURRENT


def may_retry(invoice: UnpaidInvoice) -> str:
    """Return why the last charge is not tried again now, "" if it may be.

    A hard decline, or an account without a method, waits for another method; what needs its payer has a lane of its own
    and is tried again by the schedule, which asks the payer once more. A code that no provider's page names is tried a
    bounded number of times.
    """
    charges = invoice.charges
    if invoice.method_saved_at is None:
        return "no_method"
    if not charges:
        return ""
    last = charges[-1]
    if last.status not in _FAILED:
        return "under_way"
    if invoice.method_saved_at > last.created_at:
        return ""
    if lane_of(last.code, last.reason) is Lane.HARD:
        return "hard_decline"
    is_used_up = len(charges) >= UNKNOWN_TRIES_MAX and is_unknown(last.code, last.reason)
    return "unknown_decline" if is_used_up else ""


def _with_new_method(invoice: UnpaidInvoice, done: Sequence[DoneStep]) -> PlannedStep | None:
    """Return the retry that a newly saved method is a reason for, at once and once per failed charge."""
    charges, saved_at = invoice.charges, invoice.method_saved_at
    if not charges or charges[-1].status not in _FAILED or saved_at is None or saved_at <= charges[-1].created_at:
        return None
    step = Step(f"retry-method-{charges[-1].attempt}", StepKind.RETRY, Anchor.FAILURE, 0)
    if step.name in {one.name for one in done}:
        return None
    return PlannedStep(step, max(saved_at, charges[-1].changed_at))


def _stage_changes(invoice: UnpaidInvoice, schedule: Schedule) -> list[datetime]:
    overdue_at = invoice.due_day_ends_at
    return [overdue_at, overdue_at + timedelta(days=schedule.grace_days)]


def worst(stages: Iterable[Stage]) -> Stage:
    """Return the stage of an account with invoices in these stages."""
    return max(stages, key=SEVERITY.__getitem__, default=Stage.CURRENT)
