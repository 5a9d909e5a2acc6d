"""Invoicing requests onto Kafka, and how far usage has come from Kafka into the warehouse."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from core.messages import InvoicingRequest, encode_message
from core.topics import INVOICING_REQUESTS, USAGE_EVENTS
from runtime.clickhouse import connect_clickhouse_async
from runtime.settings import Settings
from runtime.topic_consumer import create_producer

# Who handles the requests.
REQUESTS_GROUP = "meterbook-invoicing"
_IN_FLIGHT = 1_000
# Where each partition's warehouse lane is: the source offset after the last one it has stored.
WAREHOUSE_PROGRESS = """
SELECT source_partition, argMax(next_offset, at) FROM pipeline_progress
WHERE stage = 'warehouse' GROUP BY source_partition
"""


class KafkaRequests:
    """`Requests` on `invoicing.requests`, keyed by tenant."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def send(self, requests: Sequence[InvoicingRequest]) -> None:
        """Put the requests on the topic and wait until the broker has them all."""
        producer = create_producer(self._settings)
        await producer.start()
        try:
            for first in range(0, len(requests), _IN_FLIGHT):
                sent = [
                    await producer.send(
                        INVOICING_REQUESTS.name, value=encode_message(request), key=request.tenant_id.encode()
                    )
                    for request in requests[first : first + _IN_FLIGHT]
                ]
                await asyncio.gather(*sent)
        finally:
            await producer.stop()


class KafkaRequestsWaiting:
    """`RequestsWaiting` of `invoicing.requests`; a context manager."""

    def __init__(self, settings: Settings) -> None:
        self._admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
        self._reader = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap, enable_auto_commit=False)
        self._spans: dict[TopicPartition, tuple[int, int]] = {}

    async def __aenter__(self) -> KafkaRequestsWaiting:
        """Look how far the topic reaches now."""
        await self._admin.start()
        await self._reader.start()
        [topic] = await self._admin.describe_topics([INVOICING_REQUESTS.name])
        places = [TopicPartition(INVOICING_REQUESTS.name, one["partition"]) for one in topic["partitions"]]
        begins, ends = await self._reader.beginning_offsets(places), await self._reader.end_offsets(places)
        self._spans = {place: (begins[place], ends[place]) for place in places}
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self._reader.stop()
        await self._admin.close()

    async def waiting(self) -> int:
        """Return how many of them are still to be handled."""
        stored = await self._admin.list_consumer_group_offsets(REQUESTS_GROUP)
        done = {place: one.offset for place, one in stored.items()}
        return sum(max(0, end - max(begin, done.get(place, 0))) for place, (begin, end) in self._spans.items())


class KafkaUsageProgress:
    """`UsageProgress`: looks whether a record the broker had in time is still ahead of the warehouse.

    Offsets alone cannot tell, because transactions leave markers that are no records; so the next record is read. Where
    a transaction is open, or its commit was answered and is not written yet, nobody knows what will count: its records
    wait too.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def settled(self, as_of: datetime) -> bool:
        """Tell whether every event the broker had received by `as_of` is counted."""
        client = await connect_clickhouse_async(self._settings)
        try:
            done = dict((await client.query(WAREHOUSE_PROGRESS)).result_rows)
        finally:
            await client.close()
        partitions = [TopicPartition(USAGE_EVENTS.name, number) for number in range(self._settings.usage_partitions)]
        begins = {partition: done.get(partition.partition, 0) for partition in partitions}
        for isolation_level in ("read_committed", "read_uncommitted"):
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._settings.kafka_bootstrap,
                isolation_level=isolation_level,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
            )
            await consumer.start()
            try:
                ends = await consumer.end_offsets(partitions)
                for partition, begin in begins.items():
                    end = ends[partition]
                    if begin < end and await _record_waits(consumer, partition, begin, end, as_of):
                        return False
            finally:
                await consumer.stop()
            # What is committed was looked at; what lies beyond it waits for its transaction.
            begins = {partition: max(begin, ends[partition]) for partition, begin in begins.items()}
        return True


async def _record_waits(
    consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int, end: int, as_of: datetime
) -> bool:
    """Tell whether a record from `offset` on was received by `as_of`; what came later is another run's business."""
    consumer.assign([partition])
    consumer.seek(partition, offset)
    while await consumer.position(partition) < end:
        fetched = await consumer.getmany(partition, timeout_ms=500, max_records=1)
        for record in fetched.get(partition, []):
            return bool(record.timestamp <= as_of.timestamp() * 1_000)
    return False
