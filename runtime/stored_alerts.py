"""Alerts as PostgreSQL keeps them, for who lists and re-sends them: the API and the command. `alerts` writes them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from core.errors import NotFoundError
from core.period import format_instant
from runtime.postgres import Connection
from runtime.webhooks_out import queue

DeliveryStatus = Literal["pending", "sent", "refused"]
_DELIVERIES = """
SELECT alert_id, channel, status, attempts, next_attempt_at, last_error, sent_at FROM alert_deliveries
UNION ALL
SELECT message_id, 'webhook:' || endpoint_id, status, attempts, next_attempt_at, last_error, sent_at
FROM webhook_deliveries WHERE event_type = 'alert.triggered'
"""
_PAGE = f"""
SELECT alert_id, kind, tenant_id, meter_id, period, headline, payload, created_at FROM alerts
WHERE (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s) AND (%(kind)s::text IS NULL OR kind = %(kind)s)
  AND (%(status)s::text IS NULL OR alert_id IN (
      SELECT alert_id FROM ({_DELIVERIES}) AS deliveries WHERE status = %(status)s))
  AND (%(after)s::text IS NULL
       OR (created_at, alert_id) < (SELECT created_at, alert_id FROM alerts WHERE alert_id = %(after)s))
ORDER BY created_at DESC, alert_id DESC LIMIT %(limit)s
"""  # noqa: S608 - put together of constants
_DELIVERIES_OF = f"SELECT * FROM ({_DELIVERIES}) AS deliveries WHERE alert_id = ANY(%s) ORDER BY channel"  # noqa: S608
_RESEND = """
UPDATE alert_deliveries SET status = 'pending', attempts = 0, next_attempt_at = %(now)s
WHERE status <> 'sent' AND (%(alert_id)s::text IS NULL AND status = 'refused' OR alert_id = %(alert_id)s)
"""


async def list_alerts(
    connection: Connection,
    *,
    tenant: str | None = None,
    kind: str | None = None,
    status: DeliveryStatus | None = None,
    limit: int = 50,
    starting_after: str | None = None,
) -> list[dict[str, Any]]:
    """Return alerts with their deliveries, newest first; `status` keeps those with such a delivery.

    Raises `NotFoundError` if `starting_after` names none.
    """
    if starting_after is not None:
        found = await connection.execute("SELECT 1 FROM alerts WHERE alert_id = %s", (starting_after,))
        if await found.fetchone() is None:
            raise NotFoundError(f"no alert {starting_after[:80]!r}")
    asked = {"tenant": tenant, "kind": kind, "status": status, "after": starting_after, "limit": limit}
    rows = await (await connection.execute(_PAGE.encode(), asked)).fetchall()
    alerts = [
        {
            "alert_id": row["alert_id"],
            "kind": row["kind"],
            "tenant_id": row["tenant_id"],
            "meter": row["meter_id"],
            "period": row["period"],
            "headline": row["headline"],
            "details": row["payload"],
            "created_at": format_instant(row["created_at"]),
            "deliveries": [],
        }
        for row in rows
    ]
    by_id = {alert["alert_id"]: alert["deliveries"] for alert in alerts}
    for row in await (await connection.execute(_DELIVERIES_OF.encode(), (list(by_id),))).fetchall():
        by_id[row["alert_id"]].append(
            {
                "channel": row["channel"],
                "status": row["status"],
                "attempts": row["attempts"],
                "next_attempt_at": format_instant(row["next_attempt_at"]) if row["status"] == "pending" else None,
                "last_error": row["last_error"],
                "sent_at": format_instant(row["sent_at"]) if row["sent_at"] is not None else None,
            }
        )
    return alerts


async def resend_alert(connection: Connection, alert_id: str | None, now: datetime) -> int:
    """Let what was not delivered of an alert go out again now, or with None all that was given up; returns how many.

    What was delivered is never sent again. Raises `NotFoundError` for an unknown alert.
    """
    if alert_id is not None:
        found = await connection.execute("SELECT 1 FROM alerts WHERE alert_id = %s", (alert_id,))
        if await found.fetchone() is None:
            raise NotFoundError(f"no alert {alert_id[:80]!r}")
    again = (await connection.execute(_RESEND, {"alert_id": alert_id, "now": now})).rowcount
    return again + await queue.resend(connection, alert_id, now)
