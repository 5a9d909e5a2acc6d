"""The outbox on the real stores: in order, at least once, one relay at a time, an outage of either side waited out."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaTimeoutError

from core.clock import ManualClock
from core.topics import INVOICE_FINALIZED, Topic
from runtime import outbox
from runtime.outbox import OutboxRelay, SilentProducerError, append_event
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings
from runtime.topic_consumer import create_producer
from tests.on_topics import read_all

pytestmark = pytest.mark.integration
NOW = datetime(2026, 10, 31, 7, 30, tzinfo=UTC)
_numbers = itertools.count()


@pytest.fixture
async def topic(settings: Settings) -> Topic:
    """A topic of this test alone, with one partition: order can be told."""
    topic = replace(INVOICE_FINALIZED, name=f"outbox.{next(_numbers)}")
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic.name, 1, 1)])
    await admin.close()
    return topic


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Pool]:
    async with create_pool(settings, max_size=3) as pool:
        async with pool.connection() as connection:
            # What other tests announced and nobody published is not this test's.
            await connection.execute("DELETE FROM outbox WHERE published_at IS NULL")
        yield pool


@pytest.fixture
async def producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    producer = create_producer(settings)
    await producer.start()
    yield producer
    await producer.stop()


async def announce(pool: Pool, topic: Topic, *numbers: int) -> None:
    async with pool.connection() as connection:
        for number in numbers:
            await append_event(
                connection,
                topic,
                key="acme",
                event_id=f"{topic.name}-{number}",
                payload=b"%d" % number,
                now=NOW,
            )


async def published(settings: Settings, topic: Topic) -> list[int]:
    return [int(record.value) async for record in read_all(settings.kafka_bootstrap, topic.name)]


async def open_rows(pool: Pool) -> int:
    async with pool.connection() as connection:
        row = await (await connection.execute("SELECT count(*) FROM outbox WHERE published_at IS NULL")).fetchone()
    assert row
    return int(row["count"])


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():
            await asyncio.sleep(0.02)


async def test_events_are_published_in_order_with_key_and_identity_and_marked(
    settings: Settings, pool: Pool, producer: AIOKafkaProducer, topic: Topic
) -> None:
    await announce(pool, topic, *range(30))
    relay = OutboxRelay(pool, producer, ManualClock(NOW))
    assert await relay.publish_pending() == 30
    assert await relay.publish_pending() == 0
    records = [record async for record in read_all(settings.kafka_bootstrap, topic.name)]
    assert [int(record.value) for record in records] == list(range(30))
    assert {record.key for record in records} == {b"acme"}
    assert dict(records[7].headers) == {"meterbook_event_id": f"{topic.name}-7".encode()}
    async with pool.connection() as connection:
        rows = await (
            await connection.execute("SELECT published_at FROM outbox WHERE topic = %s", (topic.name,))
        ).fetchall()
    assert [row["published_at"] for row in rows] == [NOW] * 30


async def test_the_same_event_twice_is_written_once_and_the_first_stays(
    settings: Settings, pool: Pool, producer: AIOKafkaProducer, topic: Topic
) -> None:
    await announce(pool, topic, 1, 1, 2)
    await announce(pool, topic, 1)
    assert await OutboxRelay(pool, producer, ManualClock(NOW)).publish_pending() == 2


async def test_what_was_rolled_back_is_never_published(
    settings: Settings, pool: Pool, producer: AIOKafkaProducer, topic: Topic
) -> None:
    async with pool.connection() as connection, connection.transaction(force_rollback=True):
        await append_event(connection, topic, key="k", event_id=f"{topic.name}-x", payload=b"1", now=NOW)
    assert await OutboxRelay(pool, producer, ManualClock(NOW)).publish_pending() == 0


async def test_a_crash_between_publishing_and_marking_publishes_again(
    settings: Settings, pool: Pool, producer: AIOKafkaProducer, topic: Topic
) -> None:
    await announce(pool, topic, 1, 2)

    with pytest.raises(SystemError):
        await OutboxRelay(pool, producer, DyingClock()).publish_pending()
    assert await published(settings, topic) == [1, 2]
    assert await open_rows(pool) == 2
    assert await OutboxRelay(pool, producer, ManualClock(NOW)).publish_pending() == 2
    assert await published(settings, topic) == [1, 2, 1, 2]


class DyingClock:
    """Tells the time once, for the age of the oldest row, and dies when the rows are to be marked."""

    def __init__(self) -> None:
        self._asked = 0

    def now(self) -> datetime:
        self._asked += 1
        if self._asked > 1:
            raise SystemError("killed before the rows were marked")
        return NOW


async def test_two_relays_publish_everything_once_and_in_order(
    settings: Settings, pool: Pool, producer: AIOKafkaProducer, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_BATCH", 7)
    monkeypatch.setattr(outbox, "_POLL_SECONDS", 0.01)
    stop = asyncio.Event()
    relays = [asyncio.create_task(OutboxRelay(pool, producer, ManualClock(NOW)).run(stop)) for _ in range(2)]
    for start in range(0, 100, 20):
        await announce(pool, topic, *range(start, start + 20))

    async def all_published() -> bool:
        return await open_rows(pool) == 0

    await until(all_published)
    stop.set()
    await asyncio.gather(*relays)
    assert await published(settings, topic) == list(range(100))


async def test_a_producer_that_says_nothing_ends_the_relay_and_the_next_one_publishes(
    settings: Settings, pool: Pool, producer: AIOKafkaProducer, topic: Topic
) -> None:
    await announce(pool, topic, 1)
    lost = create_producer(settings)
    await lost.start()
    # As if its task had ended by itself: nobody sends any more, and nobody says so.
    lost._sender._sender_task.cancel()
    with pytest.raises(SilentProducerError, match="nothing was heard"):
        await OutboxRelay(pool, lost, ManualClock(NOW), silent_seconds=0.5).run(asyncio.Event())
    await lost.client.close()
    assert await open_rows(pool) == 1
    assert await OutboxRelay(pool, producer, ManualClock(NOW)).publish_pending() == 1


async def test_an_outage_of_either_side_is_waited_out(
    settings: Settings, pool: Pool, producer: AIOKafkaProducer, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_POLL_SECONDS", 0.01)
    await announce(pool, topic, 1)
    outages: list[BaseException] = [
        psycopg.OperationalError("the connection is lost"),
        KafkaTimeoutError(),
        ConnectionResetError(),
        psycopg.errors.AdminShutdown("terminating connection"),
    ]
    seen: Counter[str] = Counter()
    relay = OutboxRelay(pool, producer, ManualClock(NOW))
    plain = relay.publish_pending

    async def failing() -> int:
        if outages:
            error = outages.pop()
            seen[type(error).__name__] += 1
            raise error
        return await plain()

    monkeypatch.setattr(relay, "publish_pending", failing)
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))

    async def all_published() -> bool:
        if running.done():
            running.result()
        return await open_rows(pool) == 0

    await until(all_published)
    stop.set()
    await running
    assert sum(seen.values()) == 4
    assert await published(settings, topic) == [1]
