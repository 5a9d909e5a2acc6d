"""Invoices as the API shows them, from PostgreSQL and the store of documents. Reads only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from api.ports import Document, DocumentNotReadyError, OnlyADraftError
from core.errors import NotFoundError, UnavailableError
from core.period import format_instant
from runtime.postgres import Connection, Pool

_COLUMNS = """invoice_id, number, tenant_id, subscription_id, status, currency, subtotal, tax, total,
       credits_applied, amount_credited, amount_paid,
       CASE WHEN status IN ('draft', 'void') OR kind = 'credit_note' THEN 0 ELSE amount_due - amount_paid END
         AS amount_due, period_start, period_end, sequence, issued_at, due_at, paid_at, kind, origin, reason, replaces,
       finalize_at"""
# Keyset paging: the page starts after a known invoice, so rows added meanwhile move nothing.
_LIST = f"""
SELECT {_COLUMNS} FROM invoices
WHERE (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s) AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(start)s::timestamptz IS NULL OR (period_start, invoice_id) < (%(start)s, %(after)s))
ORDER BY period_start DESC, invoice_id DESC LIMIT %(limit)s
"""  # noqa: S608 - only constant text is put in
_FIND = f"SELECT {_COLUMNS} FROM invoices WHERE invoice_id = %s"  # noqa: S608 - only constant text is put in
_LINES = """
SELECT position, item_key, charge_id, kind, description, meter_id, dimensions, quantity, unit, unit_amount,
       exact_amount, amount, corrects_invoice, tax_category, tax_rate, tax_amount
FROM invoice_lines WHERE invoice_id = %s ORDER BY position
"""
_TAXES = """
SELECT category, rate, place, kind, base, tax, reason_code, note FROM invoice_taxes WHERE invoice_id = %s
ORDER BY rate DESC, place, category
"""
_DOCUMENT = """
SELECT i.invoice_id, i.number, i.status, d.location, d.sha256
FROM invoices i LEFT JOIN invoice_documents d ON d.invoice_id = i.invoice_id
 AND d.media_type = CASE WHEN i.status = 'void' THEN %(media_type)s || ';mark=void' ELSE %(media_type)s END
WHERE i.invoice_id = %(invoice_id)s
"""
_ENDINGS = {
    "application/pdf": ".pdf",
    "application/xml;syntax=cii": ".cii.xml",
    "application/xml;syntax=ubl": ".ubl.xml",
}
log = structlog.get_logger()


class PostgresInvoices:
    """Implements `api.ports.InvoiceBook`; `read_document` gives the bytes of a location of the store, or None."""

    def __init__(self, pool: Pool, read_document: Callable[[str], Awaitable[bytes | None]]) -> None:
        self._pool, self._read_document = pool, read_document

    async def list_invoices(
        self, *, tenant: str | None, status: str | None, limit: int, starting_after: str | None
    ) -> list[dict[str, Any]]:
        """Return up to `limit` invoices, newest period first."""
        start = None
        async with self._connection() as connection:
            if starting_after is not None:
                row = await (
                    await connection.execute(
                        "SELECT period_start FROM invoices WHERE invoice_id = %s", (starting_after,)
                    )
                ).fetchone()
                if row is None:
                    raise NotFoundError(f"no invoice {starting_after!r} to start after")
                start = row["period_start"]
            values = {"tenant": tenant, "status": status, "start": start, "after": starting_after, "limit": limit}
            rows = await (await connection.execute(_LIST.encode(), values)).fetchall()
        return [_readable(row) for row in rows]

    async def find_invoice(self, invoice_id: str) -> dict[str, Any]:
        """Return an invoice with its lines."""
        async with self._connection() as connection:
            row = await (await connection.execute(_FIND.encode(), (invoice_id,))).fetchone()
            if row is None:
                raise NotFoundError(f"no invoice {invoice_id!r}")
            lines = await (await connection.execute(_LINES, (invoice_id,))).fetchall()
            taxes = await (await connection.execute(_TAXES, (invoice_id,))).fetchall()
        return {
            **_readable(row),
            "taxes": [_readable(tax) for tax in taxes],
            "lines": [_readable(line) for line in lines],
        }

    async def find_document(self, invoice_id: str, media_type: str) -> Document:
        """Return the rendered invoice from the store; of a void one the copy that says so, which has no e-invoice."""
        async with self._connection() as connection:
            row = await (
                await connection.execute(_DOCUMENT, {"media_type": media_type, "invoice_id": invoice_id})
            ).fetchone()
        if row is None:
            raise NotFoundError(f"no invoice {invoice_id!r}")
        if row["status"] == "draft":
            raise OnlyADraftError(f"invoice {invoice_id} is a draft: it has no {media_type} yet")
        if row["location"] is None:
            raise DocumentNotReadyError(f"invoice {invoice_id} is not rendered as {media_type} yet")
        content = await self._read_document(row["location"])
        if content is None:
            log.error("document.missing", invoice_id=invoice_id, location=row["location"])
            raise DocumentNotReadyError(f"the document of invoice {invoice_id} is not at hand")
        name = "".join(
            char for char in row["number"] or invoice_id if char.isascii() and (char.isalnum() or char in "-_")
        )
        return Document(content, row["sha256"], f"{name}{_ENDINGS[media_type]}")

    async def check(self) -> None:
        """Return when PostgreSQL answers; raises otherwise."""
        async with self._connection() as connection:
            await connection.execute("SELECT 1")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.connection(timeout=3) as connection:
                yield connection
        except (psycopg.OperationalError, PoolTimeout, OSError) as error:
            raise UnavailableError("invoices cannot be read now") from error


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _text(value) for name, value in row.items()}


def _text(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return format_instant(value) if isinstance(value, datetime) else value
