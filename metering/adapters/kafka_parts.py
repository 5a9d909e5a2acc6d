"""Puts the records of a meter's past on a partition of `usage.events`, in one transaction."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import IO, Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from core.topics import USAGE_EVENTS
from metering.domain.meter_parts import Part
from runtime.settings import Settings

_IN_FLIGHT = 200
# The broker's own limit (transaction.max.timeout.ms).
_TRANSACTION_MS = 900_000
_LENGTH_BYTES = 4


class KafkaPartSender:
    """A `PartSender`. A second run on the same partition fences the first."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def end_offset(self, partition: int) -> int:
        """Return the partition's end."""
        async with self._reader() as reader:
            where = TopicPartition(USAGE_EVENTS.name, partition)
            return int((await reader.end_offsets([where]))[where])

    async def has_record(self, partition: int, first: int, end: int) -> bool:
        """Tell whether there is a record, and not only markers of transactions, from `first` to before `end`."""
        if first >= end:
            return False
        async with self._reader() as reader:
            where = TopicPartition(USAGE_EVENTS.name, partition)
            reader.assign([where])
            reader.seek(where, first)
            while await reader.position(where) < end:
                fetched = await reader.getmany(where, timeout_ms=200, max_records=1)
                for record in fetched.get(where, []):
                    return bool(record.offset < end)
            return False

    async def send(self, meter_id: str, partition: int, parts: Iterator[Part]) -> tuple[int, int | None]:
        """Put the records on the partition, all or none; returns how many, and the last one's offset.

        They wait in a file first: while a transaction is open, nobody reads on behind it.
        """
        with tempfile.TemporaryFile() as waiting:
            count = await asyncio.to_thread(_write, waiting, parts)
            if count == 0:
                return 0, None
            waiting.seek(0)
            return count, await self._send(meter_id, partition, _read(waiting))

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[AIOKafkaConsumer]:
        reader = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka_bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await reader.start()
        try:
            yield reader
        finally:
            await reader.stop()

    async def _send(self, meter_id: str, partition: int, parts: Iterator[Part]) -> int:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka_bootstrap,
            transactional_id=f"meterbook-backfill-{meter_id}-{partition}",
            transaction_timeout_ms=_TRANSACTION_MS,
            linger_ms=5,
            compression_type="lz4",
            retry_backoff_ms=20,
            max_request_size=20_000_000,
        )
        await producer.start()
        try:
            last = -1
            async with producer.transaction():
                sent: list[asyncio.Future[Any]] = []
                for part in parts:
                    future = await producer.send(
                        USAGE_EVENTS.name, value=part.value, key=part.tenant.encode(), partition=partition
                    )
                    sent.append(future)
                    if len(sent) == _IN_FLIGHT:
                        last = (await asyncio.gather(*sent))[-1].offset
                        sent.clear()
                if sent:
                    last = (await asyncio.gather(*sent))[-1].offset
            return last
        finally:
            await producer.stop()


def _write(file: IO[bytes], parts: Iterator[Part]) -> int:
    count = 0
    for part in parts:
        packed = msgspec.msgpack.encode((part.tenant, part.value, part.measures))
        file.write(len(packed).to_bytes(_LENGTH_BYTES, "big") + packed)
        count += 1
    return count


def _read(file: IO[bytes]) -> Iterator[Part]:
    while length := file.read(_LENGTH_BYTES):
        packed = file.read(int.from_bytes(length, "big"))
        yield Part(*msgspec.msgpack.decode(packed, type=tuple[str, bytes, int]))
