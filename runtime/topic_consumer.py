"""Reads a billing topic record by record, at least once. Owns retries, dead letters and committing.

The handler must be idempotent. `InvalidInputError` means the record itself is bad: it goes to `billing.rejected` with
its code and the work goes on. Anything else is an outage or our own mistake: the record is tried again with growing
pauses, without a limit, because skipping a billing event would lose money silently. `BrokenInvariantError` stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalGenerationError, IllegalStateError, UnknownMemberIdError
from aiokafka.structs import ConsumerRecord
from prometheus_client import Counter

from core.dead_letter import DeadLetter
from core.errors import BrokenInvariantError, InvalidInputError
from core.topics import BILLING_REJECTED, Topic
from runtime.settings import InvalidSettingsError, Settings

Handler = Callable[[bytes | None], Awaitable[None]]
log = structlog.get_logger()
_HANDLED = Counter("meterbook_billing_records_total", "Records of billing topics by outcome", ["topic", "outcome"])
_LONGEST_PAUSE_SECONDS = 30.0


def create_producer(settings: Settings) -> AIOKafkaProducer:
    """Return an idempotent producer that waits for all replicas (not started)."""
    return AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap,
        enable_idempotence=True,
        acks="all",
        linger_ms=5,
        compression_type="lz4",
        retry_backoff_ms=20,
        max_request_size=20_000_000,
    )


class TopicConsumer:
    """One consumer-group member over one topic; scale by starting more of them."""

    def __init__(self, settings: Settings, topic: Topic, group: str, handle: Handler) -> None:
        self._settings, self._topic, self._group, self._handle = settings, topic, group, handle

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, then commit and leave the group."""
        consumer = AIOKafkaConsumer(
            self._topic.name,
            bootstrap_servers=self._settings.kafka_bootstrap,
            group_id=self._group,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=10_000,
            heartbeat_interval_ms=2_000,
            max_poll_interval_ms=900_000,
        )
        producer = create_producer(self._settings)
        await producer.start()
        try:
            await consumer.start()
            while not stop.is_set():
                fetched = await consumer.getmany(timeout_ms=250, max_records=200)
                for partition, records in fetched.items():
                    await self._work(consumer, producer, partition, records, stop)
        finally:
            await consumer.stop()
            await producer.stop()

    async def _work(
        self,
        consumer: AIOKafkaConsumer,
        producer: AIOKafkaProducer,
        partition: TopicPartition,
        records: list[ConsumerRecord],
        stop: asyncio.Event,
    ) -> None:
        for record in records:
            if partition not in consumer.assignment():
                # It went to another member meanwhile, who reads on from the last commit.
                return
            if not await self._handle_until_done(producer, record, stop):
                return
            # Committed one by one: a record may stand for a charge, and repeating it costs more than the commit.
            try:
                await consumer.commit({partition: record.offset + 1})
            except (CommitFailedError, IllegalStateError, IllegalGenerationError, UnknownMemberIdError) as error:
                log.warning("offset.not_committed", topic=record.topic, offset=record.offset, error=repr(error))
                return

    async def _handle_until_done(self, producer: AIOKafkaProducer, record: ConsumerRecord, stop: asyncio.Event) -> bool:
        pause = 0.1
        while not stop.is_set():
            try:
                await self._handle_or_put_aside(producer, record)
            except (BrokenInvariantError, InvalidSettingsError, asyncio.CancelledError):
                raise
            except Exception as error:
                # The outermost loop of a worker: whatever went wrong, the record is not lost, and a person sees why.
                _HANDLED.labels(self._topic.name, "retried").inc()
                log.warning(
                    "record.retrying",
                    topic=self._topic.name,
                    partition=record.partition,
                    offset=record.offset,
                    error=repr(error),
                    pause_seconds=pause,
                )
                await _sleep_unless(stop, pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
                pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
            else:
                return True
        return False

    async def _handle_or_put_aside(self, producer: AIOKafkaProducer, record: ConsumerRecord) -> None:
        try:
            await self._handle(record.value)
        except InvalidSettingsError:
            # Our surroundings are at fault, not the record.
            raise
        except InvalidInputError as refused:
            await self._put_aside(producer, record, refused)
        else:
            _HANDLED.labels(self._topic.name, "handled").inc()

    async def _put_aside(self, producer: AIOKafkaProducer, record: ConsumerRecord, refused: InvalidInputError) -> None:
        letter = DeadLetter(
            code=refused.faults[0].code if refused.faults else refused.code,
            reason=str(refused),
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            index=-1,
            received_ms=record.timestamp,
            body=record.value,
        )
        await producer.send_and_wait(
            BILLING_REJECTED.name, value=record.value, key=record.key, headers=letter.headers()
        )
        _HANDLED.labels(self._topic.name, "rejected").inc()
        log.error("record.rejected", topic=record.topic, offset=record.offset, code=letter.code, reason=letter.reason)


async def _sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
