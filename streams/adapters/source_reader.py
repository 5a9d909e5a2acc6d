"""Reads given ranges of one partition of `usage.events`, in order, without a consumer group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from core.topics import USAGE_EVENTS

log = structlog.get_logger()
MISSING = Counter("meterbook_raw_records_missing_total", "Raw records deleted by retention before they were stored")
# Far below the request timeout: aiokafka waits for an end offset exactly as long as for the answer to the request, and
# of the two only the latter running out makes it drop a silent connection. So this reader is replaced instead.
_END_SECONDS = 5.0


class SourceReader:
    """A forward-only reader; consecutive ranges are read without seeking."""

    def __init__(self, bootstrap: str, partition: int) -> None:
        self._where = TopicPartition(USAGE_EVENTS.name, partition)
        self._bootstrap = bootstrap
        self._reader = self._create()
        self._ahead: deque[Any] = deque()
        self._next = -1

    async def start(self) -> None:
        """Connect."""
        await self._reader.start()
        self._reader.assign([self._where])

    async def stop(self) -> None:
        """Disconnect."""
        await self._reader.stop()

    async def read(self, first: int, last: int) -> AsyncIterator[Any]:
        """Yield the records from `first` to `last`, both included; there is a record at `last`."""
        if first < self._next or self._next < 0 or (not self._ahead and first > self._next):
            self._ahead.clear()
            self._reader.seek(self._where, first)
        self._next = last + 1
        while True:
            while self._ahead:
                record = self._ahead.popleft()
                if record.offset < first:
                    continue
                if record.offset > last:
                    self._ahead.appendleft(record)
                    self._tell_missing(first, last)
                    return
                yield record
                if record.offset == last:
                    return
            fetched = (await self._reader.getmany(self._where, timeout_ms=500, max_records=20_000)).get(self._where, [])
            self._ahead.extend(fetched)
            if not fetched and await self._reader.position(self._where) > last:
                self._tell_missing(first, last)
                return

    def _tell_missing(self, first: int, last: int) -> None:
        # Only retention can have taken what the journal says was there.
        MISSING.inc()
        log.error("raw.missing", partition=self._where.partition, first=first, last=last)

    async def is_read_up(self, next_offset: int) -> bool:
        """Tell whether there is no record from `next_offset` on; what is found is kept for `read`.

        Offsets alone cannot tell, because transactions leave markers that are no records.
        """
        if self._next < 0:
            self._reader.seek(self._where, next_offset)
            self._next = next_offset
        if not self._ahead:
            fetched = await self._reader.getmany(self._where, timeout_ms=200, max_records=20_000)
            self._ahead.extend(fetched.get(self._where, []))
        if any(record.offset >= next_offset for record in self._ahead):
            return False
        return bool(await self._reader.position(self._where) >= await self.end_offset())

    async def end_offset(self) -> int:
        """Return the partition's end, to tell how far behind the journal is."""
        try:
            async with asyncio.timeout(_END_SECONDS):
                return int((await self._reader.end_offsets([self._where]))[self._where])
        except (KafkaError, TimeoutError):
            await self._connect_anew()
            raise

    async def _connect_anew(self) -> None:
        fresh = self._create()
        try:
            await fresh.start()
        except BaseException:
            await fresh.stop()
            raise
        old, self._reader = self._reader, fresh
        fresh.assign([self._where])
        self._ahead.clear()
        self._next = -1
        await old.stop()

    def _create(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=4_000_000,
            fetch_max_wait_ms=50,
            request_timeout_ms=20_000,
        )
