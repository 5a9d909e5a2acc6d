"""What documents need from the outside: where their snapshots are recorded, where bytes are kept, who carries mail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from invoicing.domain.delivery import Attempt, Plan
from invoicing.domain.invoice_mail import InvoiceMail
from invoicing.ports import Document, StoredSnapshot


class DocumentStore(Protocol):
    """Where rendered documents are kept."""

    async def write(self, name: str, content: bytes) -> str:
        """Keep the bytes under a name such as `acme/MB-2026-000001.pdf`, durably; returns the location."""
        ...

    async def read(self, location: str) -> bytes | None:
        """Return the bytes of a location of this store; None for any other, and where nothing is."""
        ...


class DocumentRegister(Protocol):
    """Snapshots and the documents made from them."""

    async def snapshot(self, invoice_id: str) -> StoredSnapshot | None:
        """Return an invoice's snapshot with the invoice's status, None if there is no such invoice."""
        ...

    async def documents(self, invoice_id: str) -> dict[str, Document]:
        """Return what was rendered before, by media type."""
        ...

    async def record(self, documents: Sequence[Document], *, send_to: str | None, now: datetime) -> None:
        """Record documents of one invoice, and once that they are to be sent to an address, in one transaction.

        What was recorded before with other bytes is kept beside.
        """
        ...


@dataclass(frozen=True, slots=True)
class DocumentDelivery:
    """A document on its way. `attempts` counts those before; `created_at` is when it was first to be sent.

    `resend_id` is "" for the first delivery, else names the wish to have it sent once more.
    """

    invoice_id: str
    address: str
    attempts: int
    created_at: datetime
    status: str
    snapshot: Mapping[str, Any]
    documents: Mapping[str, Document]
    resend_id: str = ""


@dataclass(frozen=True, slots=True)
class Resend:
    """A wish to have a document sent once more, and what became of it."""

    resend_id: str
    invoice_id: str
    address: str
    status: str
    attempts: int
    created_at: datetime
    sent_at: datetime | None = None
    last_error: str = ""


class Resends(Protocol):
    """Wishes to have documents sent once more."""

    async def find(self, reference: str) -> StoredSnapshot | None:
        """Return an issued document by its number or id, with the invoice's status."""
        ...

    async def add_resend(self, resend_id: str, invoice_id: str, address: str, now: datetime) -> Resend:
        """Write the wish down, to be sent soon, and return it; one that is there stays as it is and is returned."""
        ...


class HeldDelivery(Protocol):
    """A delivery that nobody else tries."""

    @property
    def delivery(self) -> DocumentDelivery:
        """The delivery as it stands."""
        ...

    async def record(self, plan: Plan, *, error: str, now: datetime) -> None:
        """Write down what became of the try."""
        ...


class DocumentDeliveries(Protocol):
    """Deliveries of documents."""

    def hold_due(self, now: datetime) -> AbstractAsyncContextManager[HeldDelivery | None]:
        """Hold the most overdue delivery until the block ends; None if none is due."""
        ...


class Mailer(Protocol):
    """Who carries mail."""

    async def send(self, mail: InvoiceMail) -> Attempt:
        """Send a mail once."""
        ...
