"""The meter worker: `meterbook worker meter`. Routes fetched batches of `usage.events` to one lane per partition."""

from __future__ import annotations

import os
import socket

import faust

from core.clock import SystemClock
from core.topics import USAGE_EVENTS
from core.usage_event import IngestLimits
from runtime.garbage import collect_seldom
from runtime.postgres import create_pool
from runtime.registry import RegistryCache
from runtime.settings import Settings
from streams.adapters.batch_transport import create_batch_app
from streams.adapters.identity_store.store import DiskIdentities
from streams.adapters.kafka_journal import KafkaJournal, partition_of_key
from streams.adapters.originals import OriginalsOfPartition
from streams.adapters.sqlite_samples import SqliteSamples
from streams.agents.lane_app import attach_lanes
from streams.domain.meter_partition import MeterPartition
from streams.meter_lane import MeterLane

GROUP = "meterbook-meter"


def create_app(settings: Settings) -> faust.App:
    """Return the Faust app of the meter worker."""
    app = create_batch_app(GROUP, settings.kafka_bootstrap)
    pool = create_pool(settings, max_size=2)
    registry = RegistryCache(pool, SystemClock(), refresh_seconds=settings.registry_refresh_seconds)
    limits = IngestLimits(
        max_bytes=settings.event_max_bytes,
        max_ahead_us=settings.event_max_ahead_seconds * 1_000_000,
        max_age_us=settings.event_max_age_days * 86_400_000_000,
    )
    owner = f"{socket.gethostname()}:{os.getpid()}"

    def make_lane(partition: int) -> MeterLane:
        folder = settings.state / "meter" / str(partition)
        folder.mkdir(parents=True, exist_ok=True)
        state = MeterPartition(
            partition,
            topic=USAGE_EVENTS.name,
            owner=owner,
            partition_of=lambda tenant: partition_of_key(tenant.encode(), settings.usage_partitions),
            horizon_days=settings.dedupe_horizon_days,
            identities=DiskIdentities(folder / "identities", recent_max=settings.identities_in_memory),
            samples=SqliteSamples(folder / "samples.db"),
        )
        journal = KafkaJournal(settings.kafka_bootstrap, GROUP, partition)
        return MeterLane(
            state,
            journal,
            OriginalsOfPartition(settings, partition),
            registry,
            limits,
            pause_s=settings.micro_batch_ms / 1_000,
            events_max=settings.micro_batch_events,
        )

    async def start() -> None:
        await pool.open()
        # Long-lived start-up objects leave the collector's sight, and it runs less often: events make no cycles.
        collect_seldom(100_000, 50, 50)

    attach_lanes(app, USAGE_EVENTS, make_lane, first=start, finally_=pool.close)
    return app
