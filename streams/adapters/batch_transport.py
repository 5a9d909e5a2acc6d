"""Faust's Kafka transport, handing an agent whole fetched batches instead of single messages.

Stock Faust spends 60-70 microseconds per message on asyncio hand-offs; one event per fetched batch and partition makes
that cost vanish (docs/decisions/0002). Topics are declared with `acks=False`, so Faust tracks and commits nothing.

Private parts relied upon (faust-streaming 0.15.3, aiokafka 0.14.0, both pinned; tests/streams/test_batch_transport.py
fails if they move): `Consumer._getmany`, `_to_message`, `_new_consumer_thread`, `_read_offset`, `perform_seek`,
`AIOKafkaConsumerThread._create_worker_consumer`, `_ensure_consumer`, `thread_loop`, `App._new_transport`,
`App._create_directories`, `PartitionRecords._consumer_record`, `FetchResult.getall`,
`GroupCoordinator.fetch_committed_offsets`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import faust
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    UnknownMemberIdError,
)
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import ConsumerMessage

from runtime.odd_headers import read_any_header_name
from runtime.patience import until_done
from streams.adapters.lanes import Batch

T = TypeVar("T")
log = structlog.get_logger()
FETCH_BYTES_PER_PARTITION = 4_000_000
FETCH_BYTES = 32_000_000
_WAIT_FOR_ROOM_SECONDS = 0.01
_ANSWER_SECONDS = 20.0


class _LightRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """Leaves records as the parser made them: building a ConsumerRecord costs more than parsing."""

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Any:
        return record


class _PlacedRecords(list[Any]):
    """Records of one partition and the offsets [start, end) they were fetched from."""

    start = end = 0


class _PlacedResult(fetcher.FetchResult):  # type: ignore[misc]
    """Tells where records begin and end, counting what is no record (transactions' marks, aborted ones) with the next.

    Without that a batch that was dropped on its way could not be told from offsets that hold no records.
    """

    def getall(self, max_records: int | None = None) -> list[Any]:
        state = self._assignment.state_value(self._topic_partition) if self._assignment.active else None
        if state is None or not state.has_valid_position:
            return list(super().getall(max_records))
        start = handed_out_up_to(state)
        before = state.position
        placed = _PlacedRecords(super().getall(max_records))
        if placed:
            placed.start, placed.end = start, state.position
        elif state.position > before:
            state.without_records = (start, state.position)
        return placed


def handed_out_up_to(state: Any) -> int:
    """Return where the newest batch of a partition (aiokafka's state of it) ended, before offsets without records."""
    start, end = getattr(state, "without_records", (-1, -1))
    position: int = state.position
    return start if end == position else position


class _NothingRead(dict[Any, int | None]):
    """Faust's memory of what it read, which makes it drop what comes again: the lanes know better."""

    def __getitem__(self, tp: Any) -> None:
        return None


class _ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        conf = self.app.conf
        self._assignor = RoundRobinPartitionAssignor
        credentials = driver.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context)
        return AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int((conf.broker_max_poll_interval or 1_000) * 1_000),
            max_partition_fetch_bytes=FETCH_BYTES_PER_PARTITION,
            fetch_max_bytes=FETCH_BYTES,
            # Faust hard-wires 1500 here, which stalls a busy worker for a second at a time.
            fetch_max_wait_ms=50,
            fetch_min_bytes=1,
            request_timeout_ms=int(conf.broker_request_timeout * 1_000),
            session_timeout_ms=int(conf.broker_session_timeout * 1_000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1_000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1_000),
            metadata_max_age_ms=30_000,
            retry_backoff_ms=50,
            **credentials,
        )


