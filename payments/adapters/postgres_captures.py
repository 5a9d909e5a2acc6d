"""Captures of PayPal orders in PostgreSQL. Owns the SQL of which approved payment is asked for, by whom and when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from payments.adapters.postgres_rows import PAYMENT_COLUMNS, read_payment
from payments.paypal_ports import DueCapture
from runtime.postgres import Pool

_DUE = f"""
SELECT {", ".join("p." + name.strip() for name in PAYMENT_COLUMNS.split(","))}, coalesce(c.asked, 0) AS asked
FROM payments p LEFT JOIN paypal_captures c ON c.payment_id = p.payment_id
WHERE p.provider = 'paypal' AND p.status = 'processing' AND p.provider_reference IS NOT NULL
  AND (c.payment_id IS NULL OR c.capture_id IS NULL AND c.next_ask_at <= %s)
ORDER BY c.next_ask_at NULLS FIRST, p.created_at, p.payment_id LIMIT %s
"""  # noqa: S608
_CLAIM = """
INSERT INTO paypal_captures (payment_id, asked, next_ask_at)
SELECT payment_id, 1, %(next_at)s FROM payments
WHERE payment_id = %(payment_id)s AND status = 'processing' FOR UPDATE
ON CONFLICT (payment_id) DO UPDATE SET asked = paypal_captures.asked + 1, next_ask_at = excluded.next_ask_at
WHERE paypal_captures.asked = %(asked)s AND paypal_captures.capture_id IS NULL
"""
_CAPTURED = """
UPDATE paypal_captures SET capture_id = %s, captured_at = %s WHERE payment_id = %s AND capture_id IS NULL
"""


class PostgresCaptures:
    """Implements `payments.paypal_ports.CaptureStore` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def due_captures(self, now: datetime, limit: int) -> Sequence[DueCapture]:
        """Return approved payments to capture, those not asked for first."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_DUE.encode(), (now, limit))).fetchall()
        return [DueCapture(read_payment(row), row["asked"]) for row in rows]

    async def claim_capture(self, due: DueCapture, now: datetime, next_at: datetime) -> bool:
        """Write down that it is asked for; False if somebody else did so or it is not approved now."""
        values = {"payment_id": due.payment.payment_id, "asked": due.asked, "next_at": next_at}
        async with self._pool.connection() as connection:
            return (await connection.execute(_CLAIM, values)).rowcount == 1

    async def note_captured(self, payment_id: str, capture_id: str, now: datetime) -> None:
        """Write down the capture."""
        async with self._pool.connection() as connection:
            await connection.execute(_CAPTURED, (capture_id, now, payment_id))
