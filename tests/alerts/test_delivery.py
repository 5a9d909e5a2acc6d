"""Alerts over real HTTP, SMTP, PostgreSQL and Kafka: each told once per channel, none lost while receivers are down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from alerts.adapters.mail_channel import MailChannel
from alerts.adapters.postgres_deliveries import PostgresDeliveries
from alerts.adapters.slack_channel import SlackChannel
from alerts.claim_alert import claim_alert
from alerts.consumer import channel_names, create_channels, run
from alerts.deliver_alert import deliver_next
from alerts.domain.retry import REFUSALS_MAX
from core.alert_rules import AlertRule, AlertRules
from core.clock import ManualClock, SystemClock
from core.errors import InvalidInputError
from core.messages import QuotaCrossed, encode_message
from core.topics import QUOTA_CROSSED
from runtime.postgres import Pool
from runtime.settings import Settings
from runtime.topic_consumer import create_producer
from tests.standins.process import Standins

pytestmark = pytest.mark.integration


def crossing(**changes: Any) -> QuotaCrossed:
    return QuotaCrossed(
        **{
            "tenant_id": f"tenant-{uuid4().hex[:12]}",
            "meter": "api_requests",
            "unit": "request",
            "period": "2026-10",
            "percent": 80,
            "used": "800",
            "limit": "1000",
            "crossed_at": "2026-10-20T11:59:58Z",
            **changes,
        }
    )


class Desk:
    """Claims and delivers by a clock that moves only when told to."""

    def __init__(self, pool: Pool, channels: list[SlackChannel | MailChannel], clock: ManualClock) -> None:
        self.pool, self.store = pool, PostgresDeliveries(pool)
        self.channels = {channel.name: channel for channel in channels}
        self.clock, self.rules = clock, AlertRules.of((), (80, 100))

    async def claim(self, message: QuotaCrossed, *channels: str) -> bool:
        names = channels or tuple(self.channels)
        raw = encode_message(message)
        return await claim_alert(raw, "quota", channels=names, rules=self.rules, store=self.store, clock=self.clock)

    async def deliver(self, name: str) -> int:
        """Deliver everything due on a channel now; returns how many tries that took."""
        tries = 0
        while await deliver_next(self.channels[name], store=self.store, rules=self.rules, clock=self.clock):
            tries += 1
        return tries

    async def rows(self) -> dict[str, dict[str, Any]]:
        async with self.pool.connection() as connection:
            found = await (await connection.execute("SELECT * FROM alert_deliveries")).fetchall()
        return {row["channel"]: row for row in found}


@pytest.fixture
async def desk(pool: Pool, settings: Settings) -> AsyncIterator[Desk]:
    clock = ManualClock(datetime(2026, 10, 20, 12, 0, tzinfo=UTC))
    channels = create_channels(settings, clock)
    yield Desk(pool, channels, clock)
    for channel in channels:
        await channel.close()


async def test_each_channel_is_told_once_however_often_it_is_reported(desk: Desk, standins: Standins) -> None:
    message = crossing()
    assert await desk.claim(message)
    assert not await desk.claim(message)
    assert (await desk.deliver("slack"), await desk.deliver("email")) == (1, 1)
    assert not await desk.claim(message)
    assert (await desk.deliver("slack"), await desk.deliver("email")) == (0, 0)
    [posted] = standins.slack_messages()
    assert message.tenant_id in posted["text"]
    [mail] = standins.mails()
    assert mail["message_id"] == f"<{message.alert_id}@meterbook.invalid>"
    assert mail["envelope_to"] == ["ops@acme.invalid", "finance@acme.invalid"]
    rows = await desk.rows()
    assert {row["status"] for row in rows.values()} == {"sent"}
    assert {row["sent_at"] for row in rows.values()} == {desk.clock.now()}


async def test_a_new_period_or_threshold_is_another_alert(desk: Desk, standins: Standins) -> None:
    tenant = f"tenant-{uuid4().hex[:12]}"
    for changes in ({}, {"percent": 100}, {"period": "2026-11"}, {"limit": "2000"}, {"arming": 1}):
        assert await desk.claim(crossing(tenant_id=tenant, **changes), "slack")
    assert await desk.deliver("slack") == 5
    assert len(standins.slack_messages()) == 5


async def test_a_rule_chooses_the_channels_and_a_disabled_level_leaves_the_default(desk: Desk) -> None:
    message = crossing()
    rule = AlertRule("r", "percent", Decimal(80), message.tenant_id, message.meter, channels=("email",))
    desk.rules = AlertRules.of([rule], (80, 100))
    assert await desk.claim(message)
    assert set(await desk.rows()) == {"email"}


async def test_an_alert_is_on_record_even_where_no_channel_is_set_up(desk: Desk) -> None:
    message = crossing()
    raw = encode_message(message)
    for expected in (True, False):
        assert expected is await claim_alert(
            raw, "quota", channels=(), rules=desk.rules, store=desk.store, clock=desk.clock
        )
    async with desk.pool.connection() as connection:
        row = await (
            await connection.execute("SELECT * FROM alerts WHERE alert_id = %s", (message.alert_id,))
        ).fetchone()
    assert row is not None
    assert (row["kind"], row["tenant_id"], row["meter_id"]) == ("quota", message.tenant_id, "api_requests")
    assert row["payload"]["used"] == "800"


@pytest.mark.parametrize("kind", ["server_error", "cut_before"])
async def test_while_slack_is_down_the_alert_waits_with_growing_pauses(
    kind: str, desk: Desk, standins: Standins
) -> None:
    await desk.claim(crossing(), "slack")
    standins.fail_slack(kind, count=5)
    tries = 0
    for _ in range(40):
        tries += await desk.deliver("slack")
        desk.clock.advance(timedelta(seconds=0.5))
        if tries == 3:
            row = (await desk.rows())["slack"]
            assert (row["status"], row["attempts"], row["sent_at"]) == ("pending", 3, None)
            assert row["last_error"]
    assert tries == 6
    assert len(standins.slack_messages()) == 1
    assert (await desk.rows())["slack"]["status"] == "sent"


async def test_retry_after_of_slack_is_respected(desk: Desk, standins: Standins) -> None:
    await desk.claim(crossing(), "slack")
    standins.fail_slack("rate_limit", retry_after_seconds=30)
    assert await desk.deliver("slack") == 1
    desk.clock.advance(timedelta(seconds=29))
    assert await desk.deliver("slack") == 0
    desk.clock.advance(timedelta(seconds=1))
    assert await desk.deliver("slack") == 1
    assert len(standins.slack_messages()) == 1


async def test_a_removed_webhook_is_given_up_with_its_reason(desk: Desk, standins: Standins) -> None:
    gone = SlackChannel(standins.slack_url.replace("standin", "gone"), desk.clock)
    desk.channels["slack"] = gone
    await desk.claim(crossing(), "slack")
    for _ in range(REFUSALS_MAX):
        assert await desk.deliver("slack") == 1
        desk.clock.advance(timedelta(minutes=1))
    assert await desk.deliver("slack") == 0
    row = (await desk.rows())["slack"]
    assert (row["status"], row["last_error"]) == ("refused", "404 no_service")
    await gone.close()


async def test_slack_down_does_not_hold_mail_up(desk: Desk, standins: Standins) -> None:
    await desk.claim(crossing())
    standins.fail_slack("server_error")
    await desk.deliver("slack")
    assert await desk.deliver("email") == 1
    assert len(standins.mails()) == 1


async def test_a_busy_mail_server_is_tried_again(desk: Desk, standins: Standins) -> None:
    await desk.claim(crossing(), "email")
    standins.fail_smtp("refuse", code=451, count=2)
    assert await desk.deliver("email") == 1
    desk.clock.advance(timedelta(minutes=1))
    assert await desk.deliver("email") == 1
    assert (await desk.rows())["email"]["last_error"].startswith("451 ")
    desk.clock.advance(timedelta(minutes=1))
    assert await desk.deliver("email") == 1
    assert len(standins.mails()) == 1


async def test_a_mail_repeated_after_a_lost_reply_has_the_same_message_id(desk: Desk, standins: Standins) -> None:
    await desk.claim(crossing(), "email")
    standins.fail_smtp("cut_after")
    await desk.deliver("email")
    desk.clock.advance(timedelta(minutes=1))
    await desk.deliver("email")
    first, second = standins.mails()
    assert first["message_id"] == second["message_id"]
    assert (await desk.rows())["email"]["status"] == "sent"


async def test_one_refused_recipient_does_not_tell_the_others_twice(desk: Desk, standins: Standins) -> None:
    await desk.claim(crossing(), "email")
    standins.fail_smtp("refuse", code=550, stage="rcpt")
    await desk.deliver("email")
    row = (await desk.rows())["email"]
    assert row["status"] == "sent"
    assert "ops@acme.invalid: 550" in row["last_error"]
    assert [mail["envelope_to"] for mail in standins.mails()] == [["finance@acme.invalid"]]


async def test_a_mail_server_that_is_away_is_waited_for(desk: Desk, standins: Standins) -> None:
    away = MailChannel("smtp://127.0.0.1:9", sender="a@meters.example", recipients=("ops@acme.invalid",))
    there, desk.channels["email"] = desk.channels["email"], away
    await desk.claim(crossing(), "email")
    for _ in range(REFUSALS_MAX + 3):
        assert await desk.deliver("email") == 1
        desk.clock.advance(timedelta(minutes=1))
    assert (await desk.rows())["email"]["status"] == "pending"
    desk.channels["email"] = there
    assert await desk.deliver("email") == 1
    assert len(standins.mails()) == 1


async def test_two_workers_never_send_the_same_delivery(desk: Desk, standins: Standins) -> None:
    for _ in range(10):
        await desk.claim(crossing(), "slack")
    tries = await asyncio.gather(*(desk.deliver("slack") for _ in range(3)))
    assert sum(tries) == 10
    assert len({message["text"] for message in standins.slack_messages()}) == 10


@pytest.mark.parametrize(
    "raw",
    [None, b"not json", b"{}", encode_message(crossing(used="many")), encode_message(crossing(value="eighty"))],
)
async def test_a_record_that_is_no_crossing_is_refused(raw: bytes | None, desk: Desk) -> None:
    with pytest.raises(InvalidInputError):
        await claim_alert(raw, "quota", channels=["slack"], rules=desk.rules, store=desk.store, clock=desk.clock)
    assert await desk.rows() == {}


def test_channels_without_settings_are_not_there(settings: Settings) -> None:
    clock = SystemClock()
    bare = settings.model_copy(update={"slack_webhook_url": None, "alert_email_to": ()})
    assert create_channels(bare, clock) == []
    assert channel_names(bare) == ()
    assert [channel.name for channel in create_channels(settings, clock)] == ["slack", "email"]
    assert channel_names(settings) == ("slack", "email")


async def test_two_workers_take_it_from_the_topic_and_send_it_once(
    settings: Settings, pool: Pool, standins: Standins
) -> None:
    messages = [crossing(), crossing(percent=100, used="1000")]
    producer = create_producer(settings)
    await producer.start()
    for message in [*messages, *messages]:
        await producer.send_and_wait(QUOTA_CROSSED.name, value=encode_message(message), key=message.tenant_id.encode())
    await producer.stop()
    wanted = {message.tenant_id for message in messages}

    # The suite shares the topic: crossings that other tests made are delivered here as well.
    def posted() -> list[str]:
        return [text.split()[0] for text in (m["text"] for m in standins.slack_messages()) if text.split()[0] in wanted]

    def mailed() -> list[str]:
        ids = {f"<{message.alert_id}@meterbook.invalid>" for message in messages}
        return [mail["message_id"] for mail in standins.mails() if mail["message_id"] in ids]

    stop = asyncio.Event()
    standins.fail_slack("server_error", count=2)
    workers = [asyncio.create_task(run(settings, stop)) for _ in range(2)]
    try:
        await _until(workers, lambda: len(posted()) >= 2 and len(mailed()) >= 2)
    finally:
        stop.set()
        await asyncio.gather(*workers)
    assert sorted(posted()) == sorted(wanted)
    assert len(mailed()) == len(set(mailed())) == 2


async def _until(workers: list[asyncio.Task[None]], holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(holds):
            for worker in workers:
                if worker.done():
                    worker.result()
            await asyncio.sleep(0.05)
