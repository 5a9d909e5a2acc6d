"""The raw topic and the journal as reconciliation reads them: forward, without a consumer group, one pass each."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition

from core.journal import JournalEntry, decode_entry
from core.topics import USAGE_EVENTS, USAGE_JOURNAL
from metering.reconcile.domain.event_count import count_events
from metering.reconcile.domain.gap import HOUR_SECONDS, Cell
from metering.reconcile.ports import RawRange
from runtime.kafka_ranges import RangeReader, read_range
from runtime.settings import Settings

_CALL_SECONDS = 120.0


class KafkaTrail:
    """Implements `Trail`: one connection per topic, so that reading one does not unsettle the other."""

    def __init__(self, settings: Settings) -> None:
        self._journal = RangeReader(settings, USAGE_JOURNAL.name, call_seconds=_CALL_SECONDS)
        self._events = RangeReader(settings, USAGE_EVENTS.name, call_seconds=_CALL_SECONDS)

    async def close(self) -> None:
        """Disconnect."""
        await self._journal.close()
        await self._events.close()

    async def journal(self, partition: int, first: int, most: int) -> list[tuple[int, JournalEntry]]:
        """Return entries from a journal offset on."""
        async with self._journal.reading() as consumer:
            where = TopicPartition(USAGE_JOURNAL.name, partition)
            start, end = await _bounds(consumer, where)
            found: list[tuple[int, JournalEntry]] = []
            async for record in read_range(consumer, where, max(first, start), end):
                found.append((record.offset, decode_entry(record.value)))
                if len(found) >= most:
                    break
            return found

    async def journal_end(self, partition: int) -> int:
        """Return the journal offset that the next entry gets."""
        async with self._journal.reading() as consumer:
            return (await _bounds(consumer, TopicPartition(USAGE_JOURNAL.name, partition)))[1]

    async def count_events(self, partition: int, ranges: Sequence[RawRange]) -> list[int]:
        """Return how many events the raw records of each range hold, in one pass over all of them."""
        async with self._events.reading() as consumer:
            where = TopicPartition(USAGE_EVENTS.name, partition)
            counts, at = [0] * len(ranges), 0
            async for record in read_range(consumer, where, ranges[0].first, ranges[-1].last + 1):
                while record.offset > ranges[at].last:
                    at += 1
                if record.offset >= ranges[at].first:
                    counts[at] += count_events(record.offset, record.value, ranges[at].refused)
            return counts

    async def retained_from(self, partition: int) -> int:
        """Return the first raw offset that is still there."""
        async with self._events.reading() as consumer:
            where = TopicPartition(USAGE_EVENTS.name, partition)
            return int((await consumer.beginning_offsets([where]))[where])

    async def entry_at(self, partition: int, source_offset: int) -> tuple[int, JournalEntry] | None:
        """Return the entry that covers a source offset, by halving the journal."""
        async with self._journal.reading() as consumer:
            where = TopicPartition(USAGE_JOURNAL.name, partition)
            low, high = await _bounds(consumer, where)
            while low < high:
                middle = (low + high) // 2
                record = await anext(read_range(consumer, where, middle, high), None)
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
        async with self._journal.reading() as consumer:
            where = TopicPartition(USAGE_JOURNAL.name, partition)
            start, end = await _bounds(consumer, where)
            first, last = max(start, min(wanted)), min(end, max(wanted) + 1)
            return [
                (record.offset, decode_entry(record.value))
                async for record in read_range(consumer, where, first, last)
                if record.offset in wanted
            ]

    async def touching(self, partition: int, cells: Collection[Cell], since_ms: int) -> list[int]:
        """Return the offsets of entries written since then that changed one of the cells."""
        wanted = set(cells)
        async with self._journal.reading() as consumer:
            where = TopicPartition(USAGE_JOURNAL.name, partition)
            start, end = await _bounds(consumer, where)
            at = (await consumer.offsets_for_times({where: max(0, since_ms)}))[where]
            first = end if at is None else max(start, at.offset)
            return [
                record.offset
                async for record in read_range(consumer, where, first, end)
                if touched_cells(decode_entry(record.value)) & wanted
            ]


def touched_cells(entry: JournalEntry) -> set[Cell]:
    """Return the cells an entry changed."""
    windows = {Cell(row.tenant, row.start // HOUR_SECONDS * HOUR_SECONDS) for row in entry.windows}
    samples = {Cell(row.tenant, row.time_us // 1_000_000 // HOUR_SECONDS * HOUR_SECONDS) for row in entry.samples}
    return windows | samples


async def _bounds(consumer: AIOKafkaConsumer, where: TopicPartition) -> tuple[int, int]:
    return (await consumer.beginning_offsets([where]))[where], (await consumer.end_offsets([where]))[where]
