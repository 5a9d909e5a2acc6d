"""Alerts and their deliveries in PostgreSQL: claimed by primary key, held by a row lock while they are tried."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from alerts.domain.retry import Plan
from alerts.domain.webhook_event import EVENT_TYPE
from alerts.ports import Claim, Delivery
from runtime.postgres import Connection, Pool
from runtime.webhooks_out.queue import enqueue

_CLAIM = """
INSERT INTO alerts (alert_id, kind, tenant_id, meter_id, period, headline, payload, created_at)
VALUES (%(alert_id)s, %(kind)s, %(tenant_id)s, %(meter)s, %(period)s, %(headline)s, %(payload)s::jsonb, %(now)s)
ON CONFLICT (alert_id) DO NOTHING
"""
_DELIVER = """
INSERT INTO alert_deliveries (alert_id, channel, kind, tenant_id, payload, status, next_attempt_at, created_at)
SELECT %(alert_id)s, channel, %(kind)s, %(tenant_id)s, %(payload)s::jsonb, 'pending', %(now)s, %(now)s
FROM unnest(%(channels)s::text[]) AS channel
ON CONFLICT (alert_id, channel) DO NOTHING
"""
_HOLD = """
SELECT alert_id, channel, kind, payload::text AS payload, attempts, created_at FROM alert_deliveries
WHERE status = 'pending' AND channel = %s AND next_attempt_at <= %s
ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_RECORD = """
UPDATE alert_deliveries
SET status = %(status)s, attempts = attempts + 1, next_attempt_at = %(next_attempt_at)s, last_error = %(error)s,
    sent_at = CASE WHEN %(status)s = 'sent' THEN %(now)s::timestamptz END
WHERE alert_id = %(alert_id)s AND channel = %(channel)s
"""


async def claim_on(connection: Connection, claim: Claim, now: datetime) -> bool:
    """Claim within the caller's transaction; False if the alert was claimed before."""
    alert = claim.alert
    row = {
        "alert_id": alert.alert_id,
        "kind": alert.kind,
        "tenant_id": claim.tenant_id,
        "meter": alert.meter,
        "period": alert.period,
        "headline": alert.headline,
        "payload": claim.payload.decode(),
        "channels": list(claim.channels),
        "now": now,
    }
    if (await connection.execute(_CLAIM, row)).rowcount == 0:
        return False
    await connection.execute(_DELIVER, row)
    if claim.webhook_data is not None:
        await enqueue(
            connection,
            message_id=alert.alert_id,
            event_type=EVENT_TYPE,
            tenant_id=claim.tenant_id,
            data=claim.webhook_data,
            occurred_at=now,
            now=now,
        )
    return True


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

    async def claim(self, claim: Claim, now: datetime) -> bool:
        """Write the alert with a pending delivery per channel and webhook endpoint; False if it was claimed before."""
        async with self._pool.connection() as connection:
            return await claim_on(connection, claim, now)

    @asynccontextmanager
    async def hold_due(self, channel: str, now: datetime) -> AsyncIterator[HeldPostgresDelivery | None]:
        """Hold the channel's most overdue delivery until the block ends."""
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(_HOLD, (channel, now))).fetchone()
            if row is None:
                yield None
                return
            delivery = Delivery(
                row["alert_id"],
                row["channel"],
                row["kind"],
                row["payload"].encode(),
                row["attempts"],
                row["created_at"],
            )
            yield HeldPostgresDelivery(connection, delivery)
