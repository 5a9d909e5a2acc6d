"""Deliveries in PostgreSQL: claimed by primary key, held by a row lock while they are tried."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from alerts.domain.retry import Plan
from alerts.ports import Delivery
from runtime.postgres import Connection, Pool

_CLAIM = """
INSERT INTO alert_deliveries (alert_id, channel, tenant_id, payload, status, next_attempt_at, created_at)
SELECT %(alert_id)s, channel, %(tenant_id)s, %(payload)s::jsonb, 'pending', %(now)s, %(now)s
FROM unnest(%(channels)s::text[]) AS channel
ON CONFLICT (alert_id, channel) DO NOTHING
"""
_HOLD = """
SELECT alert_id, channel, payload::text AS payload, attempts, created_at FROM alert_deliveries
WHERE status = 'pending' AND channel = %s AND next_attempt_at <= %s
ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_RECORD = """
UPDATE alert_deliveries
SET status = %(status)s, attempts = attempts + 1, next_attempt_at = %(next_attempt_at)s, last_error = %(error)s,
    sent_at = CASE WHEN %(status)s = 'sent' THEN %(now)s::timestamptz END
WHERE alert_id = %(alert_id)s AND channel = %(channel)s
"""


class HeldPostgresDelivery:
    """A delivery whose row is locked by this transaction."""

    def __init__(self, connection: Connection, delivery: Delivery) -> None:
        self._connection, self.delivery = connection, delivery

    async def record(self, plan: Plan, *, error: str, now: datetime) -> None:
        """Write down what became of the try."""
        await self._connection.execute(
            _RECORD,
            {
                "status": plan.status,
                "next_attempt_at": plan.next_attempt_at,
                "error": error.replace("\0", "") or None,
                "now": now,
                "alert_id": self.delivery.alert_id,
                "channel": self.delivery.channel,
            },
        )


class PostgresDeliveries:
    """Implements `alerts.ports.DeliveryStore`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(self, alert_id: str, tenant_id: str, channels: Sequence[str], payload: bytes, now: datetime) -> int:
        """Write one pending delivery per channel; returns how many are new."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                _CLAIM,
                {
                    "alert_id": alert_id,
                    "tenant_id": tenant_id,
                    "payload": payload.decode(),
                    "channels": list(channels),
                    "now": now,
                },
            )
            return cursor.rowcount

    @asynccontextmanager
    async def hold_due(self, channel: str, now: datetime) -> AsyncIterator[HeldPostgresDelivery | None]:
        """Hold the channel's most overdue delivery until the block ends."""
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(_HOLD, (channel, now))).fetchone()
            if row is None:
                yield None
                return
            delivery = Delivery(
                row["alert_id"], row["channel"], row["payload"].encode(), row["attempts"], row["created_at"]
            )
            yield HeldPostgresDelivery(connection, delivery)
