"""Ports of documents in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from invoicing.adapters.facturx import EInvoice
from invoicing.document_ports import DocumentDelivery, Resend
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
        self.replaced: list[Document] = []
        # By document, address and the wish to send it once more.
        self.rows: dict[tuple[str, ...], dict[str, Any]] = {}

    async def snapshot(self, invoice_id: str) -> StoredSnapshot | None:
        return self.snapshots.get(invoice_id)

    async def documents(self, invoice_id: str) -> dict[str, Document]:
        return dict(self.recorded.get(invoice_id, {}))

    async def record(self, documents: Sequence[Document], *, send_to: str | None, now: datetime) -> None:
        for document in documents:
            before = self.recorded.get(document.invoice_id, {}).get(document.media_type)
            if before is not None and before.sha256 != document.sha256:
                self.replaced.append(before)
            self.recorded.setdefault(document.invoice_id, {})[document.media_type] = document
        if send_to is not None:
            self.rows.setdefault((documents[0].invoice_id, send_to), _pending(now))

    async def find(self, reference: str) -> StoredSnapshot | None:
        found = (one for one in self.snapshots.values() if reference in (one.invoice_id, one.number))
        return next(found, None)

    async def add_resend(self, resend_id: str, invoice_id: str, address: str, now: datetime) -> Resend:
        key = next((key for key in self.rows if key[2:] == (resend_id,)), (invoice_id, address, resend_id))
        row = self.rows.setdefault(key, _pending(now))
        return Resend(
            resend_id,
            invoice_id,
            key[1],
            row["status"],
            row["attempts"],
            row["created_at"],
            row["sent_at"],
            row["error"],
        )

    @asynccontextmanager
    async def hold_due(self, now: datetime) -> AsyncIterator[MemoryHeld | None]:
        due = [key for key, row in self.rows.items() if row["status"] == "pending" and row["due"] <= now]
        key = min(due, key=lambda one: (len(one), self.rows[one]["due"]), default=None)
        yield None if key is None else MemoryHeld(self, key)


def _pending(now: datetime) -> dict[str, Any]:
    return {"status": "pending", "attempts": 0, "due": now, "error": "", "created_at": now, "sent_at": None}


class MemoryHeld:
    """A held delivery."""

    def __init__(self, documents: MemoryDocuments, key: tuple[str, ...]) -> None:
        self._documents, self._key = documents, key

    @property
    def delivery(self) -> DocumentDelivery:
        invoice_id, address, *resend = self._key
        row, stored = self._documents.rows[self._key], self._documents.snapshots[invoice_id]
        recorded = self._documents.recorded[invoice_id]
        return DocumentDelivery(
            invoice_id, address, row["attempts"], row["created_at"], stored.status, stored.snapshot, recorded,
            "".join(resend),
        )  # fmt: skip

    async def record(self, plan: Plan, *, error: str, now: datetime) -> None:
        row = self._documents.rows[self._key]
        row |= {"status": plan.status, "due": plan.next_attempt_at, "error": error, "attempts": row["attempts"] + 1}
        row["sent_at"] = now if plan.status == "sent" else None


class CountingRenderer:
    """Stands for the workers; counts how often it was asked, and fails when it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.failure = ""
        self.edition = ""
        self.refusal = ""

    async def __call__(self, snapshot: Mapping[str, Any], mark: Mark = "") -> Rendered:
        self.calls += 1
        if self.failure:
            raise RenderingFailedError(self.failure)
        pdf = f"%PDF {mark} of {snapshot['invoice']['number']}".replace("  ", " ") + self.edition
        refusal = "marked" if mark else self.refusal
        return Rendered(pdf.encode(), None if refusal else EInvoice(b"<cii/>", b"<ubl/>"), refusal)


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
