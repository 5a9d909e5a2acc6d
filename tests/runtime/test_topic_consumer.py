"""Reading billing topics on the real Kafka: bad records put aside, everything else retried, committed when handled."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import CommitFailedError, KafkaConnectionError

from core.dead_letter import DeadLetter
from core.errors import BrokenInvariantError, ConflictError, Fault, InvalidInputError
from core.topics import INVOICING_REQUESTS, Topic
from runtime import topic_consumer
from runtime.settings import InvalidSettingsError, Settings
from runtime.topic_consumer import TopicConsumer
from tests.on_topics import read_all

pytestmark = pytest.mark.integration
_numbers = itertools.count()


class Desk:
    """A topic of its own, a handler that a test scripts, and the consumers it started."""

    def __init__(self, settings: Settings, topic: Topic) -> None:
        self.settings, self.topic, self.group = settings, topic, f"{topic.name}-group"
        self.handled: list[bytes | None] = []
        self.script: Callable[[bytes | None], Awaitable[None]] = self._accept
        self.stops: list[asyncio.Event] = []
        self.running: list[asyncio.Task[None]] = []

    async def _accept(self, value: bytes | None) -> None:
        return

    async def _handle(self, value: bytes | None) -> None:
        await self.script(value)
        self.handled.append(value)

    def start(self) -> None:
        self.stops.append(asyncio.Event())
        consumer = TopicConsumer(self.settings, self.topic, self.group, self._handle)
        self.running.append(asyncio.create_task(consumer.run(self.stops[-1])))

    async def stop(self, number: int = -1) -> None:
        self.stops[number].set()
        await asyncio.wait_for(self.running[number], 10)

    async def write(self, *values: bytes | None, key: bytes | None = b"acme", partition: int = 0) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.settings.kafka_bootstrap)
        await producer.start()
        for value in values:
            await producer.send_and_wait(self.topic.name, value, key=key, partition=partition)
        await producer.stop()

    async def committed(self, partition: int = 0) -> int:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka_bootstrap)
        await admin.start()
        found = await admin.list_consumer_group_offsets(self.group)
        await admin.close()
        place = TopicPartition(self.topic.name, partition)
        return max(found[place].offset, 0) if place in found else 0

    async def letters(self) -> list[DeadLetter]:
        return [
            letter
            async for record in read_all(self.settings.kafka_bootstrap, "billing.rejected")
            if (letter := DeadLetter.from_record(record.value, record.headers)).topic == self.topic.name
        ]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                for task in self.running:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)


@pytest.fixture
async def desk(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(topic_consumer, "_LONGEST_PAUSE_SECONDS", 0.2)
    topic = replace(INVOICING_REQUESTS, name=f"consumer.{next(_numbers)}")
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic.name, 2, 1)])
    await admin.close()
    desk = Desk(settings, topic)
    yield desk
    for task in desk.running:
        task.cancel()
    await asyncio.gather(*desk.running, return_exceptions=True)


async def test_records_are_handled_in_order_and_committed(desk: Desk) -> None:
    await desk.write(b"1", b"2", b"3")
    desk.start()
    await desk.until(lambda: len(desk.handled) == 3)
    await desk.stop()
    assert desk.handled == [b"1", b"2", b"3"]
    assert await desk.committed() == 3


async def test_a_bad_record_is_put_aside_with_its_code_and_the_next_is_handled(desk: Desk) -> None:
    async def script(value: bytes | None) -> None:
        if value != b"good":
            raise InvalidInputError([Fault("malformed_message", "not a request", "period"), Fault("other", "too")])

    desk.script = script
    await desk.write(None, b"\xff bad")
    await desk.write(b"\xff bad too", key=None)
    await desk.write(b"good")
    desk.start()
    await desk.until(lambda: desk.handled == [b"good"])
    await desk.stop()
    letters = await desk.letters()
    assert [(letter.offset, letter.body) for letter in letters] == [(0, None), (1, b"\xff bad"), (2, b"\xff bad too")]
    assert {letter.code for letter in letters} == {"malformed_message"}
    assert "period: not a request" in letters[0].reason
    assert await desk.committed() == 4


async def test_a_refusal_without_faults_is_put_aside_by_its_own_code(desk: Desk) -> None:
    async def script(value: bytes | None) -> None:
        if value == b"bad":
            raise InvalidInputError([], "nothing in particular")

    desk.script = script
    await desk.write(b"bad", b"good")
    desk.start()
    await desk.until(lambda: desk.handled == [b"good"])
    assert [(letter.code, letter.reason) for letter in await desk.letters()] == [
        ("invalid_input", "nothing in particular")
    ]


async def test_anything_else_is_tried_again_until_it_succeeds_and_nothing_overtakes(desk: Desk) -> None:
    failures: list[Exception] = [OSError("away"), ConflictError("not yet"), ValueError("a mistake of ours")]

    async def script(value: bytes | None) -> None:
        if failures:
            assert await desk.committed() == 0
            raise failures.pop()

    desk.script = script
    await desk.write(b"1", b"2")
    desk.start()
    await desk.until(lambda: len(desk.handled) == 2)
    assert desk.handled == [b"1", b"2"]
    assert await desk.letters() == []


async def test_a_record_in_hand_when_the_process_dies_is_handled_by_the_next(desk: Desk) -> None:
    entered = asyncio.Event()

    async def script(value: bytes | None) -> None:
        if value == b"2":
            entered.set()
            await asyncio.sleep(60)

    desk.script = script
    await desk.write(b"1", b"2", b"3")
    desk.start()
    await asyncio.wait_for(entered.wait(), 30)
    desk.running[0].cancel()
    await asyncio.gather(*desk.running, return_exceptions=True)
    desk.running.clear()
    assert await desk.committed() == 1
    desk.script = desk._accept
    desk.handled.clear()
    desk.start()
    await desk.until(lambda: desk.handled == [b"2", b"3"])


async def test_it_ends_at_once_when_asked_in_the_middle_of_a_long_pause(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_consumer, "_LONGEST_PAUSE_SECONDS", 30.0)
    monkeypatch.setattr(topic_consumer.random, "uniform", lambda low, high: 1_000.0)
    tried = asyncio.Event()

    async def script(value: bytes | None) -> None:
        tried.set()
        raise OSError("away")

    desk.script = script
    await desk.write(b"1")
    desk.start()
    await asyncio.wait_for(tried.wait(), 30)
    await desk.stop()
    assert await desk.committed() == 0


@pytest.mark.parametrize(
    "error",
    [BrokenInvariantError("the sums disagree"), InvalidSettingsError([Fault("engine_not_set", "no kafka", "X")])],
    ids=["broken invariant", "missing engine"],
)
async def test_what_is_our_own_fault_stops_the_work_and_blames_no_record(desk: Desk, error: Exception) -> None:
    async def script(value: bytes | None) -> None:
        raise error

    desk.script = script
    await desk.write(b"1")
    desk.start()
    with pytest.raises(type(error)):
        await asyncio.wait_for(asyncio.shield(desk.running[0]), 30)
    assert await desk.committed() == 0
    assert await desk.letters() == []


async def test_a_dead_letter_that_cannot_be_written_is_no_reason_to_skip_the_record(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(value: bytes | None) -> None:
        if value == b"bad":
            raise InvalidInputError([Fault("bad", "bad")])

    outages = 2
    plain = AIOKafkaProducer.send_and_wait

    async def send(self: Any, topic: str, *arguments: Any, **named: Any) -> Any:
        nonlocal outages
        if topic == "billing.rejected" and outages:
            outages -= 1
            raise KafkaConnectionError("away")
        return await plain(self, topic, *arguments, **named)

    await desk.write(b"bad", b"good")
    monkeypatch.setattr(AIOKafkaProducer, "send_and_wait", send)
    desk.script = script
    desk.start()
    await desk.until(lambda: desk.handled == [b"good"])
    assert len(await desk.letters()) == 1


async def test_two_members_share_the_work_and_a_rebalance_in_the_middle_of_a_record_ends_nobody(desk: Desk) -> None:
    slow, deliveries = asyncio.Event(), 0

    async def script(value: bytes | None) -> None:
        nonlocal deliveries
        if value == b"slow":
            deliveries += 1
            if deliveries == 1:
                await slow.wait()

    def second_is_at_work() -> bool:
        # It got the other partition, or the one whose record the first has in hand.
        return deliveries == 2 or {b"%d" % number for number in range(5, 10)} <= set(desk.handled)

    desk.script = script
    await desk.write(b"slow", *[b"%d" % number for number in range(5)], partition=0)
    desk.start()
    await asyncio.sleep(0.5)
    desk.start()
    # The second member's joining moves partitions while the first is busy.
    await desk.write(*[b"%d" % number for number in range(5, 10)], partition=1)
    await desk.until(second_is_at_work)
    slow.set()
    await desk.until(lambda: {b"slow", *[b"%d" % number for number in range(10)]} <= set(desk.handled))
    assert not any(task.done() for task in desk.running)
    await desk.stop(0)
    await desk.stop(1)
    assert (await desk.committed(0), await desk.committed(1)) == (6, 5)


async def test_a_commit_that_came_too_late_is_no_failure(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, refusals = AIOKafkaConsumer.commit, 1

    async def commit(self: Any, offsets: Any = None) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise CommitFailedError
        await plain(self, offsets)

    monkeypatch.setattr(AIOKafkaConsumer, "commit", commit)
    await desk.write(b"1")
    desk.start()
    await desk.until(lambda: desk.handled == [b"1"])
    await desk.write(b"2")
    await desk.until(lambda: b"2" in desk.handled)
    assert not desk.running[0].done()
