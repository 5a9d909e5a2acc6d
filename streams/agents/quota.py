"""The quota agent: `meterbook worker quota`. Journal in, live totals in Redis, crossings on `quota.crossed`."""

from __future__ import annotations

import asyncio

import faust
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from core.clock import SystemClock
from core.messages import QuotaCrossed, encode_message
from core.topics import QUOTA_CROSSED, USAGE_JOURNAL
from runtime.patience import until_done
from runtime.postgres import create_pool
from runtime.redis import connect_redis
from runtime.registry import RegistryCache
from runtime.settings import Settings
from runtime.topic_consumer import create_producer
from streams.adapters.batch_transport import create_batch_app
from streams.adapters.postgres_quotas import PostgresArchive, RulesCache, settle_reservations
from streams.adapters.quota_book import QuotaBook
from streams.adapters.quota_history import KafkaHistory
from streams.adapters.redis_quotas import RedisQuotas
from streams.agents.lane_app import attach_lanes
from streams.quota_lane import QuotaLane

GROUP = "meterbook-quota"


class KafkaAnnouncements:
    """Announces crossings on `quota.crossed`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = asyncio.Lock()
        self._producer: AIOKafkaProducer | None = None

    async def announce(self, crossings: list[QuotaCrossed]) -> None:
        """Produce the messages and return when the broker has confirmed all; an outage is waited out."""
        await until_done("kafka", lambda: self._send(crossings), transient=(KafkaError, OSError))

    async def close(self) -> None:
        """Stop the producer."""
        if self._producer is not None:
            await self._producer.stop()

    async def _send(self, crossings: list[QuotaCrossed]) -> None:
        async with self._turn:
            if self._producer is None:
                producer = create_producer(self._settings)
                await producer.start()
                self._producer = producer
            try:
                sent = [
                    await self._producer.send(
                        QUOTA_CROSSED.name, encode_message(message), key=message.tenant_id.encode()
                    )
                    for message in crossings
                ]
                await asyncio.gather(*sent)
            except KafkaError:
                # An idempotent producer of which a record was refused refuses all that follow; the next is a new one.
                failed, self._producer = self._producer, None
                await failed.stop()
                raise


def create_app(settings: Settings) -> faust.App:
    """Return the Faust app of the quota agent."""
    app = create_batch_app(GROUP, settings.kafka_bootstrap)
    pool = create_pool(settings, max_size=3)
    clock = SystemClock()
    refresh = settings.registry_refresh_seconds
    registry = RegistryCache(pool, clock, refresh_seconds=refresh)
    rules = RulesCache(pool, registry, settings.alert_thresholds_percent, refresh)
    announcements = KafkaAnnouncements(settings)
    redis = connect_redis(settings.redis, timeout_s=10, connect_timeout_s=3)

    def make_lane(partition: int) -> QuotaLane:
        return QuotaLane(
            partition,
            RedisQuotas(redis, partition),
            announcements,
            open_book=lambda: QuotaBook.open(settings.state / f"quota-{partition}.sqlite"),
            history=KafkaHistory(settings.kafka_bootstrap, GROUP, partition),
            archive=PostgresArchive(pool, partition),
            rules=rules.get,
            commit=lambda offset: app.consumer.commit_offset(USAGE_JOURNAL.name, partition, offset),
            settle=lambda reservations: settle_reservations(pool, reservations),
            clock=clock,
        )

    async def stop() -> None:
        await announcements.close()
        await redis.aclose()
        await pool.close()

    attach_lanes(app, USAGE_JOURNAL, make_lane, first=pool.open, finally_=stop)
    return app
