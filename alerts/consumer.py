"""Worker of alerts: claims crossed quotas from `quota.crossed` and delivers all alerts, one task per channel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from psycopg import OperationalError
from psycopg_pool import PoolTimeout

from alerts.adapters.mail_channel import MailChannel
from alerts.adapters.postgres_deliveries import PostgresDeliveries
from alerts.adapters.slack_channel import SlackChannel
from alerts.claim_alert import claim_alert
from alerts.deliver_alert import deliver_next
from alerts.ports import Channel, DeliveryStore
from core.alert_rules import AlertRules
from core.clock import Clock, SystemClock
from core.topics import QUOTA_CROSSED
from runtime.alert_rules import AlertRulesCache
from runtime.postgres import create_pool
from runtime.settings import Settings
from runtime.topic_consumer import TopicConsumer

GROUP = "alerts"
_POLL_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
log = structlog.get_logger()


def create_channels(settings: Settings, clock: Clock) -> list[SlackChannel | MailChannel]:
    """Return the channels that are configured; the others get nothing claimed."""
    channels: list[SlackChannel | MailChannel] = []
    if settings.slack_webhook_url is not None:
        channels.append(SlackChannel(settings.slack_webhook_url.get_secret_value(), clock))
    if settings.smtp_url is not None and settings.alert_email_to:
        channels.append(
            MailChannel(settings.smtp_url, sender=settings.alert_email_from, recipients=settings.alert_email_to)
        )
    return channels


def channel_names(settings: Settings) -> tuple[str, ...]:
    """Return the names of the channels that are configured, for who claims and does not deliver."""
    slack = ("slack",) if settings.slack_webhook_url is not None else ()
    return (*slack, "email") if settings.smtp_url is not None and settings.alert_email_to else slack


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Claim and deliver alerts until `stop` is set; several may run at once."""
    clock = SystemClock()
    channels = create_channels(settings, clock)
    if not channels:
        log.warning("alerts.no_channel", hint="set METERBOOK_SLACK_WEBHOOK_URL, or METERBOOK_SMTP_URL and ..._EMAIL_TO")
    try:
        async with create_pool(settings, max_size=len(channels) + 2) as pool:
            store = PostgresDeliveries(pool)
            rules = AlertRulesCache(pool, settings.alert_thresholds_percent, settings.registry_refresh_seconds)

            async def handle(raw: bytes | None) -> None:
                await claim_alert(
                    raw, "quota", channels=channel_names(settings), rules=await rules.get(), store=store, clock=clock
                )

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(TopicConsumer(settings, QUOTA_CROSSED, GROUP, handle).run(stop))
                for channel in channels:
                    tasks.create_task(deliver_until(stop, channel, store=store, rules=rules.get, clock=clock))
    finally:
        await _close(channels)


async def deliver_until(
    stop: asyncio.Event,
    channel: Channel,
    *,
    store: DeliveryStore,
    rules: Callable[[], Awaitable[AlertRules]],
    clock: Clock,
) -> None:
    """Deliver what is due on one channel until `stop` is set; an outage of the store is waited out."""
    pause = _POLL_SECONDS
    while not stop.is_set():
        try:
            found = await deliver_next(channel, store=store, rules=await rules(), clock=clock)
            pause = 0.0 if found else _POLL_SECONDS
        except (OperationalError, PoolTimeout, OSError) as error:
            pause = min(_LONGEST_PAUSE_SECONDS, max(pause, _POLL_SECONDS) * 2)
            log.warning("alerts.waiting", channel=channel.name, error=str(error), retry_in_seconds=pause)
        if pause:
            try:
                await asyncio.wait_for(stop.wait(), pause)
            except TimeoutError:
                continue


async def _close(channels: Sequence[SlackChannel | MailChannel]) -> None:
    for channel in channels:
        await channel.close()
