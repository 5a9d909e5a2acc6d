"""The raw topic and the journal as reconciliation reads them: forward, without a consumer group, one pass each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from core.errors import UnavailableError
from core.journal import JournalEntry, decode_entry
from core.topics import USAGE_EVENTS, USAGE_JOURNAL
from metering.reconcile.domain.event_count import count_events
from metering.reconcile.domain.gap import HOUR_SECONDS, Cell
from metering.reconcile.ports import RawRange
from runtime.settings import Settings

_CALL_SECONDS = 120.0
_PER_FETCH = 2_000


class KafkaTrail:
    """Implements `Trail`: one connection per topic, so that reading one does not unsettle the other."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumers: dict[str, AIOKafkaConsumer] = {}
        self._turn = asyncio.Lock()

    async def close(self) -> None:
        """Disconnect."""
        for consumer in self._consumers.values():
            await consumer.stop()
        self._consumers.clear()

    async def journal(self, partition: int, first: int, most: int) -> list[tuple[int, JournalEntry]]:
        """Return entries from a journal offset on."""
        async with self._reader(USAGE_JOURNAL.name) as consumer:
            where = TopicPartition(USAGE_JOURNAL.name, partition)
            start, end = await _bounds(consumer, where)
            found: list[tuple[int, JournalEntry]] = []
            async for record in _records(consumer, where, max(first, start), end):
                found.append((record.offset, decode_entry(record.value)))
                if len(found) >= most:
                    break
            return found

    async def journal_end(self, partition: int) -> int:
        """Return the journal offset that the next entry gets."""
        async with self._reader(USAGE_JOURNAL.name) as consumer:
            return (await _bounds(consumer, TopicPartition(USAGE_JOURNAL.name, partition)))[1]

    async def count_events(self, partition: int, ranges: Sequence[RawRange]) -> list[int]:
        """Return how many events the raw records of each range hold, in one pass over all of them."""
        async with self._reader(USAGE_EVENTS.name) as consumer:
            where = TopicPartition(USAGE_EVENTS.name, partition)
            counts, at = [0] * len(ranges), 0
            async for record in _records(consumer, where, ranges[0].first, ranges[-1].last + 1):
                while record.offset > ranges[at].last:
                    at += 1
                if record.offset >= ranges[at].first:
                    counts[at] += count_events(record.offset, record.value, ranges[at].refused)
            return counts

    async def retained_from(self, partition: int) -> int:
        """Return the first raw offset that is still there."""
        async with self._reader(USAGE_EVENTS.name) as consumer:
            where = TopicPartition(USAGE_EVENTS.name, partition)
            return int((await consumer.beginning_offsets([where]))[where])

    async def entry_at(self, partition: int, source_offset: int) -> tuple[int, JournalEntry] | None:
        """Return the entry that covers a source offset, by halving the journal."""
        async with self._reader(USAGE_JOURNAL.name) as consumer:
            where = TopicPartition(USAGE_JOURNAL.name, partition)
            low, high = await _bounds(consumer, where)
            while low < high:
                middle = (low + high) // 2
                record = await anext(_records(consumer, where, middle, high), None)
                entry = None if record is None else decode_entry(record.value)
                if record is None or entry is None or entry.first > source_offset:
                    high = middle
                elif entry.last < source_offset:
                    low = record.offset + 1
                else:
                    return record.offset, entry
            return None

    async def entries(self, partition: int, offsets: Sequence[int]) -> list[tuple[int, JournalEntry]]:
        """Return the entries at these offsets."""
        wanted = set(offsets)
        if not wanted:
            return []
        async with self._reader(USAGE_JOURNAL.name) as consumer:
            where = TopicPartition(USAGE_JOURNAL.name, partition)
            start, end = await _bounds(consumer, where)
            first, last = max(start, min(wanted)), min(end, max(wanted) + 1)
            return [
                (record.offset, decode_entry(record.value))
                async for record in _records(consumer, where, first, last)
                if record.offset in wanted
            ]

    async def touching(self, partition: int, cells: Collection[Cell], since_ms: int) -> list[int]:
        """Return the offsets of entries written since then that changed one of the cells."""
        wanted = set(cells)
        async with self._reader(USAGE_JOURNAL.name) as consumer:
            where = TopicPartition(USAGE_JOURNAL.name, partition)
            start, end = await _bounds(consumer, where)
            at = (await consumer.offsets_for_times({where: max(0, since_ms)}))[where]
            first = end if at is None else max(start, at.offset)
            return [
                record.offset
                async for record in _records(consumer, where, first, end)
                if touched_cells(decode_entry(record.value)) & wanted
            ]

    @asynccontextmanager
    async def _reader(self, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
        try:
            async with self._turn, asyncio.timeout(_CALL_SECONDS):
                if topic not in self._consumers:
                    self._consumers[topic] = await self._connect()
                yield self._consumers[topic]
        except (KafkaError, TimeoutError, OSError) as error:
            raise UnavailableError(f"{topic} cannot be read now: {error!r}") from error

    async def _connect(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka_bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=4_000_000,
            fetch_max_wait_ms=20,
        )
        try:
            await consumer.start()
        except BaseException:
            await consumer.stop()
            raise
        return consumer


def touched_cells(entry: JournalEntry) -> set[Cell]:
    """Return the cells an entry changed."""
    windows = {Cell(row.tenant, row.start // HOUR_SECONDS * HOUR_SECONDS) for row in entry.windows}
    samples = {Cell(row.tenant, row.time_us // 1_000_000 // HOUR_SECONDS * HOUR_SECONDS) for row in entry.samples}
    return windows | samples


async def _bounds(consumer: AIOKafkaConsumer, where: TopicPartition) -> tuple[int, int]:
    return (await consumer.beginning_offsets([where]))[where], (await consumer.end_offsets([where]))[where]


async def _records(consumer: AIOKafkaConsumer, where: TopicPartition, first: int, end: int) -> AsyncIterator[Any]:
    if first >= end:
        return
    if consumer.assignment() != {where}:
        consumer.assign([where])
        consumer.seek(where, first)
    elif await consumer.position(where) != first:
        consumer.seek(where, first)
    while (at := await consumer.position(where)) < end:
        fetched = await consumer.getmany(where, timeout_ms=200, max_records=min(_PER_FETCH, end - at))
        for record in fetched.get(where, []):
            if record.offset >= end:
                return
            yield record
