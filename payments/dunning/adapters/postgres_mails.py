"""Mails of dunning that wait in PostgreSQL, held by a row lock while one is tried."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from payments.dunning.domain.reminder import Reminder
from payments.dunning.ports import WaitingMail
from runtime.postgres import Connection, Pool

_HOLD = """
SELECT message_id, invoice_id, payload, attempts, created_at,
    (SELECT status IN ('finalized', 'overdue') AND amount_due > amount_paid FROM invoices
     WHERE invoices.invoice_id = dunning_mails.invoice_id) AS is_wanted
FROM dunning_mails WHERE status = 'pending' AND next_attempt_at <= %s
ORDER BY next_attempt_at, message_id LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_RECORD = """
UPDATE dunning_mails SET status = %(status)s, attempts = attempts + 1, next_attempt_at = %(next_attempt_at)s,
    last_error = %(error)s, sent_at = CASE WHEN %(status)s = 'sent' THEN %(now)s::timestamptz END
WHERE message_id = %(message_id)s
"""


class HeldPostgresMail:
    """A mail whose row is locked by this transaction."""

    def __init__(self, connection: Connection, mail: WaitingMail) -> None:
        self._connection, self.mail = connection, mail

    async def record(self, status: str, next_attempt_at: datetime, error: str, now: datetime) -> None:
        """Write down what became of the try."""
        await self._connection.execute(
            _RECORD,
            {
                "status": status,
                "next_attempt_at": next_attempt_at,
                "error": error.replace("\0", "")[:500] or None,
                "now": now,
                "message_id": self.mail.message_id,
            },
        )


class PostgresMailQueue:
    """`MailQueue` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def hold_due(self, now: datetime) -> AsyncIterator[HeldPostgresMail | None]:
        """Hold the most overdue mail until the block ends."""
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(_HOLD, (now,))).fetchone()
            if row is None:
                yield None
                return
            yield HeldPostgresMail(connection, WaitingMail(reminder=Reminder(**row.pop("payload")), **row))
