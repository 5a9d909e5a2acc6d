"""Sends outgoing webhooks: `meterbook worker webhooks-out`. Several may run; a message is sent by one at a time."""

from __future__ import annotations

import asyncio

import structlog
from prometheus_client import Counter
from psycopg import OperationalError
from psycopg_pool import PoolTimeout

from core.clock import Clock, SystemClock
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings
from runtime.webhooks_out.address_guard import OutgoingPolicy
from runtime.webhooks_out.queue import hold_due
from runtime.webhooks_out.schedule import plan_next
from runtime.webhooks_out.send import WebhookSender

_SENDERS = 8
_POLL_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 5.0
_TRIES = Counter("meterbook_webhooks_out_total", "Tries to send an outgoing webhook", ["outcome"])
log = structlog.get_logger()


def outgoing_policy(settings: Settings) -> OutgoingPolicy:
    """Return where the settings let outgoing webhooks go."""
    return OutgoingPolicy(settings.webhook_allow_private, settings.webhook_ports)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Send what is due until `stop` is set."""
    clock = SystemClock()
    sender = WebhookSender(outgoing_policy(settings), clock)
    async with create_pool(settings, max_size=_SENDERS) as pool, asyncio.TaskGroup() as tasks:
        for _ in range(_SENDERS):
            tasks.create_task(_send_until(stop, pool, sender, clock))


async def send_next(pool: Pool, sender: WebhookSender, clock: Clock) -> bool:
    """Try the most overdue message; False if none was due."""
    async with hold_due(pool, clock.now()) as held:
        if held is None:
            return False
        webhook = held.webhook
        attempt = await sender.send(webhook.url, webhook.message_id, webhook.body, list(webhook.secrets))
        now = clock.now()
        plan = plan_next(attempt, attempts=webhook.attempts + 1, now=now)
        await held.record(plan, attempt, now)
    _TRIES.labels("sent" if attempt.is_taken else "given_up" if plan.status == "refused" else "failed").inc()
    level = log.info if plan.status == "sent" else log.error if plan.status == "refused" else log.warning
    level(
        "webhook_out.tried",
        message_id=webhook.message_id,
        endpoint=webhook.endpoint_id,
        status=plan.status,
        attempts=webhook.attempts + 1,
        error=attempt.error,
        next_in_seconds=(plan.next_attempt_at - now).total_seconds(),
    )
    if attempt.is_gone:
        log.error("webhook_out.endpoint_disabled", endpoint=webhook.endpoint_id, reason="410 Gone")
    return True


async def _send_until(stop: asyncio.Event, pool: Pool, sender: WebhookSender, clock: Clock) -> None:
    pause = _POLL_SECONDS
    while not stop.is_set():
        try:
            pause = 0.0 if await send_next(pool, sender, clock) else _POLL_SECONDS
        except (OperationalError, PoolTimeout, OSError) as error:
            pause = min(_LONGEST_PAUSE_SECONDS, max(pause, _POLL_SECONDS) * 2)
            log.warning("webhooks_out.waiting", error=str(error), retry_in_seconds=pause)
        if pause:
            try:
                await asyncio.wait_for(stop.wait(), pause)
            except TimeoutError:
                continue
