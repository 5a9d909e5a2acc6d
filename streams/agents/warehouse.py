"""The warehouse agent: `meterbook worker warehouse`. Journal and raw events in, ClickHouse rows out."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

import faust
from aiokafka.errors import KafkaError

from core.clock import SystemClock
from core.topics import USAGE_JOURNAL
from runtime.settings import Settings
from streams.adapters.batch_transport import batch_topic, create_batch_app
from streams.adapters.clickhouse_warehouse import CLICKHOUSE_DOWN, ClickHouseWarehouse
from streams.adapters.lanes import Lanes
from streams.adapters.source_reader import SourceReader
from streams.warehouse_lane import WarehouseLane

GROUP = "meterbook-warehouse"


def create_app(settings: Settings) -> faust.App:
    """Return the Faust app of the warehouse agent."""
    app = create_batch_app(GROUP, settings.kafka_bootstrap)
    journal = batch_topic(app, USAGE_JOURNAL.name)
    warehouse = ClickHouseWarehouse(settings)

    def make_lane(partition: int) -> WarehouseLane:
        return WarehouseLane(
            partition,
            warehouse,
            SourceReader(settings.kafka_bootstrap, partition),
            commit=lambda offset: app.consumer.commit_offset(USAGE_JOURNAL.name, partition, offset),
            clock=SystemClock(),
            transient=(*CLICKHOUSE_DOWN, KafkaError),
        )

    lanes = Lanes(make_lane)

    @app.agent(journal, name="warehouse")  # type: ignore[untyped-decorator]
    async def store(stream: AsyncIterable[Any]) -> None:
        """Hand every fetched batch of journal entries to its partition's lane."""
        async for event in stream.events():  # type: ignore[attr-defined]
            message = event.message
            if message.generation_id == app.consumer_generation_id:
                await lanes.put(message.partition, event.value)

    @app.on_partitions_assigned.connect  # type: ignore[untyped-decorator]
    async def assign_lanes(app: Any, assigned: Any, **kwargs: Any) -> None:
        await lanes.assign({tp.partition for tp in assigned})

    @app.on_before_shutdown.connect  # type: ignore[untyped-decorator]
    async def close_lanes(app: Any, **kwargs: Any) -> None:
        await lanes.close()
        await warehouse.close()

    return app
