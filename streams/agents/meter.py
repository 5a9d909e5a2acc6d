"""The meter worker: `meterbook worker meter`. Routes fetched batches of `usage.events` to one lane per partition."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import AsyncIterable
from typing import Any

import faust

from core.clock import SystemClock
from core.topics import USAGE_EVENTS
from core.usage_event import IngestLimits
from runtime.postgres import create_pool
from runtime.registry import RegistryCache
from runtime.settings import Settings
from streams.adapters.batch_transport import batch_topic, create_batch_app
from streams.adapters.kafka_journal import KafkaJournal, partition_of_key
from streams.adapters.lanes import Lanes
from streams.domain.meter_partition import MeterPartition
from streams.meter_lane import MeterLane

GROUP = "meterbook-meter"


def create_app(settings: Settings) -> faust.App:
    """Return the Faust app of the meter worker."""
    app = create_batch_app(GROUP, settings.kafka_bootstrap)
    source = batch_topic(app, USAGE_EVENTS.name)
    pool = create_pool(settings, max_size=2)
    registry = RegistryCache(pool, SystemClock(), refresh_seconds=settings.registry_refresh_seconds)
    limits = IngestLimits(
        max_bytes=settings.event_max_bytes,
        max_ahead_us=settings.event_max_ahead_seconds * 1_000_000,
        max_age_us=settings.event_max_age_days * 86_400_000_000,
    )
    owner = f"{socket.gethostname()}:{os.getpid()}"

    def make_lane(partition: int) -> MeterLane:
        state = MeterPartition(
            partition,
            topic=USAGE_EVENTS.name,
            owner=owner,
            partition_of=lambda tenant: partition_of_key(tenant.encode(), settings.usage_partitions),
            horizon_days=settings.dedupe_horizon_days,
        )
        journal = KafkaJournal(settings.kafka_bootstrap, GROUP, partition)
        return MeterLane(
            state,
            journal,
            registry,
            limits,
            pause_s=settings.micro_batch_ms / 1_000,
            events_max=settings.micro_batch_events,
        )

    lanes = Lanes(make_lane)

    @app.agent(source, name="meter")  # type: ignore[untyped-decorator]
    async def meter(stream: AsyncIterable[Any]) -> None:
        """Hand every fetched batch to its partition's lane."""
        async for event in stream.events():  # type: ignore[attr-defined]
            message = event.message
            if message.generation_id == app.consumer_generation_id:
                await lanes.put(message.partition, event.value)

    @app.task  # type: ignore[untyped-decorator]
    async def open_registry() -> None:
        await pool.open()
        # Long-lived start-up objects leave the collector's sight, and it runs less often: events make no cycles.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 50)

    @app.on_partitions_assigned.connect  # type: ignore[untyped-decorator]
    async def assign_lanes(app: Any, assigned: Any, **kwargs: Any) -> None:
        await lanes.assign({tp.partition for tp in assigned})

    @app.on_before_shutdown.connect  # type: ignore[untyped-decorator]
    async def close_lanes(app: Any, **kwargs: Any) -> None:
        await lanes.close()
        await pool.close()

    return app
