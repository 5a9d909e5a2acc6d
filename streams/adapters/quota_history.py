"""The journal as the quota agent looks back on it: from where its book ends to where its group has committed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition

from core.topics import USAGE_JOURNAL


class KafkaHistory:
    """One journal partition and a consumer group's place in it."""

    def __init__(self, bootstrap: str, group: str, partition: int) -> None:
        self._bootstrap, self._group = bootstrap, group
        self._where = TopicPartition(USAGE_JOURNAL.name, partition)

    async def bounds(self) -> tuple[int, int, int]:
        """Return the first offset there is, the end (exclusive), and up to where the group has committed.

        A group that has committed nothing yet begins at the end: what it would have said about the past is not news.
        """
        async with self._reader() as reader:
            first = (await reader.beginning_offsets([self._where]))[self._where]
            end = (await reader.end_offsets([self._where]))[self._where]
            committed = await reader.committed(self._where)
        return first, end, end if committed is None else min(max(committed, first), end)

    async def record_at(self, offset: int) -> bytes | None:
        """Return the record at an offset, None if there is none."""
        async for found, raw in self.read(offset, offset + 1):
            return raw if found == offset else None
        return None

    async def read(self, start: int, end: int) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (offset, value) of committed records in [start, end)."""
        async with self._reader() as reader:
            last = min(end, (await reader.end_offsets([self._where]))[self._where])
            first = (await reader.beginning_offsets([self._where]))[self._where]
            reader.seek(self._where, max(start, first))
            while await reader.position(self._where) < last:
                for record in (await reader.getmany(self._where, timeout_ms=250, max_records=500)).get(self._where, []):
                    if record.offset < last:
                        yield record.offset, record.value

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[AIOKafkaConsumer]:
        reader = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            # Only to ask where the group is; partitions are assigned by hand, so the group never notices.
            group_id=self._group,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=16_000_000,
            fetch_max_wait_ms=50,
        )
        await reader.start()
        try:
            reader.assign([self._where])
            yield reader
        finally:
            await reader.stop()
