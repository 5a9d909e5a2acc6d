"""The warehouse agent: `meterbook worker warehouse`. Journal and raw events in, ClickHouse rows out."""

from __future__ import annotations

import faust
from aiokafka.errors import KafkaError

from core.clock import SystemClock
from core.topics import USAGE_JOURNAL
from runtime.settings import Settings
from streams.adapters.batch_transport import create_batch_app
from streams.adapters.clickhouse_warehouse import CLICKHOUSE_DOWN, ClickHouseWarehouse
from streams.adapters.source_reader import SourceReader
from streams.agents.lane_app import attach_lanes
from streams.warehouse_lane import WarehouseLane

GROUP = "meterbook-warehouse"


def create_app(settings: Settings) -> faust.App:
    """Return the Faust app of the warehouse agent."""
    app = create_batch_app(GROUP, settings.kafka_bootstrap)
    warehouse = ClickHouseWarehouse(settings)

    def make_lane(partition: int) -> WarehouseLane:
        return WarehouseLane(
            partition,
            warehouse,
            SourceReader(settings.kafka_bootstrap, partition),
            commit=lambda offset: app.consumer.commit_offset(USAGE_JOURNAL.name, partition, offset),
            clock=SystemClock(),
            transient=(*CLICKHOUSE_DOWN, KafkaError),
            max_ahead_us=settings.event_max_ahead_seconds * 1_000_000,
        )

    attach_lanes(app, USAGE_JOURNAL, make_lane, finally_=warehouse.close)
    return app
