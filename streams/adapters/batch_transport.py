"""Faust's Kafka transport, handing an agent whole fetched batches instead of single messages.

Stock Faust spends 60-70 microseconds per message on asyncio hand-offs; one event per fetched batch and partition makes
that cost vanish (docs/decisions/0002). Topics are declared with `acks=False`, so Faust tracks and commits nothing.

Private parts relied upon (faust-streaming 0.15.3, aiokafka 0.14.0, both pinned; tests/streams/test_batch_transport.py
fails if they move): `Consumer._getmany`, `_to_message`, `_new_consumer_thread`, `AIOKafkaConsumerThread.
_create_worker_consumer`, `PartitionRecords._consumer_record`, `App._new_transport`,
`App._create_directories`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import faust
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalGenerationError, IllegalStateError, UnknownMemberIdError
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import ConsumerMessage

from runtime.odd_headers import read_any_header_name

log = structlog.get_logger()
FETCH_BYTES_PER_PARTITION = 4_000_000
FETCH_BYTES = 32_000_000
_WAIT_FOR_ROOM_SECONDS = 0.01


class Batch:
    """All records of one fetch of one partition; to Faust it is one message at the last record's offset."""

    __slots__ = ("offset", "records", "timestamp")

    def __init__(self, records: list[Any]) -> None:
        self.records = records
        self.offset = records[-1].offset
        self.timestamp = records[-1].timestamp


class _LightRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """Leaves records as the parser made them: building a ConsumerRecord costs more than parsing."""

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Any:
        return record


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
        return {tp: [Batch(records)] for tp, records in fetched.items() if records}

    def _to_message(self, tp: Any, record: Batch) -> ConsumerMessage:
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.offset,
            record.timestamp / 1_000,
            0,
            [],
            None,
            record.records,
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


class BatchTransport(driver.Transport):  # type: ignore[misc]
    """Faust transport of `BatchConsumer`."""

    Consumer = BatchConsumer


def create_batch_app(name: str, bootstrap: str, *, session_timeout_s: float = 6.0) -> faust.App:
    """Return a Faust app whose agents get batches and whose state and offsets are kept elsewhere.

    `bootstrap` is `host:port[,host:port]`. The app has no tables, no folders, no web server and creates no topics.
    """
    read_any_header_name()
    fetcher.PartitionRecords = _LightRecords
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
