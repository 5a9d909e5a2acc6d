"""The engines a run needs, in a temporary folder. Owns topics, their contents, and putting them back between rounds.

The meter worker's topics have fixed names, so single events and batches lie on two brokers: each is filled once, and
between rounds only the journal, the dead letters and the group's offsets start afresh.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from benchmarks.workload import TENANTS
from catalogues.load_catalogue import load_catalogue, shipped_files
from core.topics import USAGE_EVENTS, USAGE_JOURNAL, USAGE_REJECTED
from runtime import stack
from runtime.kafka_topics import create_topics
from runtime.migrations import PostgresMigrations, apply_pending, read_migrations
from runtime.settings import ENGINES, Settings
from streams.adapters.kafka_journal import partition_of_key

PARTITIONS = 4
_PRODUCER_BATCH_BYTES = 262_144
_TRIES = 100
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker with the usage of a run on `usage.events`; `settings` point the product at it."""

    settings: Settings

    @property
    def bootstrap(self) -> str:
        """`host:port`."""
        return self.settings.kafka_bootstrap

    def environment(self) -> dict[str, str]:
        """The environment in which a process of the product finds these engines and takes nothing else from ours."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("METERBOOK_")}
        return kept | {
            "METERBOOK_HOME": str(self.settings.home),
            "METERBOOK_KAFKA_URL": self.bootstrap,
            "METERBOOK_POSTGRES_URL": self.settings.postgres,
            "METERBOOK_USAGE_PARTITIONS": str(self.settings.usage_partitions),
        }


def start(home: Path, name: str, progress: Progress, *, postgres_url: str | None = None) -> Broker:
    """Start a broker in `home/name`, and PostgreSQL with tenants and meters unless it is given by URL."""
    folder = home / name
    external = {engine for engine in ENGINES if engine not in ("kafka", "postgres")}
    if postgres_url is not None:
        external.add("postgres")
    stack.up(folder, progress=lambda line: progress(f"{name}: {line}"), external=external)
    settings = Settings(home=folder, postgres_url=postgres_url, usage_partitions=PARTITIONS)
    if postgres_url is None:
        _fill_registry(settings)
    asyncio.run(create_topics(settings))
    return Broker(settings)


def stop(home: Path, name: str) -> None:
    """End what `start` started."""
    stack.down(home / name)


def produce(broker: Broker, messages: Iterable[tuple[str, bytes]]) -> int:
    """Put (tenant, value) messages on `usage.events` by Kafka's own partitioning; returns how many."""
    return asyncio.run(_produce(broker.bootstrap, messages))


def reset(broker: Broker) -> None:
    """Let the next meter worker start from nothing: empty journal, dead letters and disk, offsets at the start."""
    asyncio.run(_reset(broker.settings))
    shutil.rmtree(broker.settings.state, ignore_errors=True)


async def end_offsets(bootstrap: str, topic: str) -> dict[int, int]:
    """Return each partition's end."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        ends = await consumer.end_offsets(places)
        return {place.partition: ends[place] for place in places}
    finally:
        await consumer.stop()


def _fill_registry(settings: Settings) -> None:
    with psycopg.connect(settings.postgres, autocommit=True) as connection:
        apply_pending(PostgresMigrations(connection), read_migrations("postgres"))
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
                " VALUES (%s, %s, 'billing@example.invalid', 'US', 'USD', now())",
                [(tenant, tenant) for tenant in TENANTS],
            )
            cursor.executemany(
                "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, dimensions, weight_per,"
                " created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, now())",
                [
                    (
                        one.meter_id,
                        one.unit,
                        one.event_type,
                        one.aggregation,
                        one.value_property,
                        list(one.dimensions),
                        one.weight_per,
                    )
                    for one in load_catalogue(shipped_files()).meters
                ],
            )


async def _produce(bootstrap: str, messages: Iterable[tuple[str, bytes]]) -> int:
    partitions = {tenant: partition_of_key(tenant.encode(), PARTITIONS) for tenant in TENANTS}
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", compression_type="lz4", max_batch_size=_PRODUCER_BATCH_BYTES
    )
    await producer.start()
    try:
        # Whole batches: `send` awaits once per message, which would take longer than the measurements.
        building = [producer.create_batch() for _ in range(PARTITIONS)]
        confirmations = []

        async def send(partition: int) -> None:
            batch, building[partition] = building[partition], producer.create_batch()
            confirmations.append(await producer.send_batch(batch, USAGE_EVENTS.name, partition=partition))

        sent = 0
        for tenant, value in messages:
            partition, key = partitions[tenant], tenant.encode()
            if building[partition].append(key=key, value=value, timestamp=None) is None:
                await send(partition)
                added = building[partition].append(key=key, value=value, timestamp=None)
                assert added is not None, "a message is larger than a producer's batch"
            sent += 1
        for partition in range(PARTITIONS):
            if building[partition].record_count():
                await send(partition)
        await asyncio.gather(*confirmations)
        return sent
    finally:
        await producer.stop()


async def _reset(settings: Settings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([USAGE_JOURNAL.name, USAGE_REJECTED.name])
    finally:
        await admin.close()
    missing = {USAGE_JOURNAL.name, USAGE_REJECTED.name}
    for _ in range(_TRIES):
        missing -= set(await create_topics(settings))
        if not missing:
            break
        await asyncio.sleep(0.1)  # deleting is not done yet
    assert not missing, f"the broker does not let go of {missing}"
    await _rewind(settings)


async def _rewind(settings: Settings) -> None:
    from streams.agents.meter import GROUP

    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=GROUP,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        places = [TopicPartition(USAGE_EVENTS.name, partition) for partition in range(PARTITIONS)]
        consumer.assign(places)
        await consumer.commit(dict.fromkeys(places, 0))
    finally:
        await consumer.stop()
