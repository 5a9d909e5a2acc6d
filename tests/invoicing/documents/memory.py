"""Ports of documents in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from invoicing.adapters.facturx import EInvoice
from invoicing.document_ports import DocumentDelivery
from invoicing.domain.delivery import Answer, Attempt, Plan
from invoicing.domain.document import Mark
from invoicing.domain.invoice_mail import InvoiceMail
from invoicing.ports import Document, StoredSnapshot
from invoicing.render_document import Rendered
from invoicing.render_invoice import RenderingFailedError


class MemoryDocuments:
    """`DocumentRegister` and `DocumentDeliveries`; the rows of deliveries can be looked at."""

    def __init__(self, *snapshots: StoredSnapshot) -> None:
        self.snapshots = {snapshot.invoice_id: snapshot for snapshot in snapshots}
        self.recorded: dict[str, dict[str, Document]] = {}
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}

    async def snapshot(self, invoice_id: str) -> StoredSnapshot | None:
        return self.snapshots.get(invoice_id)

    async def documents(self, invoice_id: str) -> dict[str, Document]:
        return dict(self.recorded.get(invoice_id, {}))

    async def record(self, documents: Sequence[Document], *, send_to: str | None, now: datetime) -> None:
        for document in documents:
            self.recorded.setdefault(document.invoice_id, {})[document.media_type] = document
        if send_to is not None:
            new = {"status": "pending", "attempts": 0, "due": now, "error": "", "created_at": now}
            self.rows.setdefault((documents[0].invoice_id, send_to), new)

    @asynccontextmanager
    async def hold_due(self, now: datetime) -> AsyncIterator[MemoryHeld | None]:
        due = [key for key, row in self.rows.items() if row["status"] == "pending" and row["due"] <= now]
        key = min(due, key=lambda one: self.rows[one]["due"], default=None)
        yield None if key is None else MemoryHeld(self, key)


class MemoryHeld:
    """A held delivery."""

    def __init__(self, documents: MemoryDocuments, key: tuple[str, str]) -> None:
        self._documents, self._key = documents, key

    @property
    def delivery(self) -> DocumentDelivery:
        invoice_id, address = self._key
        row, stored = self._documents.rows[self._key], self._documents.snapshots[invoice_id]
        recorded = self._documents.recorded[invoice_id]
        return DocumentDelivery(
            invoice_id, address, row["attempts"], row["created_at"], stored.status, stored.snapshot, recorded
        )

    async def record(self, plan: Plan, *, error: str, now: datetime) -> None:
        row = self._documents.rows[self._key]
        row |= {"status": plan.status, "due": plan.next_attempt_at, "error": error, "attempts": row["attempts"] + 1}


class CountingRenderer:
    """Stands for the workers; counts how often it was asked, and fails when it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.failure = ""

    async def __call__(self, snapshot: Mapping[str, Any], mark: Mark = "") -> Rendered:
        self.calls += 1
        if self.failure:
            raise RenderingFailedError(self.failure)
        pdf = f"%PDF {mark} of {snapshot['invoice']['number']}".replace("  ", " ").encode()
        return Rendered(pdf, None if mark else EInvoice(b"<cii/>", b"<ubl/>"), "marked" if mark else "")


class ListeningMailer:
    """A `Mailer` that answers as it is told."""

    def __init__(self) -> None:
        self.mails: list[InvoiceMail] = []
        self.answers: list[Attempt] = []

    async def send(self, mail: InvoiceMail) -> Attempt:
        self.mails.append(mail)
        return self.answers.pop(0) if self.answers else Attempt(Answer.SENT)


def void(stored: StoredSnapshot) -> StoredSnapshot:
    """The same of an invoice that was taken back."""
    return replace(stored, status="void")
