"""The life of issued documents in PostgreSQL, on the connection and transaction that hold the tenant's account."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from core.ids import derive_id
from core.messages import InvoiceVoided, encode_message
from core.period import Period, format_instant
from core.topics import INVOICE_VOIDED
from invoicing.adapters.stored_lines import LINE_COLUMNS, read_line, write_lines
from invoicing.domain.invoice import DocumentKind, Draft, Origin
from invoicing.domain.lines import Billed, BilledLine, Line, bill_up
from invoicing.domain.snapshot import money_text
from invoicing.domain.standing import Application, Standing
from rating.rate_charges import ENGINE_VERSION
from runtime.outbox import append_event
from runtime.postgres import Connection, Pool

# A payment is under way as long as what the provider has, or may have, is not on the invoice yet.
_STANDING = (
    "SELECT invoice_id, number, tenant_id, subscription_id, kind, origin, status, currency, period_start, period_end,"
    " sequence, subtotal, tax, total, credits_applied, amount_credited, amount_paid, issued_at, reason, replaces,"
    " asked_sha256, finalize_at,"
    " (SELECT coalesce(sum(credits_returned), 0) FROM credit_note_applications AS note"
    " WHERE note.invoice_id = invoices.invoice_id) AS credits_returned,"
    " (SELECT coalesce(sum(credit_granted), 0) FROM credit_note_applications AS note"
    " WHERE note.invoice_id = invoices.invoice_id) AS credit_granted,"
    " EXISTS (SELECT FROM payments WHERE payments.invoice_id = invoices.invoice_id"
    " AND (payments.status IN ('pending', 'processing', 'requires_action') OR payments.status = 'succeeded'"
    " AND NOT EXISTS (SELECT FROM settlements WHERE settlements.payment_id = payments.payment_id)"
    " AND invoices.amount_paid < invoices.amount_due)) AS in_flight"
    " FROM invoices WHERE "
)
_LOCK = " ORDER BY issued_at, sequence, invoice_id FOR NO KEY UPDATE"
_OWN_LINES = (
    "invoice_id IN (SELECT invoice_id FROM invoice_lines AS line WHERE line.subscription_id = %(subscription)s)"
)
_ROWS = (
    f"SELECT line.invoice_id, number, {LINE_COLUMNS}"  # noqa: S608 - constants only
    " FROM invoice_lines AS line JOIN invoices USING (invoice_id)"
    " WHERE tenant_id = %(tenant)s AND status NOT IN ('draft', 'void')"
    " AND item_key IN (SELECT item_key FROM invoice_lines"
    " WHERE invoice_id = %(invoice)s OR corrects_invoice = %(invoice)s)"
    " ORDER BY issued_at, sequence, invoice_id, position"
)
_LINES = (
    f"SELECT {LINE_COLUMNS} FROM invoice_lines AS line JOIN invoices USING (invoice_id)"  # noqa: S608 - constants only
    " WHERE tenant_id = %(tenant)s AND line.invoice_id = %(invoice)s ORDER BY position"
)
_APPLY = (
    "INSERT INTO credit_note_applications (credit_note_id, invoice_id, amount, credits_returned, credit_granted,"
    " applied_at) VALUES (%s, %s, %s, %s, %s, %s)"
)
# What is left to pay may be nothing now.
_LOWER = (
    "UPDATE invoices SET amount_credited = amount_credited + %(amount)s,"
    " status = CASE WHEN settles THEN 'paid' ELSE status END, paid_at = CASE WHEN settles THEN %(at)s ELSE paid_at END"
    " FROM (SELECT invoice_id, status IN ('finalized', 'overdue') AND amount_due - %(amount)s = amount_paid AS settles"
    " FROM invoices WHERE invoice_id = %(invoice)s) AS before WHERE invoices.invoice_id = before.invoice_id"
)
_PUT_DRAFT = (
    "INSERT INTO invoices (invoice_id, tenant_id, subscription_id, period_start, period_end, sequence, status, kind,"
    " currency, subtotal, tax, total, snapshot, snapshot_sha256, engine_version, finalize_at)"
    " VALUES (%s, %s, %s, %s, %s, %s, 'draft', %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)


class PostgresIssued:
    """`IssuedDocuments` of one tenant within its transaction."""

    def __init__(self, connection: Connection, tenant_id: str) -> None:
        self._connection, self._tenant_id = connection, tenant_id

    async def lock(self, reference: str) -> Standing | None:
        """Return one by its number or id, a draft by its id, None if there is none; nobody changes it meanwhile."""
        found = await self._standings("(number = %(name)s OR invoice_id = %(name)s)", name=reference)
        return found[0] if found else None

    async def invoices(self, subscription_id: str | None) -> list[Standing]:
        """Return a subscription's issued invoices (None: the tenant's one-time ones), by issue, without void ones."""
        counts = "kind = 'invoice' AND status NOT IN ('draft', 'void') AND "
        if subscription_id is None:
            return await self._standings(counts + "subscription_id IS NULL")
        owned = f"(subscription_id = %(subscription)s OR {_OWN_LINES})"
        return await self._standings(counts + owned, subscription=subscription_id)

    async def lines(self, invoice_id: str) -> list[Line]:
        """Return a document's lines by position."""
        rows = await self._rows(_LINES, {"tenant": self._tenant_id, "invoice": invoice_id})
        return [read_line(row) for row in rows]

    async def snapshot(self, invoice_id: str) -> Mapping[str, Any]:
        """Return what an issued document showed."""
        query = "SELECT snapshot FROM invoices WHERE tenant_id = %(tenant)s AND invoice_id = %(invoice)s"
        rows = await self._rows(query, {"tenant": self._tenant_id, "invoice": invoice_id})
        snapshot: Mapping[str, Any] = rows[0]["snapshot"]
        return snapshot

    async def next_sequence(self, subscription_id: str | None, period: Period) -> int:
        """Return the sequence that the period's next document gets, drafts and void ones counted."""
        query = (
            "SELECT coalesce(max(sequence), 0) + 1 AS next FROM invoices"
            " WHERE subscription_id = %(subscription)s AND period_start = %(start)s"
        )
        rows = await self._rows(query, {"subscription": subscription_id, "start": period.start})
        return int(rows[0]["next"])

    async def billed_with(self, invoice_id: str) -> dict[str, Billed]:
        """Return what all documents billed of the items that an invoice billed or that lower it, by item key."""
        rows = await self._rows(_ROWS, {"tenant": self._tenant_id, "invoice": invoice_id})
        return bill_up(BilledLine(row.pop("invoice_id"), row.pop("number"), read_line(row)) for row in rows)

    async def corrected_by(self, invoice_id: str) -> list[Standing]:
        """Return the documents that count and have a line that corrects this one, by issue."""
        return await self._standings(
            "status NOT IN ('draft', 'void')"
            " AND invoice_id IN (SELECT invoice_id FROM invoice_lines WHERE corrects_invoice = %(invoice)s)",
            invoice=invoice_id,
        )

    async def replacement_of(self, invoice_id: str) -> list[Standing]:
        """Return the documents that were issued anew for an invoice, by issue; void ones, too."""
        return await self._standings("replaces = %(invoice)s", invoice=invoice_id)

    async def returned_by(self, invoice_id: str) -> list[str]:
        """Return the credit notes that gave something back to the credits that an invoice had drawn."""
        query = (
            "SELECT credit_note_id FROM credit_note_applications"
            " WHERE invoice_id = %(invoice)s AND credits_returned > 0 ORDER BY applied_at, credit_note_id"
        )
        return [row["credit_note_id"] for row in await self._rows(query, {"invoice": invoice_id})]

    async def apply(self, credit_note_id: str, application: Application, at: datetime) -> None:
        """Write down where a credit note's value went, and lower what is open of the invoice, which may settle it."""
        one = application
        values = (credit_note_id, one.invoice_id, one.amount, one.credits_returned, one.credit_granted, at)
        await self._connection.execute(_APPLY, values)
        if one.amount:
            await self._connection.execute(_LOWER, {"amount": one.amount, "invoice": one.invoice_id, "at": at})

    async def close(self, invoice_id: str, status: str, *, reason: str, at: datetime) -> None:
        """Let an invoice be `void` or `uncollectible`."""
        await self._connection.execute(
            "UPDATE invoices SET status = %s, reason = %s, closed_at = %s, paid_at = NULL WHERE invoice_id = %s",
            (status, reason, at, invoice_id),
        )

    async def announce_void(self, standing: Standing, at: datetime) -> None:
        """Say that an invoice was voided, in this transaction."""
        voided = InvoiceVoided(
            invoice_id=standing.invoice_id,
            number=standing.name,
            tenant_id=standing.tenant_id,
            currency=standing.currency,
            total=money_text(standing.total, standing.currency),
            voided_at=format_instant(at),
        )
        await append_event(
            self._connection,
            INVOICE_VOIDED,
            key=standing.tenant_id,
            event_id=derive_id("evt", INVOICE_VOIDED.name, standing.invoice_id),
            payload=encode_message(voided),
            now=at,
        )

    async def put_draft(self, draft: Draft, finalize_at: datetime, now: datetime) -> None:
        """Store a proposal, in place of the one of the same id."""
        await self.drop_draft(draft.invoice_id)
        kind = DocumentKind.INVOICE if draft.total >= 0 else DocumentKind.CREDIT_NOTE
        values = (
            draft.invoice_id, self._tenant_id, draft.subscription_id, draft.period.start, draft.period.end,
            draft.sequence, kind.value, draft.currency, draft.subtotal, draft.tax, draft.total, Jsonb({}), "",
            ENGINE_VERSION, finalize_at,
        )  # fmt: skip
        await self._connection.execute(_PUT_DRAFT, values)
        await write_lines(self._connection, [draft])

    async def drafts(self, subscription_id: str, period: Period) -> list[Standing]:
        """Return the drafts of a billing period, locked."""
        return await self._standings(
            "status = 'draft' AND subscription_id = %(subscription)s AND period_start = %(start)s",
            subscription=subscription_id,
            start=period.start,
        )

    async def drop_draft(self, invoice_id: str) -> None:
        """Take a draft away; anything else stays."""
        found = await self._standings("status = 'draft' AND invoice_id = %(invoice)s", invoice=invoice_id)
        if found:
            await self._connection.execute("DELETE FROM invoice_lines WHERE invoice_id = %s", (invoice_id,))
            await self._connection.execute("DELETE FROM invoices WHERE invoice_id = %s", (invoice_id,))

    async def _standings(self, where: str, **given: Any) -> list[Standing]:
        query = f"{_STANDING}tenant_id = %(tenant)s AND {where}{_LOCK}"
        return read_standings(await self._rows(query, {"tenant": self._tenant_id, **given}))

    async def _rows(self, query: str, given: Mapping[str, Any]) -> list[dict[str, Any]]:
        return await (await self._connection.execute(query.encode(), given)).fetchall()


class PostgresDrafts:
    """`DraftRegister` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def drafts(self, *, due_at: datetime | None, tenant_id: str | None) -> list[Standing]:
        """Return drafts by the end of their grace; those only whose grace is over by `due_at`, if it is given."""
        query = (
            f"{_STANDING}status = 'draft' AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)"
            " AND (%(due)s::timestamptz IS NULL OR finalize_at <= %(due)s) ORDER BY finalize_at, invoice_id"
        )
        async with self._pool.connection() as connection:
            found = await connection.execute(query.encode(), {"tenant": tenant_id, "due": due_at})
            return read_standings(await found.fetchall())


def read_standings(rows: Iterable[dict[str, Any]]) -> list[Standing]:
    """Return stored documents as they stand."""
    found = []
    for row in rows:
        period = Period(row.pop("period_start"), row.pop("period_end"))
        kind, origin = DocumentKind(row.pop("kind")), Origin(row.pop("origin"))
        found.append(Standing(**row, period=period, kind=kind, origin=origin))
    return found
