"""Documents and their deliveries in PostgreSQL: what was made of a snapshot, and on its way to whom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from invoicing.document_ports import DocumentDelivery, Resend
from invoicing.domain.delivery import Plan
from invoicing.ports import Document, StoredSnapshot
from runtime.postgres import Connection, Pool

_SNAPSHOT = (
    "SELECT invoice_id, tenant_id, number, snapshot, snapshot_sha256 AS sha256, status FROM invoices"
    " WHERE invoice_id = %s AND number IS NOT NULL"
)
_FIND = (
    "SELECT invoice_id, tenant_id, number, snapshot, snapshot_sha256 AS sha256, status FROM invoices"
    " WHERE (number = %(name)s OR invoice_id = %(name)s) AND number IS NOT NULL"
)
_DOCUMENTS = (
    "SELECT invoice_id, media_type, location, sha256, bytes AS size_bytes FROM invoice_documents WHERE invoice_id = %s"
)
_RECORD = (
    "INSERT INTO invoice_documents (invoice_id, media_type, location, sha256, bytes, rendered_at)"
    " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (invoice_id, media_type) DO UPDATE SET"
    " location = excluded.location, sha256 = excluded.sha256, bytes = excluded.bytes,"
    " rendered_at = excluded.rendered_at"
)
_KEEP_BESIDE = (
    "INSERT INTO replaced_documents (invoice_id, media_type, location, sha256, bytes, rendered_at, replaced_at,"
    " replaced_by) SELECT invoice_id, media_type, location, sha256, bytes, rendered_at, %(now)s, %(sha256)s"
    " FROM invoice_documents WHERE invoice_id = %(invoice_id)s AND media_type = %(media_type)s AND sha256 <> %(sha256)s"
    " ON CONFLICT (invoice_id, media_type, sha256, replaced_by) DO NOTHING"
)
_SEND = (
    "INSERT INTO document_deliveries (invoice_id, channel, address, tenant_id, status, next_attempt_at, created_at)"
    " SELECT invoice_id, 'email', %(address)s, tenant_id, 'pending', %(now)s, %(now)s FROM invoices"
    " WHERE invoice_id = %(invoice_id)s ON CONFLICT (invoice_id, channel, address) DO NOTHING"
)
_HOLD = (
    "SELECT invoice_id, address, attempts, created_at FROM document_deliveries"
    " WHERE status = 'pending' AND channel = 'email' AND next_attempt_at <= %s"
    " ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED"
)
_TRIED = (
    "UPDATE document_deliveries SET status = %(status)s, attempts = attempts + 1,"
    " next_attempt_at = %(next_attempt_at)s, last_error = %(error)s,"
    " sent_at = CASE WHEN %(status)s = 'sent' THEN %(now)s::timestamptz END"
    " WHERE invoice_id = %(invoice_id)s AND channel = 'email' AND address = %(address)s"
)
_ADD_RESEND = (
    "INSERT INTO document_resends (resend_id, invoice_id, channel, address, tenant_id, status, next_attempt_at,"
    " created_at) SELECT %(resend_id)s, invoice_id, 'email', %(address)s, tenant_id, 'pending', %(now)s, %(now)s"
    " FROM invoices WHERE invoice_id = %(invoice_id)s ON CONFLICT (resend_id) DO NOTHING"
)
_RESEND = (
    "SELECT resend_id, invoice_id, address, status, attempts, created_at, sent_at,"
    " coalesce(last_error, '') AS last_error FROM document_resends WHERE resend_id = %s"
)
_HOLD_RESEND = (
    "SELECT invoice_id, address, attempts, created_at, resend_id FROM document_resends"
    " WHERE status = 'pending' AND channel = 'email' AND next_attempt_at <= %s"
    " ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED"
)
_TRIED_RESEND = (
    "UPDATE document_resends SET status = %(status)s, attempts = attempts + 1,"
    " next_attempt_at = %(next_attempt_at)s, last_error = %(error)s,"
    " sent_at = CASE WHEN %(status)s = 'sent' THEN %(now)s::timestamptz END WHERE resend_id = %(resend_id)s"
)


class HeldPostgresDelivery:
    """A delivery whose row is locked by this transaction."""

    def __init__(self, connection: Connection, delivery: DocumentDelivery) -> None:
        self._connection, self._delivery = connection, delivery

    @property
    def delivery(self) -> DocumentDelivery:
        """The delivery as it stands."""
        return self._delivery

    async def record(self, plan: Plan, *, error: str, now: datetime) -> None:
        """Write down what became of the try."""
        await self._connection.execute(
            _TRIED_RESEND if self._delivery.resend_id else _TRIED,
            {
                "resend_id": self._delivery.resend_id,
                "status": plan.status,
                "next_attempt_at": plan.next_attempt_at,
                "error": error.replace("\0", "") or None,
                "now": now,
                "invoice_id": self._delivery.invoice_id,
                "address": self._delivery.address,
            },
        )


class PostgresDocuments:
    """Implements `DocumentRegister`, `DocumentDeliveries` and `Resends` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def snapshot(self, invoice_id: str) -> StoredSnapshot | None:
        """Return an invoice's snapshot with the invoice's status, None if there is no such invoice."""
        async with self._pool.connection() as connection:
            return await _snapshot(connection, invoice_id)

    async def documents(self, invoice_id: str) -> dict[str, Document]:
        """Return what was rendered before, by media type."""
        async with self._pool.connection() as connection:
            return await _documents(connection, invoice_id)

    async def record(self, documents: Sequence[Document], *, send_to: str | None, now: datetime) -> None:
        """Record documents of one invoice, and once that they are to be sent to an address, in one transaction.

        What was recorded before with other bytes is kept beside.
        """
        async with self._pool.connection() as connection, connection.transaction():
            for one in documents:
                facts = {"invoice_id": one.invoice_id, "media_type": one.media_type, "sha256": one.sha256, "now": now}
                await connection.execute(_KEEP_BESIDE, facts)
                values = (one.invoice_id, one.media_type, one.location, one.sha256, one.size_bytes, now)
                await connection.execute(_RECORD, values)
            if send_to is not None:
                sent = {"invoice_id": documents[0].invoice_id, "address": send_to, "now": now}
                await connection.execute(_SEND, sent)

    @asynccontextmanager
    async def hold_due(self, now: datetime) -> AsyncIterator[HeldPostgresDelivery | None]:
        """Hold the most overdue delivery until the block ends; None if none is due."""
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(_HOLD, (now,))).fetchone()
            # A delivery that is due goes before a wish of somebody who had the document already.
            row = row or await (await connection.execute(_HOLD_RESEND, (now,))).fetchone()
            if row is None:
                yield None
                return
            stored = await _snapshot(connection, row["invoice_id"])
            assert stored is not None, "a delivery of an invoice that is not finalized"
            documents = await _documents(connection, row["invoice_id"])
            yield HeldPostgresDelivery(
                connection,
                DocumentDelivery(
                    row["invoice_id"],
                    row["address"],
                    row["attempts"],
                    row["created_at"],
                    stored.status,
                    stored.snapshot,
                    documents,
                    row.get("resend_id", ""),
                ),
            )

    async def find(self, reference: str) -> StoredSnapshot | None:
        """Return an issued document by its number or id, with the invoice's status."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_FIND, {"name": reference})).fetchone()
        return StoredSnapshot(**row) if row else None

    async def add_resend(self, resend_id: str, invoice_id: str, address: str, now: datetime) -> Resend:
        """Write the wish down, to be sent soon, and return it; one that is there stays as it is and is returned."""
        values = {"resend_id": resend_id, "invoice_id": invoice_id, "address": address, "now": now}
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(_ADD_RESEND, values)
            row = await (await connection.execute(_RESEND, (resend_id,))).fetchone()
        assert row is not None, "a wish of an invoice that is not there"
        return Resend(**row)


async def _snapshot(connection: Connection, invoice_id: str) -> StoredSnapshot | None:
    row = await (await connection.execute(_SNAPSHOT, (invoice_id,))).fetchone()
    return StoredSnapshot(**row) if row else None


async def _documents(connection: Connection, invoice_id: str) -> dict[str, Document]:
    rows = await (await connection.execute(_DOCUMENTS, (invoice_id,))).fetchall()
    return {row["media_type"]: Document(**row) for row in rows}
