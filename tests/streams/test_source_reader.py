"""Ranges of raw records on the real Kafka: exactly those asked for, in order, however they are asked for."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from core.topics import USAGE_EVENTS
from runtime.settings import Settings
from streams.adapters import source_reader
from streams.adapters.source_reader import SourceReader

pytestmark = pytest.mark.integration
_numbers = itertools.count()


class Desk:
    """A topic of its own, with a transactional writer: its markers take offsets, as on the real topic."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.bootstrap, self.topic = bootstrap, topic
        self.offsets: list[int] = []
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"{topic}-writer")

    async def start(self) -> None:
        await self._producer.start()

    async def stop(self) -> None:
        await self._producer.stop()

    async def write(self, count: int, *, commit: bool = True) -> None:
        await self._producer.begin_transaction()
        sent = [await self._producer.send(self.topic, b"%d" % number, partition=0) for number in range(count)]
        offsets = [place.offset for place in await asyncio.gather(*sent)]
        if commit:
            await self._producer.commit_transaction()
            self.offsets += offsets
        else:
            await self._producer.abort_transaction()

    async def delete_before(self, offset: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        await admin.delete_records({TopicPartition(self.topic, 0): RecordsToDelete(before_offset=offset)})
        await admin.close()


@pytest.fixture
async def desk(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    topic = f"reader.{next(_numbers)}"
    monkeypatch.setattr(source_reader, "USAGE_EVENTS", replace(USAGE_EVENTS, name=topic))
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    desk = Desk(settings.kafka_bootstrap, topic)
    await desk.start()
    yield desk
    await desk.stop()


@pytest.fixture
async def reader(desk: Desk) -> AsyncIterator[SourceReader]:
    reader = SourceReader(desk.bootstrap, 0)
    await reader.start()
    yield reader
    await reader.stop()


async def offsets_of(reader: SourceReader, first: int, last: int) -> list[int]:
    async with asyncio.timeout(20):
        return [record.offset async for record in reader.read(first, last)]


async def test_consecutive_ranges_give_every_record_once(desk: Desk, reader: SourceReader) -> None:
    for count in (5, 1, 7):
        await desk.write(count)
    ranges = [(0, 2), (3, 4), (5, desk.offsets[5]), (desk.offsets[5] + 1, desk.offsets[-1])]
    found = [offset for first, last in ranges for offset in await offsets_of(reader, first, last)]
    assert found == desk.offsets


async def test_a_range_may_be_read_again_and_some_left_out(desk: Desk, reader: SourceReader) -> None:
    await desk.write(20)
    assert await offsets_of(reader, 15, 19) == [15, 16, 17, 18, 19]
    assert await offsets_of(reader, 2, 4) == [2, 3, 4]
    assert await offsets_of(reader, 2, 4) == [2, 3, 4]
    assert await offsets_of(reader, 10, 11) == [10, 11]
    assert await offsets_of(reader, 19, 19) == [19]


async def test_records_that_are_still_to_come_are_waited_for(desk: Desk, reader: SourceReader) -> None:
    await desk.write(2)
    reading = asyncio.create_task(offsets_of(reader, 0, 4))
    await desk.write(2)
    assert await reading == [0, 1, 3, 4]


async def test_aborted_records_are_no_records(desk: Desk, reader: SourceReader) -> None:
    await desk.write(2)
    await desk.write(3, commit=False)
    await desk.write(1)
    assert await offsets_of(reader, 0, desk.offsets[-1]) == desk.offsets == [0, 1, 7]
    assert await reader.end_offset() == 9


async def test_a_range_of_which_retention_took_the_beginning_gives_the_rest(desk: Desk, reader: SourceReader) -> None:
    await desk.write(10)
    await desk.delete_before(6)
    assert await offsets_of(reader, 2, 8) == [6, 7, 8]
    assert await offsets_of(reader, 9, 9) == [9]


async def test_a_range_that_retention_took_whole_ends_empty(desk: Desk, reader: SourceReader) -> None:
    await desk.write(10)
    await desk.delete_before(8)
    assert await offsets_of(reader, 2, 5) == []
    assert await offsets_of(reader, 8, 9) == [8, 9]


async def test_a_range_after_which_nothing_was_left_ends_empty(desk: Desk, reader: SourceReader) -> None:
    await desk.write(3)
    await desk.delete_before(4)
    assert await offsets_of(reader, 0, 2) == []
    await desk.write(1)
    assert await offsets_of(reader, 4, 4) == [4]


async def until_read_up(reader: SourceReader, next_offset: int) -> None:
    async with asyncio.timeout(20):
        while not await reader.is_read_up(next_offset):
            continue


async def test_it_is_read_up_when_only_markers_are_left_and_nothing_that_came_meanwhile_is_lost(
    desk: Desk, reader: SourceReader
) -> None:
    await until_read_up(reader, 0)
    await desk.write(3)
    await desk.write(2, commit=False)
    async with asyncio.timeout(20):
        while await reader.is_read_up(0):
            continue
    assert await offsets_of(reader, 0, desk.offsets[-1]) == desk.offsets
    await until_read_up(reader, desk.offsets[-1] + 1)
    read = list(desk.offsets)
    await desk.write(4)
    async with asyncio.timeout(20):
        while await reader.is_read_up(read[-1] + 1):
            continue
    new = [offset for offset in desk.offsets if offset not in read]
    assert await offsets_of(reader, read[-1] + 1, new[-1]) == new
    await until_read_up(reader, new[-1] + 1)
