"""Credit notes that are refunded, in PostgreSQL, on the caller's connection and transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from payments.adapters.postgres_refunds import REFUND_COLUMNS, read_refund
from payments.adapters.postgres_rows import PAYMENT_COLUMNS, Rows, read_payment
from payments.adapters.postgres_store import PostgresPaymentUnit
from payments.domain.dispute import HELD
from payments.domain.note_refund import NoteRefund, Refundable
from payments.domain.refund import Refund
from rating.adapters.postgres_credits import PostgresCreditLedger
from runtime.postgres import Connection

_NOTE = """
SELECT invoice_id AS credit_note_id, number, note.tenant_id, note.currency, coalesce(refund.amount, 0) AS amount,
    coalesce(refund.credited, 0) AS credited, coalesce(refund.requested_by, '') AS requested_by
FROM invoices AS note LEFT JOIN credit_note_refunds AS refund ON refund.credit_note_id = note.invoice_id
WHERE note.kind = 'credit_note' AND (note.number = %(name)s OR note.invoice_id = %(name)s)
"""
_LOCK_NOTE = f"{_NOTE} FOR NO KEY UPDATE OF note"
_PARTS = f"""
SELECT {REFUND_COLUMNS} FROM refunds JOIN credit_note_refund_parts USING (refund_id)
WHERE credit_note_id = %s ORDER BY created_at, refund_id
"""  # noqa: S608
_PAID_VALUE = """
SELECT invoice_id, credit_granted FROM credit_note_applications WHERE credit_note_id = %s AND credit_granted > 0
ORDER BY invoice_id
"""
_SETTLED = f"""
SELECT {PAYMENT_COLUMNS} FROM payments WHERE invoice_id = %s AND status = 'succeeded' AND provider = ANY(%s)
ORDER BY payment_id FOR UPDATE
"""  # noqa: S608
_SAVE = """
INSERT INTO credit_note_refunds (credit_note_id, tenant_id, currency, amount, credited, requested_by, created_at)
VALUES (%(credit_note_id)s, %(tenant_id)s, %(currency)s, %(amount)s, %(credited)s, %(requested_by)s, %(now)s)
ON CONFLICT (credit_note_id) DO UPDATE SET credited = excluded.credited
"""
_ADD_PART = "INSERT INTO credit_note_refund_parts (refund_id, credit_note_id) VALUES (%s, %s)"
# What neither a credit nor a refund that has not failed covers.
_OWED = """
SELECT credit_note_id FROM credit_note_refunds AS note
WHERE amount - credited > (
    SELECT coalesce(sum(refunds.amount), 0) FROM credit_note_refund_parts AS part JOIN refunds USING (refund_id)
    WHERE part.credit_note_id = note.credit_note_id AND status NOT IN ('failed', 'canceled'))
ORDER BY created_at, credit_note_id
"""


class PostgresNoteRefunds(Rows):
    """`NoteRefundUnit` within a transaction."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._payments, self._credits = PostgresPaymentUnit(connection), PostgresCreditLedger(connection)

    @property
    def payments(self) -> PostgresPaymentUnit:
        """Payments and refunds in this transaction."""
        return self._payments

    @property
    def credits(self) -> PostgresCreditLedger:
        """Credits in this transaction."""
        return self._credits

    async def lock_note(self, reference: str) -> NoteRefund | None:
        """Lock a credit note by id or number."""
        return await self._note(_LOCK_NOTE, reference)

    async def find_note(self, reference: str) -> NoteRefund | None:
        """Return a credit note by id or number, as it stands."""
        return await self._note(_NOTE, reference)

    async def owed(self) -> list[NoteRefund]:
        """Return the notes of which something is owed, the oldest first."""
        found = [await self.find_note(row["credit_note_id"]) for row in await self._all(_OWED, ())]
        return [note for note in found if note is not None]

    async def paid_value(self, credit_note_id: str) -> Mapping[str, Decimal]:
        """Return what of a credit note's value had been paid, by invoice."""
        return {row["invoice_id"]: row["credit_granted"] for row in await self._all(_PAID_VALUE, (credit_note_id,))}

    async def refundable(self, invoice_id: str, providers: Sequence[str]) -> Sequence[Refundable]:
        """Lock and return the settled payments of an invoice by these providers."""
        found = []
        for row in await self._all(_SETTLED, (invoice_id, list(providers))):
            payment = read_payment(row)
            disputes = await self._payments.disputes_of(payment.payment_id)
            refunds = await self._payments.refunds_of(payment.payment_id)
            found.append(Refundable(payment, refunds, any(dispute.status in HELD for dispute in disputes)))
        return found

    async def save(self, refund: NoteRefund, now: datetime) -> None:
        """Write it down, or what was credited of it since."""
        await self._connection.execute(
            _SAVE,
            {
                "credit_note_id": refund.credit_note_id,
                "tenant_id": refund.tenant_id,
                "currency": refund.currency,
                "amount": refund.amount,
                "credited": refund.credited,
                "requested_by": refund.requested_by,
                "now": now,
            },
        )

    async def add_part(self, credit_note_id: str, part: Refund) -> None:
        """Write down that a refund is for a credit note."""
        await self._connection.execute(_ADD_PART, (part.refund_id, credit_note_id))

    async def _note(self, query: str, reference: str) -> NoteRefund | None:
        row = await self._one(query, {"name": reference})
        if row is None:
            return None
        parts = await self._all(_PARTS, (row["credit_note_id"],))
        return NoteRefund(**row, refunds=tuple(read_refund(part) for part in parts))
