"""The whole log again, into nothing: the result must be the same."""

from __future__ import annotations

import asyncio
import shutil

import redis
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from runtime.kafka_topics import create_topics
from tests.chaos import observed
from tests.chaos.row import Row
from tests.chaos.scenarios.registry import row
from tests.chaos.world import PARTITIONS, STREAM

TABLES = ("usage_events", "usage_rollups", "usage_samples", "usage_corrections", "usage_late", "meter_activations")


@row("F31", "the whole topic replayed into a fresh journal, ClickHouse and Redis: identical")
async def replay(row: Row) -> None:
    traffic = row.traffic(corrections=0.02, twins=0.005, poison=0.01)
    async with row.load(row.dose(800, 100_000), traffic=traffic):
        pass
    await row.settle()
    store = observed.Store(row.world.urls.clickhouse)
    before = store.digest()
    row.fleet.discard(*STREAM)
    await asyncio.to_thread(_forget_all_but_the_log, row, store)
    admin = AIOKafkaAdminClient(bootstrap_servers=row.world.urls.kafka)
    await admin.start()
    try:
        await admin.delete_topics(["usage.journal", "usage.rejected", "quota.crossed"])

        async def gone() -> bool:
            return "usage.journal" not in await admin.list_topics()

        await row.wait_for(gone, "the journal to be deleted")
    finally:
        await admin.close()
    await _rewind(row)
    await create_topics(row.world.settings)
    row.fault()
    for name in STREAM:
        # Cut into other micro-batches than the live run was: the totals must not depend on that.
        row.fleet.start(name, METERBOOK_MICRO_BATCH_EVENTS="5000")
    row.healed()
    # Late marks compare with the watermark before a micro-batch, and these are cut otherwise than in the live run.
    await row.settle(late=False)
    after = store.digest()
    store.close()
    row.must(before == after, f"live {before[:16]}, replayed {after[:16]}")
    row.note(f"sha256 of all totals, events, samples and corrections: {after[:32]} live and replayed")


async def _rewind(row: Row) -> None:
    """Let the meter group begin at the start of the log; the offsets of deleted topics went with them."""
    group, topic = observed.STAGES["meter"]
    reader = AIOKafkaConsumer(bootstrap_servers=row.world.urls.kafka, group_id=group, enable_auto_commit=False)
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    reader.assign(places)
    await reader.start()
    try:

        async def committed() -> bool:
            # Refused until the dead members have timed out.
            await reader.commit(dict.fromkeys(places, 0))
            return True

        await row.wait_for(committed, "the meter group to be set back")
    finally:
        await reader.stop()


def _forget_all_but_the_log(row: Row, store: observed.Store) -> None:
    for table in TABLES:
        store.rows(f"TRUNCATE TABLE {table}")
    with redis.Redis.from_url(row.world.urls.redis) as client:
        client.flushall()
    shutil.rmtree(row.world.folder / "home" / "state", ignore_errors=True)
