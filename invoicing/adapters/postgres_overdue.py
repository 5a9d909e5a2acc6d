"""Due invoices in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from core.calendar import Calendar
from invoicing.mark_overdue import DueInvoice
from runtime.postgres import Pool

_DUE = """
SELECT invoice_id, due_at, time_zone, billing_anchor_day FROM invoices JOIN tenants USING (tenant_id)
WHERE status = 'finalized' AND amount_due > amount_paid AND due_at <= %s AND invoice_id > %s
ORDER BY invoice_id LIMIT %s
"""
_MARK = """
UPDATE invoices SET status = 'overdue'
WHERE invoice_id = ANY(%s) AND status = 'finalized' AND amount_due > amount_paid RETURNING invoice_id
"""


class PostgresDueInvoices:
    """`DueInvoices` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def due(self, now: datetime, after: str, limit: int) -> Sequence[DueInvoice]:
        """Return finalized invoices with an amount open that were due by an instant."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_DUE, (now, after, limit))).fetchall()
        return [
            DueInvoice(row["invoice_id"], row["due_at"], Calendar(row["time_zone"], row["billing_anchor_day"]))
            for row in rows
        ]

    async def mark(self, invoice_ids: Sequence[str]) -> Sequence[str]:
        """Mark them overdue and return which were."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_MARK, (list(invoice_ids),))).fetchall()
        return [row["invoice_id"] for row in rows]
