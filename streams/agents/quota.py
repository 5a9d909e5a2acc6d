"""The quota agent: `meterbook worker quota`. Journal in, live totals in Redis, crossings on `quota.crossed`."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal

import faust
import psycopg
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from redis.asyncio import Redis

from core.clock import SystemClock
from core.messages import QuotaCrossed, encode_message
from core.topics import QUOTA_CROSSED, USAGE_JOURNAL
from runtime.patience import until_done
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
        self._tried_at: float | None = None
        self._turn = asyncio.Lock()

    async def get(self) -> Limits:
        """Return limits by (tenant, meter)."""
        async with self._turn:
            if self._tried_at is None or time.monotonic() - self._tried_at >= self._refresh_s:
                try:
                    self._limits = await self._read()
                except psycopg.Error as error:
                    log.warning("quota_limits.stale", error=str(error))
                # After a failure, too: in an outage only one lane waits now and then, the others go on.
                self._tried_at = time.monotonic()
            return self._limits

    async def _read(self) -> Limits:
        async with self._pool.connection(timeout=1) as connection:
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
