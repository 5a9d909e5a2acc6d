"""The rating consumer: as usage flows, what it costs so far flows after it.

The journal tells on which days of which tenants something changed. A change is rated once the warehouse has stored it
(its progress says so), at most once a second however much flows; then the journal offset is committed. A crash rates
again: rows are absolute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import takewhile

import psycopg
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from clickhouse_connect.driver.exceptions import ClickHouseError

from core.clock import Clock, SystemClock
from core.period import Period
from core.topics import USAGE_JOURNAL
from rating.adapters.clickhouse import ClickHouseRating
from rating.adapters.kafka import Touched, partition_of, publish_costs, read_touched
from rating.adapters.postgres import PostgresTimelines
from rating.adapters.redis_costs import RedisCosts
from rating.ports import CostKey, CostRow
from rating.rate_open_periods import rate_open_periods
from runtime.postgres import create_pool
from runtime.redis import connect_redis
from runtime.settings import Settings
from runtime.topic_consumer import create_producer

GROUP = "meterbook-rating"
_TICK_MS = 1_000
_RECORDS_AT_ONCE = 2_000
# How long a change's transaction may take to commit, and the clocks of the machines may differ.
_LOOK_BACK = timedelta(minutes=5)
# Changes put down while no consumer ran.
_LOOK_BACK_AT_START = timedelta(days=1)
# Running costs are of open periods: a change that counts from long ago touches those since then, at most this far back.
_RATED_BACK = timedelta(days=62)
FoundChange = tuple[tuple[str, int], str, datetime]
log = structlog.get_logger()


@dataclass
class Pending:
    """Journal records not rated yet, by partition: (journal offset, what it touched), in order."""

    by_partition: dict[TopicPartition, list[tuple[int, Touched]]] = field(default_factory=dict)

    def add(self, partition: TopicPartition, offset: int, touched: Touched) -> None:
        """Note a journal record."""
        self.by_partition.setdefault(partition, []).append((offset, touched))

    def take_stored(self, stored: dict[int, int]) -> tuple[set[tuple[str, Period]], dict[TopicPartition, int]]:
        """Take out what the warehouse has stored; returns the spans to rate and the journal offsets to commit then."""
        spans: set[tuple[str, Period]] = set()
        offsets: dict[TopicPartition, int] = {}
        for partition, records in self.by_partition.items():
            done = stored.get(partition.partition, 0)
            ready = list(takewhile(lambda record: record[1].source_next <= done, records))  # noqa: B023 - used at once
            if ready:
                self.by_partition[partition] = records[len(ready) :]
                offsets[partition] = ready[-1][0] + 1
                spans.update(*(touched.spans for _, touched in ready))
        return spans, offsets

    def keep_only(self, assigned: set[TopicPartition]) -> None:
        """Forget partitions that another worker reads now."""
        for partition in self.by_partition.keys() - assigned:
            del self.by_partition[partition]

    @property
    def count(self) -> int:
        """How many journal records wait."""
        return sum(map(len, self.by_partition.values()))


@dataclass
class ChangedSubscriptions:
    """Which changes of subscriptions were seen: they are looked for a while back, for a transaction may commit late."""

    since: datetime
    seen: set[tuple[str, int]] = field(default_factory=set)

    def take(
        self, found: Iterable[FoundChange], partitions: Collection[int], count: int, now: datetime
    ) -> set[tuple[str, Period]]:
        """Return what new changes of tenants on these partitions (of `count`) touch: until now, and their own day."""
        spans: set[tuple[str, Period]] = set()
        for name, tenant_id, effective_at in found:
            if name not in self.seen and count and partition_of(tenant_id, count) in partitions:
                end = max(now, effective_at) + timedelta(minutes=1)
                spans.add((tenant_id, Period(max(min(effective_at, now), now - _RATED_BACK), end)))
        return spans

    def done(self, found: Iterable[FoundChange], now: datetime) -> None:
        """Note that all these changes have been rated."""
        self.seen = {name for name, _, _ in found}
        self.since = now - _LOOK_BACK


class _Sink:
    """`CostSink`: ClickHouse first, then Redis and the topic, so that who hears of a cost can read it."""

    def __init__(self, store: ClickHouseRating, view: RedisCosts, producer: AIOKafkaProducer) -> None:
        self._store, self._view, self._producer = store, view, producer

    async def present(self, tenant_ids: Sequence[str], periods: Sequence[str]) -> Sequence[CostKey]:
        return await self._store.present(tenant_ids, periods)

    async def put(self, rows: Sequence[CostRow]) -> None:
        await self._store.put(rows)
        await self._view.put(rows)
        await publish_costs(self._producer, rows)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Keep running costs up to date until `stop` is set; an outage of a store is waited out."""
    consumer = AIOKafkaConsumer(
        USAGE_JOURNAL.name,
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=GROUP,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    producer, store = create_producer(settings), ClickHouseRating(settings)
    view = RedisCosts(connect_redis(settings.redis, timeout_s=2, connect_timeout_s=2))
    await producer.start()
    await consumer.start()
    try:
        async with create_pool(settings, max_size=2) as pool:
            plans, pending, clock = PostgresTimelines(pool), Pending(), SystemClock()
            sink = _Sink(store, view, producer)
            changes = ChangedSubscriptions(clock.now() - _LOOK_BACK_AT_START)
            while not stop.is_set():
                await _read(consumer, pending)
                try:
                    await _rate_stored(consumer, pending, plans, store, sink)
                    await _rate_changed(consumer, changes, plans, store, sink, clock)
                except (OSError, KafkaError, ClickHouseError, psycopg.Error, TimeoutError) as error:
                    log.warning("rating.waiting", error=repr(error)[:300])
                    await asyncio.sleep(1)
    finally:
        await consumer.stop()
        await producer.stop()
        await store.close()
        await view.close()


async def _read(consumer: AIOKafkaConsumer, pending: Pending) -> None:
    """Collect a tick's worth of journal records; while many wait for the warehouse, let the rest wait in Kafka."""
    deadline = asyncio.get_running_loop().time() + _TICK_MS / 1_000
    while (left := deadline - asyncio.get_running_loop().time()) > 0:
        if pending.count >= _RECORDS_AT_ONCE:
            await asyncio.sleep(left)
            return
        for partition, records in (await consumer.getmany(timeout_ms=int(left * 1_000) + 1)).items():
            for record in records:
                pending.add(partition, record.offset, read_touched(record.value))


async def _rate_stored(
    consumer: AIOKafkaConsumer, pending: Pending, plans: PostgresTimelines, store: ClickHouseRating, sink: _Sink
) -> None:
    assigned = set(consumer.assignment())
    pending.keep_only(assigned)
    if not pending.count:
        return
    stored = await store.stored_up_to([partition.partition for partition in pending.by_partition])
    before = {partition: list(records) for partition, records in pending.by_partition.items()}
    spans, offsets = pending.take_stored(stored)
    try:
        rows = await rate_open_periods(spans, plans=plans, usage=store, sink=sink, now=SystemClock().now())
        if offsets:
            await consumer.commit(offsets)
    except BaseException:
        # Not rated, so still pending: nothing may be forgotten because a store was away.
        pending.by_partition = before
        raise
    if rows:
        log.debug("usage.rated", spans=len(spans), rows=rows)


async def _rate_changed(
    consumer: AIOKafkaConsumer,
    changes: ChangedSubscriptions,
    plans: PostgresTimelines,
    store: ClickHouseRating,
    sink: _Sink,
    clock: Clock,
) -> None:
    """Rate tenants whose subscription was changed: no usage tells of it. Each worker those of its own partitions."""
    now = clock.now()
    found = await plans.changed_since(changes.since)
    mine = {partition.partition for partition in consumer.assignment()}
    count = len(consumer.partitions_for_topic(USAGE_JOURNAL.name) or ())
    spans = changes.take(found, mine, count, now)
    if spans:
        await rate_open_periods(spans, plans=plans, usage=store, sink=sink, now=now)
    changes.done(found, now)
