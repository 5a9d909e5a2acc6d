"""Issued documents as rows: written whole and announced, one or many in a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog
from psycopg.types.json import Jsonb

from core.ids import derive_id
from core.messages import InvoiceFinalized, encode_message
from core.period import format_instant
from core.topics import INVOICE_FINALIZED
from invoicing.adapters.stored_lines import write_lines
from invoicing.adapters.stored_tax import write_taxes
from invoicing.domain.invoice import DocumentKind, Invoice
from invoicing.domain.snapshot import money_text
from runtime.outbox import Event, append_events
from runtime.postgres import Connection

_COPY = """
COPY invoices (invoice_id, tenant_id, subscription_id, period_start, period_end, sequence, status, number, currency,
    subtotal, tax, total, credits_applied, issued_at, due_at, paid_at, snapshot, snapshot_sha256, engine_version,
    exchange_rate, exchange_currency, exchange_date, exchange_tax, kind, origin, reason, replaces, asked_sha256)
FROM STDIN
"""

_TAKE = """
INSERT INTO invoice_series (series, next_number) VALUES (%(series)s, 1 + %(count)s)
ON CONFLICT (series) DO UPDATE SET next_number = invoice_series.next_number + %(count)s
RETURNING next_number - %(count)s AS first
"""
log = structlog.get_logger()


async def take_numbers(connection: Connection, series: str, count: int) -> list[int]:
    """Return the next numbers of a series; nobody else takes any until the caller's transaction ends."""
    taken = await connection.execute(_TAKE, {"series": series, "count": count})
    row = await taken.fetchone()
    first = int(row["first"]) if row else 1
    return list(range(first, first + count))


async def write_invoices(connection: Connection, invoices: Sequence[Invoice], now: datetime) -> None:
    """Store issued documents with their lines and taxes and announce them, in the caller's transaction."""
    if not invoices:
        return
    async with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for invoice in invoices:
            await copy.write_row(_row(invoice))
    drafts = [one.draft for one in invoices]
    await write_lines(connection, drafts)
    await write_taxes(connection, drafts)
    await append_events(connection, [_event(one) for one in invoices], now)
    _log(invoices)


def _log(invoices: Sequence[Invoice]) -> None:
    """Say what is issued: a document with its figures, many of a run in one line, for the books have them all."""
    if len(invoices) > 1:
        log.info("invoices.finalized", count=len(invoices), first=invoices[0].number, last=invoices[-1].number)
        return
    (invoice,) = invoices
    log.info(
        "invoice.finalized" if invoice.kind is DocumentKind.INVOICE else "credit_note.issued",
        tenant=invoice.tenant_id,
        number=invoice.number,
        total=str(invoice.total),
        amount_due=str(invoice.amount_due),
    )


def _row(invoice: Invoice) -> tuple[Any, ...]:
    draft, frozen = invoice.draft, invoice.exchange
    return (
        draft.invoice_id,
        invoice.tenant_id,
        draft.subscription_id,
        draft.period.start,
        draft.period.end,
        draft.sequence,
        invoice.status,
        invoice.number,
        draft.currency,
        draft.subtotal,
        invoice.tax,
        invoice.total,
        invoice.credits_applied,
        invoice.issued_at,
        invoice.due_at,
        invoice.issued_at if invoice.status == "paid" else None,
        Jsonb(invoice.snapshot_json, dumps=bytes),
        invoice.snapshot_sha256,
        invoice.engine_version,
        *((frozen.rate, frozen.currency, frozen.published_on, frozen.tax) if frozen else (None,) * 4),
        invoice.kind.value,
        invoice.origin.value,
        invoice.reason,
        invoice.replaces,
        invoice.asked_sha256,
    )


def _event(invoice: Invoice) -> Event:
    draft = invoice.draft
    finalized = InvoiceFinalized(
        invoice_id=draft.invoice_id,
        number=invoice.number,
        tenant_id=invoice.tenant_id,
        currency=draft.currency,
        amount_due=money_text(invoice.amount_due, draft.currency),
        period_start=format_instant(draft.period.start),
        period_end=format_instant(draft.period.end),
        issued_at=format_instant(invoice.issued_at),
        due_at=format_instant(invoice.due_at),
        kind=invoice.kind.value,
    )
    event_id = derive_id("evt", INVOICE_FINALIZED.name, draft.invoice_id)
    return Event(INVOICE_FINALIZED, invoice.tenant_id, event_id, encode_message(finalized))