class BatchConsumer(driver.Consumer):  # type: ignore[misc]
    """Turns what one fetch brought for one partition into one message."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _NothingRead()

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: Any, timeout: float) -> dict[Any, list[Batch]]:
        wanted = {tp for tp in active_partitions if not self.app.is_full(tp)}
        if not wanted:
            await asyncio.sleep(_WAIT_FOR_ROOM_SECONDS)
            return {}
        # While a partition is held back, ask again soon whether it still is.
        timeout = timeout if len(wanted) == len(active_partitions) else min(timeout, _WAIT_FOR_ROOM_SECONDS)
        fetched = await super()._getmany(active_partitions=wanted, timeout=timeout)
        return {tp: [Batch(found, found.start, found.end)] for tp, found in fetched.items() if found}

    async def perform_seek(self) -> None:
        """Do nothing: a new assignment begins at the committed offsets, and the lanes have it go back where they must.

        Faust asks the broker, and when that fails after a fetch, what was fetched is lost with a warning.
        """

    def _to_message(self, tp: Any, record: Batch) -> ConsumerMessage:
        last = record.records[-1]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp / 1_000,
            0,
            [],
            None,
            record,
            None,
            tp=tp,
            time_in=time.monotonic(),
            generation_id=self.app.consumer_generation_id,
            serialized_key_size=0,
            serialized_value_size=0,
        )

    async def commit_offset(self, topic: str, partition: int, next_offset: int) -> None:
        """Commit where the group goes on reading a partition (for sinks, after their store has answered).

        A partition that went to another worker meanwhile is only logged: it will read those records again, and sinks
        are replay-proof.
        """
        try:
            await self._thread.call_thread(
                self._thread._ensure_consumer().commit, {TopicPartition(topic, partition): next_offset}
            )
        except (CommitFailedError, IllegalStateError, IllegalGenerationError, UnknownMemberIdError) as error:
            log.warning("offset.not_committed", topic=topic, partition=partition, error=repr(error))

    async def in_reader(self, call: Callable[[AIOKafkaConsumer], Awaitable[T]]) -> T:
        """Return what `call` returns for aiokafka's consumer, on the thread that owns it.

        Beside other calls: Faust's own queue for the thread has two places, and a fetch takes one of them.
        """
        done = asyncio.run_coroutine_threadsafe(_awaited(call, self._thread), self._thread.thread_loop)
        return await asyncio.wrap_future(done)


async def _awaited(call: Callable[[AIOKafkaConsumer], Awaitable[T]], thread: Any) -> T:
    return await call(thread._ensure_consumer())


class TopicReading:
    """`Reading` of the app's consumer."""

    def __init__(self, app: faust.App, topic: str) -> None:
        self._app, self._topic = app, topic

    async def committed(self, partition: int) -> int:
        """Return the offset the group goes on from; waits out an outage."""
        place = TopicPartition(self._topic, partition)

        async def ask(consumer: AIOKafkaConsumer) -> int | None:
            found = await consumer._coordinator.fetch_committed_offsets([place])
            return found[place].offset if place in found else None

        found = await self._until_answered(ask)
        return await self.first(partition) if found is None else found

    async def first(self, partition: int) -> int:
        """Return the topic's first offset; waits out an outage."""
        place = TopicPartition(self._topic, partition)

        async def ask(consumer: AIOKafkaConsumer) -> int:
            return int((await consumer.beginning_offsets([place]))[place])

        return await self._until_answered(ask)

    async def fetched_up_to(self, partition: int) -> int | None:
        """Return the end of the newest batch that was handed out, None if the partition is not read now."""
        place = TopicPartition(self._topic, partition)

        async def look(consumer: AIOKafkaConsumer) -> int | None:
            subscription = consumer._subscription.subscription
            assignment = None if subscription is None else subscription.assignment
            if assignment is None or place not in assignment.tps:
                return None
            state = assignment.state_value(place)
            return handed_out_up_to(state) if state.has_valid_position else None

        found: int | None = await self._app.consumer.in_reader(look)
        return found

    async def read_from(self, partition: int, offset: int) -> None:
        """Let the next batch begin at an offset; nothing if the partition went to another worker."""
        place = TopicPartition(self._topic, partition)

        async def seek(consumer: AIOKafkaConsumer) -> None:
            with contextlib.suppress(IllegalStateError):
                consumer.seek(place, offset)

        await self._app.consumer.in_reader(seek)

    async def _until_answered(self, ask: Callable[[AIOKafkaConsumer], Awaitable[T]]) -> T:
        return await until_done(
            "kafka",
            lambda: asyncio.wait_for(self._app.consumer.in_reader(ask), _ANSWER_SECONDS),
            transient=(KafkaError, TimeoutError),
        )


class BatchTransport(driver.Transport):  # type: ignore[misc]
    """Faust transport of `BatchConsumer`."""

    Consumer = BatchConsumer


def create_batch_app(name: str, bootstrap: str, *, session_timeout_s: float = 6.0) -> faust.App:
    """Return a Faust app whose agents get batches and whose state and offsets are kept elsewhere.

    `bootstrap` is `host:port[,host:port]`. The app has no tables, no folders, no web server and creates no topics.
    """
    read_any_header_name()
    fetcher.PartitionRecords, fetcher.FetchResult = _LightRecords, _PlacedResult
    app = faust.App(
        name,
        broker=[f"kafka://{server}" for server in bootstrap.split(",")],
        store="memory://",
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        stream_wait_empty=False,
        agent_supervisor="mode.CrashingSupervisor",
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=30_000,
        broker_session_timeout=session_timeout_s,
        broker_heartbeat_interval=session_timeout_s / 4,
        broker_rebalance_timeout=20,
        # A broker that went silent is given up after this (Faust: 90 s), but joining a group may take a rebalance.
        broker_request_timeout=22,
        stream_buffer_maxsize=64,
        worker_redirect_stdouts=False,
        autodiscover=False,
    )
    # Faust would make folders for tables, which this app has not.
    app._create_directories = lambda: None
    # Whether a partition's work is so far behind that nothing more is fetched for it; `attach_lanes` knows.
    app.is_full = lambda tp: False
    app._new_transport = lambda: BatchTransport(app.conf.broker_consumer, app)
    return app


def batch_topic(app: faust.App, name: str) -> Any:
    """Declare a topic whose values are lists of records, passed through undecoded."""
    return app.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", acks=False)
