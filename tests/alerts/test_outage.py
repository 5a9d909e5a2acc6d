"""Receivers that are down for ten minutes, answer 429 and 5xx, time out: every alert arrives on every channel once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from alerts.adapters.mail_channel import MailChannel
from alerts.adapters.postgres_deliveries import PostgresDeliveries
from alerts.adapters.slack_channel import SlackChannel
from alerts.claim_alert import claim_alert
from alerts.deliver_alert import deliver_next
from alerts.ports import Channel
from core.alert_rules import AlertRules
from core.clock import ManualClock
from core.messages import QuotaCrossed, encode_message
from runtime.postgres import Pool
from runtime.settings import Settings
from runtime.stored_alerts import list_alerts
from runtime.webhooks_out.address_guard import OutgoingPolicy
from runtime.webhooks_out.endpoints import EndpointWish, put_endpoint
from runtime.webhooks_out.send import WebhookSender
from runtime.webhooks_out.worker import send_next
from tests.standins.process import Standins
from tests.standins.webhook_receiver import WebhookReceiver

pytestmark = pytest.mark.integration
ALERTS = 50
DOWN = timedelta(minutes=10)
RULES = AlertRules.of((), (80, 100))


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    receiver = WebhookReceiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


def crossing() -> QuotaCrossed:
    return QuotaCrossed(
        tenant_id=f"t-{uuid4().hex[:12]}",
        meter="cpu",
        unit="vCPU-hour",
        period="2026-10",
        percent=80,
        used="8",
        limit="10",
        crossed_at="2026-10-20T11:59:58Z",
    )


async def test_fifty_alerts_through_ten_minutes_without_receivers(
    settings: Settings, pool: Pool, standins: Standins, receiver: WebhookReceiver
) -> None:
    # Receivers of webhooks refuse what is not of now, so the outage lies in the past.
    clock = ManualClock(datetime.now(UTC) - timedelta(minutes=40))
    store, sender = (
        PostgresDeliveries(pool),
        WebhookSender(OutgoingPolicy(allow_private=True), clock, timeout_seconds=0.3),
    )
    slack = SlackChannel(standins.slack_url, clock, timeout_seconds=0.3)
    mail = MailChannel(standins.smtp_url, sender="a@meters.example", recipients=("ops@acme.invalid",))
    nobody = MailChannel("smtp://127.0.0.1:9", sender="a@meters.example", recipients=("ops@acme.invalid",))
    async with pool.connection() as connection:
        wish = EndpointWish("hook", receiver.url)
        secret = await put_endpoint(connection, wish, random_bytes=os.urandom, now=clock.now())
    receiver.secrets.append(secret or "")

    messages = [crossing() for _ in range(ALERTS)]
    for message in [*messages, *messages[::3]]:
        await claim_alert(
            encode_message(message), "quota", channels=("slack", "email"), rules=RULES, store=store, clock=clock
        )

    async def deliver(*channels: Channel) -> int:
        tries = 0
        for channel in channels:
            while await deliver_next(channel, store=store, rules=RULES, clock=clock):
                tries += 1
        while await send_next(pool, sender, clock):
            tries += 1
        return tries

    for kind, count in (("slow", 2), ("cut_before", 10), ("rate_limit", 20), ("server_error", 10_000)):
        standins.fail_slack(kind, count, seconds=2)
    for kind, count in (("slow", 1), ("rate_limit", 1), ("cut_before", 1), ("server_error", 10_000)):
        receiver.faults.add({"kind": kind, "count": count, "seconds": 2})
    begin, failed = clock.now(), 0
    while clock.now() < begin + DOWN:
        failed += await deliver(slack, nobody)
        clock.advance(timedelta(seconds=200))
    assert failed >= 2 * ALERTS * 3
    assert (standins.slack_messages(), standins.mails(), receiver.received) == ([], [], [])

    standins.reset()
    receiver.faults.clear()
    while clock.now() < datetime.now(UTC) - timedelta(seconds=200):
        await deliver(slack, mail)
        clock.advance(timedelta(seconds=200))
    await deliver(slack, mail)

    ids = {message.alert_id for message in messages}
    assert Counter(one["payload"]["blocks"][-1]["elements"][0]["text"][-32:] for one in standins.slack_messages()) == (
        Counter(alert_id[-32:] for alert_id in ids)
    )
    assert Counter(one["message_id"] for one in standins.mails()) == Counter(f"<{one}@meters.example>" for one in ids)
    assert Counter(receiver.message_ids) == Counter(ids)
    async with pool.connection() as connection:
        assert not await list_alerts(connection, status="pending")
        assert not await list_alerts(connection, status="refused")
    await slack.close()
