"""The quota agent: `meterbook worker quota`. Journal in, live totals in Redis, crossings on `quota.crossed`."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal

import faust
import psycopg
import structlog
from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis

from core.clock import SystemClock
from core.messages import QuotaCrossed, encode_message
from core.topics import QUOTA_CROSSED, USAGE_JOURNAL
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings
from runtime.topic_consumer import create_producer
from streams.adapters.batch_transport import create_batch_app
from streams.adapters.kafka_journal import read_journal
from streams.adapters.redis_quotas import RedisQuotas
from streams.agents.lane_app import attach_lanes
from streams.domain.quota_totals import Limits, QuotaLimit, QuotaTotals
from streams.quota_lane import QuotaLane

GROUP = "meterbook-quota"
log = structlog.get_logger()


class LimitsCache:
    """Quota limits from PostgreSQL, read again when older than `refresh_s`; in an outage the last good ones serve."""

    def __init__(self, pool: Pool, refresh_s: float) -> None:
        self._pool, self._refresh_s = pool, refresh_s
        self._limits: Limits = {}
        self._read_at: float | None = None

    async def get(self) -> Limits:
        """Return limits by (tenant, meter)."""
        now = time.monotonic()
        if self._read_at is None or now - self._read_at >= self._refresh_s:
            try:
                self._limits = await self._read()
                self._read_at = now
            except psycopg.Error as error:
                log.warning("quota_limits.stale", error=str(error))
        return self._limits

    async def _read(self) -> Limits:
        async with self._pool.connection(timeout=5) as connection:
            rows = await (
                await connection.execute("SELECT tenant_id, meter_id, limit_quantity, unit, hard FROM quota_limits")
            ).fetchall()
        return {
            (row["tenant_id"], row["meter_id"]): QuotaLimit(Decimal(row["limit_quantity"]), row["unit"], row["hard"])
            for row in rows
        }


class KafkaAnnouncements:
    """Announces crossings on `quota.crossed`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = asyncio.Lock()
        self._producer: AIOKafkaProducer | None = None

    async def announce(self, crossings: list[QuotaCrossed]) -> None:
        """Produce the messages and wait until the broker has confirmed all."""
        producer = await self._connect()
        sent = [
            await producer.send(QUOTA_CROSSED.name, encode_message(message), key=message.tenant_id.encode())
            for message in crossings
        ]
        await asyncio.gather(*sent)

    async def close(self) -> None:
        """Stop the producer."""
        if self._producer is not None:
            await self._producer.stop()

    async def _connect(self) -> AIOKafkaProducer:
        async with self._turn:
            if self._producer is None:
                producer = create_producer(self._settings)
                await producer.start()
                self._producer = producer
            return self._producer


def create_app(settings: Settings) -> faust.App:
    """Return the Faust app of the quota agent."""
    app = create_batch_app(GROUP, settings.kafka_bootstrap, folder=settings.home / "faust")
    pool = create_pool(settings, max_size=2)
    limits = LimitsCache(pool, settings.registry_refresh_seconds)
    announcements = KafkaAnnouncements(settings)
    redis = Redis.from_url(
        settings.redis, socket_timeout=10, socket_connect_timeout=3, health_check_interval=15, decode_responses=True
    )

    def make_lane(partition: int) -> QuotaLane:
        return QuotaLane(
            partition,
            QuotaTotals(settings.alert_thresholds_percent),
            RedisQuotas(redis, partition),
            announcements,
            history=lambda: read_journal(settings.kafka_bootstrap, partition),
            limits=limits.get,
            commit=lambda offset: app.consumer.commit_offset(USAGE_JOURNAL.name, partition, offset),
            clock=SystemClock(),
        )

    async def stop() -> None:
        await announcements.close()
        await redis.aclose()
        await pool.close()

    attach_lanes(app, USAGE_JOURNAL, make_lane, first=pool.open, finally_=stop)
    return app
