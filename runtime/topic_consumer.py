"""Reads a billing topic record by record, at least once. Owns retries, dead letters and committing.

The handler must be idempotent. `InvalidInputError` means the record itself is bad: it goes to `billing.rejected` with
its code and the work goes on. Where there is a way to handle many records together it is tried first; what it leaves is
handled record by record. Anything else is an outage or our own mistake: the record is tried again with growing
pauses, without a limit, because skipping a billing event would lose money silently. `BrokenInvariantError` stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

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
# Handles records' values in one go and returns the places of those it has left alone.
Together = Callable[[Sequence[bytes | None]], Awaitable[Collection[int]]]
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

    def __init__(
        self,
        settings: Settings,
        topic: Topic,
        group: str,
        handle: Handler,
        *,
        together: Together | None = None,
        together_max: int = 100,
    ) -> None:
        self._settings, self._topic, self._group, self._handle = settings, topic, group, handle
        self._together, self._together_max = together, together_max

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
                if self._together is not None:
                    await self._work_together(consumer, producer, fetched, self._together, stop)
                    continue
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
            if not await self._commit(consumer, {partition: record.offset + 1}):
                return

    async def _work_together(
        self,
        consumer: AIOKafkaConsumer,
        producer: AIOKafkaProducer,
        fetched: Mapping[TopicPartition, Sequence[ConsumerRecord]],
        together: Together,
        stop: asyncio.Event,
    ) -> None:
        waiting = [(partition, record) for partition, records in fetched.items() for record in records]
        for start in range(0, len(waiting), self._together_max):
            ours = consumer.assignment()
            some = [one for one in waiting[start : start + self._together_max] if one[0] in ours]
            left = await self._left_by(together, [record for _, record in some])
            for place in sorted(left):
                if not await self._handle_until_done(producer, some[place][1], stop):
                    return
            if stop.is_set() or not await self._commit(consumer, {where: one.offset + 1 for where, one in some}):
                return

    async def _left_by(self, together: Together, records: Sequence[ConsumerRecord]) -> Collection[int]:
        """Handle records together and return the places of those that are left; all if it fails."""
        try:
            left = await together([record.value for record in records])
        except (InvalidSettingsError, asyncio.CancelledError):
            raise
        except Exception as error:
            # Each by itself tells which of them is at fault, and waits for what is away.
            log.warning("records.taken_one_by_one", topic=self._topic.name, records=len(records), error=repr(error))
            return range(len(records))
        _HANDLED.labels(self._topic.name, "handled").inc(len(records) - len(left))
        return left

    async def _commit(self, consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int]) -> bool:
        """Commit offsets; False if the partitions have gone to another member meanwhile."""
        try:
            await consumer.commit(dict(offsets))
        except (CommitFailedError, IllegalStateError, IllegalGenerationError, UnknownMemberIdError) as error:
            log.warning("offset.not_committed", topic=self._topic.name, offsets=str(offsets), error=repr(error))
            return False
        return True

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
