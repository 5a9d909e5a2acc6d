"""Reads ranges of topics without a consumer group: for those who look at what is there and commit nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from core.errors import UnavailableError
from runtime.settings import Settings

_PER_FETCH = 2_000


class RangeReader:
    """One connection, one read at a time; connects when first used. Sees committed records only."""

    def __init__(self, settings: Settings, what: str, *, call_seconds: float) -> None:
        self._settings, self._what, self._call_seconds = settings, what, call_seconds
        self._consumer: AIOKafkaConsumer | None = None
        self._turn = asyncio.Lock()

    async def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._consumer.stop()
            self._consumer = None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AIOKafkaConsumer]:
        """Give the consumer to one caller for at most `call_seconds`; raises `UnavailableError` if Kafka is away."""
        try:
            async with self._turn, asyncio.timeout(self._call_seconds):
                if self._consumer is None:
                    self._consumer = await self._connect()
                yield self._consumer
        except (KafkaError, TimeoutError, OSError) as error:
            raise UnavailableError(f"{self._what} cannot be read now: {error!r}") from error

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


async def read_range(consumer: AIOKafkaConsumer, where: TopicPartition, first: int, end: int) -> AsyncIterator[Any]:
    """Yield the records from offset `first` up to, but not including, `end`, which lies at most at the topic's end.

    Transaction markers take offsets, too: the position, not the last record, tells when the range has been read.
    """
    if first >= end:
        return
    if consumer.assignment() != {where}:
        # Assigned alone: records of other partitions would be fetched beside it for nothing.
        consumer.assign([where])
        consumer.seek(where, first)
    elif await consumer.position(where) != first:
        consumer.seek(where, first)
    while (at := await consumer.position(where)) < end:
        # No more than wanted, so that the next range goes on with what is fetched already.
        fetched = await consumer.getmany(where, timeout_ms=200, max_records=min(_PER_FETCH, end - at))
        for record in fetched.get(where, []):
            if record.offset >= end:
                return
            yield record
