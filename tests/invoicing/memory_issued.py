"""The life of issued documents in memory; passes the same contract tests as PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.period import Period
from invoicing.domain.invoice import DocumentKind, Draft, Invoice, Origin
from invoicing.domain.lines import Billed, BilledLine, Line, bill_up
from invoicing.domain.standing import Application, Standing


@dataclass
class IssuedState:
    """What becomes of documents; `in_flight` are invoices whose payment is under way."""

    invoices: list[Invoice] = field(default_factory=list)
    standings: dict[str, Standing] = field(default_factory=dict)
    drafts: dict[str, Draft] = field(default_factory=dict)
    applications: list[tuple[str, Application]] = field(default_factory=list)
    voided: list[str] = field(default_factory=list)

    def add(self, invoice: Invoice) -> None:
        draft = invoice.draft
        standing = self.standings.get(draft.invoice_id)
        assert standing is None, "a document is stored once"
        numbers = {one.number for one in self.standings.values()}
        assert invoice.number not in numbers, "a number is used once"
        self.invoices.append(invoice)
        self.standings[draft.invoice_id] = Standing(
            invoice_id=draft.invoice_id,
            number=invoice.number,
            tenant_id=invoice.tenant_id,
            subscription_id=draft.subscription_id,
            kind=invoice.kind,
            origin=invoice.origin,
            status=invoice.status,
            currency=draft.currency,
            period=draft.period,
            sequence=draft.sequence,
            subtotal=invoice.total - invoice.tax,
            tax=invoice.tax,
            total=invoice.total,
            credits_applied=invoice.credits_applied,
            issued_at=invoice.issued_at,
            reason=invoice.reason,
            replaces=invoice.replaces,
            asked_sha256=invoice.asked_sha256,
        )

    def counting(self) -> list[Invoice]:
        """Return the documents that count, by issue."""
        return [one for one in self.invoices if self.standings[one.draft.invoice_id].status != "void"]

    def rows(self, subscription_id: str | None) -> Iterator[BilledLine]:
        """Yield the lines that count of a subscription, by issue."""
        return (row for owner, row in rows_of(self.counting()) if owner == subscription_id)

    def pay(self, invoice_id: str, amount: Decimal) -> None:
        """Let money come in."""
        standing = self.standings[invoice_id]
        paid = replace(standing, amount_paid=standing.amount_paid + amount, in_flight=False)
        assert paid.amount_open >= 0
        self.standings[invoice_id] = replace(paid, status="paid") if not paid.amount_open else paid


def rows_of(invoices: Iterable[Invoice]) -> Iterator[tuple[str | None, BilledLine]]:
    for one in invoices:
        for line in one.draft.lines:
            owner = line.subscription_id or one.draft.subscription_id
            yield owner, BilledLine(one.draft.invoice_id, one.number, line)


class MemoryIssued:
    """`IssuedDocuments` of one tenant."""

    def __init__(self, state: IssuedState, tenant_id: str) -> None:
        self._state, self._tenant_id = state, tenant_id

    async def lock(self, reference: str) -> Standing | None:
        for one in self._own():
            if reference in (one.invoice_id, one.number):
                return one
        return None

    async def invoices(self, subscription_id: str | None) -> list[Standing]:
        return [
            one
            for one in self._own()
            if one.kind is DocumentKind.INVOICE and one.status not in ("draft", "void")
            if subscription_id in self._owners(one)
        ]

    async def lines(self, invoice_id: str) -> list[Line]:
        if invoice_id in self._state.drafts:
            return list(self._state.drafts[invoice_id].lines)
        return [line for one in self._state.invoices if one.draft.invoice_id == invoice_id for line in one.draft.lines]

    async def snapshot(self, invoice_id: str) -> Mapping[str, Any]:
        return next(one.snapshot for one in self._state.invoices if one.draft.invoice_id == invoice_id)

    async def next_sequence(self, subscription_id: str | None, period: Period) -> int:
        sequences = [
            one.sequence
            for one in self._state.standings.values()
            if subscription_id is not None
            and one.subscription_id == subscription_id
            and one.period.start == period.start
        ]
        return max(sequences, default=0) + 1

    async def billed_with(self, invoice_id: str) -> dict[str, Billed]:
        rows = [row for _, row in rows_of(self._state.counting())]
        keys = {row.line.item_key for row in rows if invoice_id in (row.invoice_id, row.line.corrects_invoice)}
        return bill_up(row for row in rows if row.line.item_key in keys)

    async def corrected_by(self, invoice_id: str) -> list[Standing]:
        return [
            self._state.standings[one.draft.invoice_id]
            for one in self._state.counting()
            if any(line.corrects_invoice == invoice_id for line in one.draft.lines)
        ]

    async def replacement_of(self, invoice_id: str) -> list[Standing]:
        return [one for one in self._own() if one.replaces == invoice_id]

    async def returned_by(self, invoice_id: str) -> list[str]:
        return [note for note, one in self._state.applications if one.invoice_id == invoice_id and one.credits_returned]

    async def apply(self, credit_note_id: str, application: Application, at: datetime) -> None:
        before = self._state.standings[application.invoice_id]
        pairs = {(note, one.invoice_id) for note, one in self._state.applications}
        assert (credit_note_id, application.invoice_id) not in pairs
        after = replace(
            before,
            amount_credited=before.amount_credited + application.amount,
            credits_returned=before.credits_returned + application.credits_returned,
            credit_granted=before.credit_granted + application.credit_granted,
        )
        if after.status in ("finalized", "overdue") and not after.amount_open:
            after = replace(after, status="paid")
        assert after.creditable >= 0
        self._state.standings[application.invoice_id] = after
        self._state.applications.append((credit_note_id, application))

    async def close(self, invoice_id: str, status: str, *, reason: str, at: datetime) -> None:
        before = self._state.standings[invoice_id]
        self._state.standings[invoice_id] = replace(before, status=status, reason=reason)

    async def announce_void(self, standing: Standing, at: datetime) -> None:
        self._state.voided.append(standing.invoice_id)

    async def put_draft(self, draft: Draft, finalize_at: datetime, now: datetime) -> None:
        assert draft.invoice_id not in {one.draft.invoice_id for one in self._state.invoices}
        total = draft.total
        self._state.drafts[draft.invoice_id] = draft
        self._state.standings[draft.invoice_id] = Standing(
            invoice_id=draft.invoice_id,
            number=None,
            tenant_id=self._tenant_id,
            subscription_id=draft.subscription_id,
            kind=DocumentKind.INVOICE if total >= 0 else DocumentKind.CREDIT_NOTE,
            origin=Origin.PERIOD,
            status="draft",
            currency=draft.currency,
            period=draft.period,
            sequence=draft.sequence,
            subtotal=draft.subtotal,
            tax=draft.tax,
            total=total,
            finalize_at=finalize_at,
        )

    async def drafts(self, subscription_id: str, period: Period) -> list[Standing]:
        return [
            one
            for one in self._own()
            if one.status == "draft" and one.subscription_id == subscription_id and one.period == period
        ]

    async def drop_draft(self, invoice_id: str) -> None:
        if self._state.drafts.pop(invoice_id, None) is not None:
            del self._state.standings[invoice_id]

    def _own(self) -> list[Standing]:
        return [one for one in self._state.standings.values() if one.tenant_id == self._tenant_id]

    def _owners(self, standing: Standing) -> set[str | None]:
        lines = next(one.draft.lines for one in self._state.invoices if one.draft.invoice_id == standing.invoice_id)
        return {standing.subscription_id, *(line.subscription_id for line in lines if line.subscription_id)}
