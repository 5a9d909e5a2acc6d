"""Webhooks that wait to be sent, in PostgreSQL: written with what they tell, held by row locks while they are tried."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from core.errors import must_hold
from core.period import format_instant
from runtime.postgres import Connection, Pool
from runtime.webhooks_out.endpoints import EVENT_TYPES
from runtime.webhooks_out.schedule import LONGEST_ENDPOINT_PAUSE, Attempt, Plan

BODY_MAX_BYTES = 20_480
_ENQUEUE = """
INSERT INTO webhook_deliveries
    (message_id, endpoint_id, event_type, tenant_id, body, status, next_attempt_at, created_at)
SELECT %(message_id)s, endpoint_id, %(event_type)s, %(tenant_id)s, %(body)s, 'pending', %(now)s, %(now)s
FROM webhook_endpoints
WHERE enabled AND (tenant_id IS NULL OR tenant_id = %(tenant_id)s)
  AND (event_types = '{}' OR %(event_type)s = ANY(event_types))
ON CONFLICT (message_id, endpoint_id) DO NOTHING
"""
# Both rows are locked: one try at a time per endpoint, so that a dead one keeps only one of the senders waiting.
_HOLD = """
SELECT d.message_id, d.endpoint_id, d.body, d.attempts, e.url, e.secret,
       CASE WHEN e.previous_secret_until > %(now)s THEN e.previous_secret END AS previous_secret
FROM webhook_deliveries d JOIN webhook_endpoints e USING (endpoint_id)
WHERE d.status = 'pending' AND d.next_attempt_at <= %(now)s AND e.enabled
  AND (e.paused_until IS NULL OR e.paused_until <= %(now)s)
ORDER BY d.next_attempt_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
"""
_RECORD = """
UPDATE webhook_deliveries
SET status = %(status)s, attempts = attempts + 1, next_attempt_at = %(next_attempt_at)s, last_error = %(error)s,
    sent_at = CASE WHEN %(status)s = 'sent' THEN %(now)s::timestamptz END
WHERE message_id = %(message_id)s AND endpoint_id = %(endpoint_id)s
"""
_PAUSE = "UPDATE webhook_endpoints SET paused_until = %s WHERE endpoint_id = %s"
_DISABLE = """
UPDATE webhook_endpoints SET enabled = false, disabled_reason = 'the receiver answered 410 Gone', updated_at = %s
WHERE endpoint_id = %s
"""
_RESEND = """
UPDATE webhook_deliveries SET status = 'pending', attempts = 0, next_attempt_at = %(now)s
WHERE status <> 'sent' AND (%(message_id)s::text IS NULL AND status = 'refused' OR message_id = %(message_id)s)
"""


@dataclass(frozen=True, slots=True)
class WaitingWebhook:
    """A message for one endpoint; `secrets` are those to sign with, newest first."""

    message_id: str
    endpoint_id: str
    url: str
    body: bytes
    attempts: int
    secrets: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class HeldWebhook:
    """A due message that nobody else can take while it is held."""

    webhook: WaitingWebhook
    _connection: Connection

    async def record(self, plan: Plan, attempt: Attempt, now: datetime) -> None:
        """Write down what became of the try, and what it says about the endpoint."""
        key = {"message_id": self.webhook.message_id, "endpoint_id": self.webhook.endpoint_id}
        await self._connection.execute(
            _RECORD,
            {
                **key,
                "status": plan.status,
                "next_attempt_at": plan.next_attempt_at,
                "error": attempt.error.replace("\0", "") or None,
                "now": now,
            },
        )
        if attempt.is_gone:
            await self._connection.execute(_DISABLE, (now, self.webhook.endpoint_id))
        elif not attempt.is_taken:
            until = min(now + LONGEST_ENDPOINT_PAUSE, max(plan.next_attempt_at, now))
            await self._connection.execute(_PAUSE, (until, self.webhook.endpoint_id))


async def enqueue(
    connection: Connection,
    *,
    message_id: str,
    event_type: str,
    tenant_id: str,
    data: Mapping[str, Any],
    occurred_at: datetime,
    now: datetime,
) -> int:
    """Write the message for every endpoint that wants it, in the caller's transaction; returns for how many.

    `message_id` names the cause and goes out as `webhook-id`; the same id twice is written once. A body over 20 kB
    breaks the standard and is our own mistake.
    """
    must_hold(event_type in EVENT_TYPES, f"{event_type} is not among the types that endpoints can choose")
    body = msgspec.json.encode({"type": event_type, "timestamp": format_instant(occurred_at), "data": data})
    must_hold(len(body) <= BODY_MAX_BYTES, f"the webhook {message_id} has {len(body)} bytes")
    cursor = await connection.execute(
        _ENQUEUE,
        {"message_id": message_id, "event_type": event_type, "tenant_id": tenant_id, "body": body, "now": now},
    )
    return cursor.rowcount


@asynccontextmanager
async def hold_due(pool: Pool, now: datetime) -> AsyncIterator[HeldWebhook | None]:
    """Hold the most overdue message until the block ends; None if none is due."""
    async with pool.connection() as connection, connection.transaction():
        row = await (await connection.execute(_HOLD, {"now": now})).fetchone()
        if row is None:
            yield None
            return
        secrets = tuple(secret for secret in (row["secret"], row["previous_secret"]) if secret is not None)
        webhook = WaitingWebhook(
            row["message_id"], row["endpoint_id"], row["url"], bytes(row["body"]), row["attempts"], secrets
        )
        yield HeldWebhook(webhook, connection)


async def resend(connection: Connection, message_id: str | None, now: datetime) -> int:
    """Let a message that was not taken go out again now, or with None all that were given up; returns how many."""
    return (await connection.execute(_RESEND, {"message_id": message_id, "now": now})).rowcount
