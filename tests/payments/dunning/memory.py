"""Dunning's ports in memory, and a provider that answers as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from core.money import Money
from payments.domain.payment import Payment, PaymentStatus, payment_id_of
from payments.dunning.domain.case import Attempt, Stage, UnpaidInvoice, worst
from payments.dunning.domain.reminder import Reminder
from payments.dunning.domain.schedule import DoneStep, PlannedStep
from payments.dunning.ports import HELD_FOR, STARTED, Addressee, Standing, StartedRetry


@dataclass
class Looked:
    """A case as the book has it."""

    stage: Stage
    waits_for: str
    look_at: datetime | None
    is_open: bool


@dataclass
class Taken:
    """A step as the book has it."""

    planned: PlannedStep
    done_at: datetime
    outcome: str
    retry_of: str | None = None
    held_until: datetime | None = None


@dataclass
class MemoryDunning:
    """`DunningBook`: looks at everything each time."""

    invoices: dict[str, UnpaidInvoice] = field(default_factory=dict)
    cases: dict[str, Looked] = field(default_factory=dict)
    steps: dict[str, dict[str, Taken]] = field(default_factory=dict)
    mails: list[tuple[str, Reminder, datetime]] = field(default_factory=list)
    stages: dict[str, Stage] = field(default_factory=dict)
    history: list[tuple[str, Stage, Stage, datetime]] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    paused: set[str] = field(default_factory=set)

    async def due(self, now: datetime, ahead: timedelta, limit: int) -> Sequence[str]:
        return list(self.invoices)[:limit]

    @asynccontextmanager
    async def open_case(self, invoice_id: str) -> AsyncIterator[MemoryCase | None]:
        yield MemoryCase(self, self.invoices[invoice_id]) if invoice_id in self.invoices else None

    async def finish_retry(
        self, invoice_id: str, name: str, outcome: str, payment_id: str | None, now: datetime
    ) -> None:
        taken = self.steps[invoice_id][name]
        assert taken.outcome == STARTED, "a retry is finished once"
        taken.outcome, taken.held_until = outcome, None


class MemoryCase:
    def __init__(self, book: MemoryDunning, invoice: UnpaidInvoice) -> None:
        self._book, self.invoice = book, invoice
        steps = book.steps.setdefault(invoice.invoice_id, {})
        ordered = sorted(steps.items(), key=lambda one: one[1].done_at)
        self.done = [DoneStep(name, one.planned.due_at, one.done_at) for name, one in ordered]
        begun = [(name, one) for name, one in steps.items() if one.outcome == STARTED]
        self.started = None
        for name, one in begun:
            assert one.retry_of is not None
            assert one.held_until is not None
            self.started = StartedRetry(name, one.retry_of, one.held_until)
        self.addressee = Addressee("Acme", "pay@acme.example", "de")
        is_paused = invoice.tenant_id in book.paused
        self.standing = Standing(
            book.stages.get(invoice.tenant_id, Stage.CURRENT), None, invoice.issued_at if is_paused else None
        )

    async def note(self, stage: Stage, waits_for: str, look_at: datetime | None, now: datetime) -> None:
        self._book.cases[self.invoice.invoice_id] = Looked(stage, waits_for, look_at, self.invoice.is_open)

    async def take(self, planned: PlannedStep, outcome: str, now: datetime, *, retry_of: str | None = None) -> None:
        steps = self._book.steps[self.invoice.invoice_id]
        assert planned.step.name not in steps, f"{planned.step.name} is taken twice"
        held_until = now + HELD_FOR if outcome == STARTED else None
        steps[planned.step.name] = Taken(planned, now, outcome, retry_of, held_until)

    async def hold(self, started: StartedRetry, now: datetime) -> None:
        self._book.steps[self.invoice.invoice_id][started.name].held_until = now + HELD_FOR

    async def queue_mail(self, planned: PlannedStep, reminder: Reminder, now: datetime) -> None:
        self._book.mails.append((planned.step.name, reminder, now))

    async def change_standing(self, now: datetime, reason: str) -> tuple[Stage, Stage]:
        book, tenant = self._book, self.invoice.tenant_id
        before = book.stages.get(tenant, Stage.CURRENT)
        own = [
            case.stage for name, case in book.cases.items() if case.is_open and book.invoices[name].tenant_id == tenant
        ]
        stage = worst(own)
        if stage is not before:
            book.stages[tenant] = stage
            book.history.append((tenant, before, stage, now))
            if stage.is_shut_out is not before.is_shut_out:
                book.events.append((tenant, "account.suspended" if stage.is_shut_out else "account.restored"))
        return before, stage


@dataclass
class Provider:
    """`ChargeAgain`: opens the attempt after the failed one, once, and answers with what was put up."""

    book: MemoryDunning
    now: datetime
    answers: list[tuple[PaymentStatus, str]] = field(default_factory=list)
    charged: list[tuple[str, Decimal]] = field(default_factory=list)

    async def __call__(self, invoice: UnpaidInvoice, retry_of: str) -> Payment | None:
        known = self.book.invoices[invoice.invoice_id]
        last = known.charges[-1]
        if last.payment_id != retry_of:
            return payment_of(known, last)
        status, code = self.answers.pop(0) if self.answers else (PaymentStatus.FAILED, "insufficient_funds")
        attempt = attempt_of(known, status, code, self.now)
        self.book.invoices[known.invoice_id] = replace(known, attempts=(*known.attempts, attempt))
        self.charged.append((attempt.payment_id, known.amount_open))
        return payment_of(known, attempt)


def attempt_of(
    invoice: UnpaidInvoice, status: PaymentStatus, code: str, now: datetime, provider: str = "stripe"
) -> Attempt:
    number = len(invoice.attempts) + 1
    payment_id = payment_id_of(invoice.invoice_id, number)
    given = code if status in {PaymentStatus.FAILED, PaymentStatus.CANCELED} else None
    return Attempt(payment_id, number, provider, status, given, None, now, now)


def payment_of(invoice: UnpaidInvoice, attempt: Attempt) -> Payment:
    amount = Money(invoice.amount_open, invoice.currency)
    return Payment(
        attempt.payment_id, invoice.invoice_id, invoice.tenant_id, attempt.attempt, attempt.provider, amount,
        attempt.created_at, attempt.status,
    )  # fmt: skip
