"""Sends one due delivery and writes down what became of it.

The row is held from the try to its record, so two workers never send the same one. A crash in between sends again:
e-mail carries the same Message-ID then; Slack has no such key, so its message names the alert's id.
"""

from __future__ import annotations

from datetime import timedelta

import structlog
from prometheus_client import Counter

from alerts.domain.describe import decode_cause, describe
from alerts.domain.retry import plan_next
from alerts.ports import Channel, DeliveryStore
from core.alert_rules import AlertRules
from core.clock import Clock

log = structlog.get_logger()
_DELIVERIES = Counter("meterbook_alert_deliveries_total", "Tries to deliver an alert", ["channel", "outcome"])


async def deliver_next(channel: Channel, *, store: DeliveryStore, rules: AlertRules, clock: Clock) -> bool:
    """Try the channel's most overdue delivery; False if none was due."""
    async with store.hold_due(channel.name, clock.now()) as held:
        if held is None:
            return False
        delivery = held.delivery
        alert = describe(decode_cause(delivery.kind, delivery.payload), rules)
        attempt = await channel.send(alert, delivery.created_at)
        now = clock.now()
        plan = plan_next(attempt, attempts=delivery.attempts + 1, now=now)
        await held.record(plan, error=attempt.error, now=now)
    _DELIVERIES.labels(channel.name, attempt.answer.value).inc()
    level = log.info if plan.status == "sent" else log.error if plan.status == "refused" else log.warning
    level(
        f"alert.{attempt.answer.value}",
        alert_id=delivery.alert_id,
        channel=channel.name,
        attempts=delivery.attempts + 1,
        error=attempt.error,
        next_in_seconds=(plan.next_attempt_at - now) / timedelta(seconds=1),
    )
    return True
