"""What dunning needs of the outside: its book, somebody who charges again, and a mail server."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Protocol

from payments.domain.payment import Payment
from payments.dunning.domain.case import Stage, UnpaidInvoice
from payments.dunning.domain.reminder import Reminder
from payments.dunning.domain.schedule import DoneStep, PlannedStep

# Of a retry's outcome, until it is finished; and how long nobody else takes it over: longer than any provider's call.
STARTED = "started"
HELD_FOR = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class StartedRetry:
    """A retry that was begun and not finished; whoever began it works on it until `held_until`."""

    name: str
    retry_of: str
    held_until: datetime


@dataclass(frozen=True, slots=True)
class Addressee:
    """Who gets the mails."""

    name: str
    email: str
    language: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How an account stands, and since when; `paused_until` None with a `paused_at` is until somebody resumes it."""

    stage: Stage
    since: datetime | None
    paused_at: datetime | None = None
    paused_until: datetime | None = None
    pause_reason: str = ""
    paused_by: str = ""

    def is_paused(self, now: datetime) -> bool:
        """Tell whether no step is taken at an instant."""
        return self.paused_at is not None and (self.paused_until is None or now < self.paused_until)


class OpenCase(Protocol):
    """One invoice, locked: nobody settles or duns it until the transaction ends."""

    invoice: UnpaidInvoice
    done: Sequence[DoneStep]
    started: StartedRetry | None
    addressee: Addressee
    standing: Standing

    async def note(self, stage: Stage, waits_for: str, look_at: datetime | None, now: datetime) -> None:
        """Write down how far it has come with the invoice, and when to look again."""
        ...

    async def take(self, planned: PlannedStep, outcome: str, now: datetime, *, retry_of: str | None = None) -> None:
        """Write a step down as taken; a retry that is `started` is held by whoever calls."""
        ...

    async def hold(self, started: StartedRetry, now: datetime) -> None:
        """Take over a retry that somebody began and left."""
        ...

    async def queue_mail(self, planned: PlannedStep, reminder: Reminder, now: datetime) -> None:
        """Put the step's mail where it waits to be sent."""
        ...

    async def change_standing(self, now: datetime, reason: str) -> tuple[Stage, Stage]:
        """Set the account to the worst of its open invoices, with its history and its announcement.

        Returns the stage before and after.
        """
        ...


class DunningBook(Protocol):
    """The truth of dunning."""

    async def due(self, now: datetime, ahead: timedelta, limit: int) -> Sequence[str]:
        """Return the ids of invoices to look at now; those due within `ahead` may never have been looked at."""
        ...

    def open_case(self, invoice_id: str) -> AbstractAsyncContextManager[OpenCase | None]:
        """Lock an invoice; None if it is unknown, or somebody else is at it just now."""
        ...

    async def finish_retry(
        self, invoice_id: str, name: str, outcome: str, payment_id: str | None, now: datetime
    ) -> None:
        """Write down what came of a retry."""
        ...


class ChargeAgain(Protocol):
    """Charges what is open of an invoice whose last charge failed."""

    async def __call__(self, invoice: UnpaidInvoice, retry_of: str) -> Payment | None:
        """Return the attempt that follows `retry_of`, opened once however often it is asked for.

        Raises `UnavailableError` while its outcome is unknown: ask again.
        """
        ...


class Answer(Enum):
    """What became of one try to send a mail."""

    SENT = "sent"
    UNAVAILABLE = "unavailable"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class WaitingMail:
    """A mail that is due; `created_at` is when its step was taken."""

    message_id: str
    invoice_id: str
    reminder: Reminder
    attempts: int
    created_at: datetime
    # Whether the invoice is still open: nobody is reminded of what is paid.
    is_wanted: bool


class HeldMail(Protocol):
    """A mail that nobody else sends meanwhile."""

    mail: WaitingMail

    async def record(self, status: str, next_attempt_at: datetime, error: str, now: datetime) -> None:
        """Write down what became of the try."""
        ...


class MailQueue(Protocol):
    """Where mails wait until they are sent."""

    def hold_due(self, now: datetime) -> AbstractAsyncContextManager[HeldMail | None]:
        """Hold the most overdue mail, None if none is due."""
        ...


class MailServer(Protocol):
    """Takes a mail."""

    async def send(self, message: Any) -> tuple[Answer, str]:
        """Send an `EmailMessage` once and say what became of it, with the server's words."""
        ...
