"""Invoices as a whole in PostgreSQL: lists, settlement, snapshots and documents, facts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.period import Period
from invoicing.ports import Document, InvoicedFact, ListedInvoice, Payable, StoredSnapshot
from runtime.postgres import Connection, Pool

_TENANTS = (
    "SELECT DISTINCT tenant_id, parked_reason FROM subscriptions JOIN tenants USING (tenant_id)"
    " WHERE started_at < %(end)s AND (ended_at IS NULL OR ended_at > %(start)s)"
    " AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s) ORDER BY tenant_id"
)
_INVOICES = (
    "SELECT invoice_id, number, invoices.tenant_id, plan_id, period_start, sequence, status, currency, total,"
    " amount_paid, issued_at, due_at, paid_at, location AS document"
    " FROM invoices JOIN subscriptions USING (subscription_id)"
    " LEFT JOIN invoice_documents USING (invoice_id)"
    " WHERE number IS NOT NULL AND (%(start)s::timestamptz IS NULL OR period_start = %(start)s)"
    " AND (%(tenant)s::text IS NULL OR invoices.tenant_id = %(tenant)s) ORDER BY number"
)
# Lines are summed by charge and meter: that is the grain dashboards keep.
_FACTS = (
    "SELECT invoice.tenant_id, to_char(period_start AT TIME ZONE 'UTC', 'YYYY-MM') AS period, invoice.invoice_id,"
    " plan_id, charge_id, coalesce(meter_id, '') AS meter_id, sum(quantity) AS quantity, sum(amount) AS amount,"
    " currency, issued_at, sequence"
    " FROM invoices AS invoice JOIN subscriptions USING (subscription_id)"
    " JOIN invoice_lines AS line ON line.invoice_id = invoice.invoice_id"
    " WHERE invoice.invoice_id = %s AND number IS NOT NULL"
    " GROUP BY invoice.invoice_id, plan_id, charge_id, meter_id ORDER BY charge_id, meter_id"
)


class PostgresRegister:
    """`InvoiceRegister`, `Settlements`, `DocumentRegister` and `InvoicedLines` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def tenants_to_invoice(self, period: Period, tenant_id: str | None) -> list[tuple[str, str | None]]:
        """Return (tenant, why it is parked or None) for tenants with a subscription in the period."""
        rows = await self._rows(_TENANTS, {"start": period.start, "end": period.end, "tenant": tenant_id})
        return [(row["tenant_id"], row["parked_reason"]) for row in rows]

    async def invoices(self, period: Period | None, tenant_id: str | None) -> list[ListedInvoice]:
        """Return finalized invoices by number."""
        rows = await self._rows(_INVOICES, {"start": period.start if period else None, "tenant": tenant_id})
        return [ListedInvoice(**row) for row in rows]

    async def unpark(self, tenant_id: str) -> bool:
        """Let a parked account be invoiced again; tells whether it was parked."""
        async with self._pool.connection() as connection:
            changed = await connection.execute(
                "UPDATE tenants SET parked_reason = NULL, parked_at = NULL"
                " WHERE tenant_id = %s AND parked_reason IS NOT NULL",
                (tenant_id,),
            )
            return changed.rowcount == 1

    @asynccontextmanager
    async def open_payable(self, invoice_id: str) -> AsyncIterator[PostgresPayable | None]:
        """Lock an invoice in a transaction; None if it is unknown."""
        async with self._pool.connection() as connection, connection.transaction():
            found = await connection.execute(
                "SELECT invoice_id, tenant_id, status, currency, total, amount_paid FROM invoices"
                " WHERE invoice_id = %s FOR NO KEY UPDATE",
                (invoice_id,),
            )
            row = await found.fetchone()
            yield PostgresPayable(connection, Payable(**row)) if row else None

    async def snapshot(self, invoice_id: str) -> StoredSnapshot | None:
        """Return an invoice's snapshot, None if there is no such invoice."""
        rows = await self._rows(
            "SELECT invoice_id, tenant_id, number, snapshot, snapshot_sha256 AS sha256 FROM invoices"
            " WHERE invoice_id = %s AND number IS NOT NULL",
            (invoice_id,),
        )
        return StoredSnapshot(**rows[0]) if rows else None

    async def document(self, invoice_id: str, media_type: str) -> Document | None:
        """Return what was rendered before, None if nothing was."""
        rows = await self._rows(
            "SELECT invoice_id, media_type, location, sha256, bytes AS size_bytes FROM invoice_documents"
            " WHERE invoice_id = %s AND media_type = %s",
            (invoice_id, media_type),
        )
        return Document(**rows[0]) if rows else None

    async def put_document(self, document: Document, rendered_at: datetime) -> None:
        """Record a rendered document, replacing what was recorded before."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "INSERT INTO invoice_documents (invoice_id, media_type, location, sha256, bytes, rendered_at)"
                " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (invoice_id, media_type) DO UPDATE SET"
                " location = excluded.location, sha256 = excluded.sha256, bytes = excluded.bytes,"
                " rendered_at = excluded.rendered_at",
                (
                    document.invoice_id,
                    document.media_type,
                    document.location,
                    document.sha256,
                    document.size_bytes,
                    rendered_at,
                ),
            )

    async def facts(self, invoice_id: str) -> list[InvoicedFact]:
        """Return an invoice's lines summed by charge and meter; empty for an unknown invoice."""
        return [InvoicedFact(**row) for row in await self._rows(_FACTS, (invoice_id,))]

    async def _rows(self, query: str, arguments: Any) -> list[dict[str, Any]]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(query.encode(), arguments)).fetchall()


class PostgresPayable:
    """An `OpenPayable` within its transaction."""

    def __init__(self, connection: Connection, payable: Payable) -> None:
        self._connection, self._payable = connection, payable

    @property
    def payable(self) -> Payable:
        """The invoice as it stands."""
        return self._payable

    async def mark_paid(self, amount: Decimal, paid_at: datetime) -> None:
        """Record the payment."""
        await self._connection.execute(
            "UPDATE invoices SET status = 'paid', amount_paid = %s, paid_at = %s WHERE invoice_id = %s",
            (amount, paid_at, self._payable.invoice_id),
        )
