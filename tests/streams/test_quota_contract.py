"""The contract of live quotas, on memory and on the real Valkey: absolute, newest wins, a wiped store is noticed."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from redis.asyncio import Redis

from core.quantity import UNIT
from runtime.settings import Settings
from streams.adapters.redis_quotas import (
    EPOCH_KEY,
    FRESHNESS_KEY,
    HOUR_TTL_SECONDS,
    MONTH_TTL_SECONDS,
    RedisQuotas,
    quota_key,
)
from streams.domain.quota_totals import Total
from tests.streams.memory_quotas import MemoryQuotas, MemoryStore

MONTH, HOUR = "2026-10", "2026-10-31T07"
_numbers = itertools.count(100_000)


class RedisDesk:
    """Writers of Redis, of partitions no worker has, and a reader."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._first = next(_numbers) * 100

    def writer(self, partition: int) -> RedisQuotas:
        return RedisQuotas(self.redis, self._first + partition)

    async def used(self, tenant: str, meter: str, period: str) -> Decimal:
        fields = await self.redis.hgetall(quota_key(tenant, meter, period))
        return sum((Decimal(value) for name, value in fields.items() if name[0] == "q"), Decimal())

    async def lose(self, writer: Any) -> None:
        await self.redis.hdel(EPOCH_KEY, writer._field, f"filling:{writer._field}")
        await self.redis.hdel(FRESHNESS_KEY, writer._field)


class MemoryDesk:
    def __init__(self) -> None:
        self.store = MemoryStore()

    def writer(self, partition: int) -> MemoryQuotas:
        return MemoryQuotas(self.store, partition)

    async def used(self, tenant: str, meter: str, period: str) -> Decimal:
        return await self.writer(0).used(tenant, meter, period)

    async def lose(self, writer: Any) -> None:
        self.store.wipe()


@pytest.fixture
async def redis_desk(settings: Settings) -> AsyncIterator[RedisDesk]:
    redis = Redis.from_url(settings.redis, decode_responses=True)
    yield RedisDesk(redis)
    await redis.aclose()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
def desk(request: pytest.FixtureRequest) -> Any:
    return MemoryDesk() if request.param == "memory" else request.getfixturevalue("redis_desk")


@pytest.fixture
def tenant() -> str:
    return f"quota-{next(_numbers)}"


@pytest.fixture
def total(tenant: str) -> Callable[..., Total]:
    def make(quantity: int, version: int, *, segment: int = 0, meter: str = "tokens", period: str = MONTH) -> Total:
        return Total(tenant, meter, period, segment, quantity, quantity // UNIT, version, 1_700_000_000_000 + version)

    return make


async def test_a_newer_total_replaces_and_an_older_one_does_not(desk: Any, tenant: str, total: Any) -> None:
    writer = desk.writer(0)
    await writer.write([total(5 * UNIT, 3)])
    await writer.write([total(9 * UNIT, 8)])
    assert await desk.used(tenant, "tokens", MONTH) == 9
    await writer.write([total(5 * UNIT, 3)])
    await writer.write([total(1 * UNIT, 8)])
    assert await desk.used(tenant, "tokens", MONTH) == 9


async def test_replays_in_any_order_end_at_the_newest(desk: Any, tenant: str, total: Any) -> None:
    rng = random.Random(7)
    history = [total(version * UNIT // 3, version) for version in range(1, 30)]
    for _ in range(5):
        rng.shuffle(history)
        for start in range(0, len(history), 4):
            await desk.writer(0).write(history[start : start + 4])
    assert await desk.used(tenant, "tokens", MONTH) == Decimal(29 * UNIT // 3).scaleb(-12)


async def test_segments_and_partitions_add_up(desk: Any, tenant: str, total: Any) -> None:
    await desk.writer(0).write([total(2 * UNIT, 4), total(3 * UNIT, 2, segment=17)])
    await desk.writer(1).write([total(UNIT // 4, 1)])
    assert await desk.used(tenant, "tokens", MONTH) == Decimal("5.25")


async def test_meters_and_periods_are_kept_apart(desk: Any, tenant: str, total: Any) -> None:
    await desk.writer(0).write([total(UNIT, 1), total(2 * UNIT, 1, period=HOUR), total(4 * UNIT, 1, meter="runs")])
    assert await desk.used(tenant, "tokens", MONTH) == 1
    assert await desk.used(tenant, "tokens", HOUR) == 2
    assert await desk.used(tenant, "runs", MONTH) == 4


async def test_quantities_are_exact_far_beyond_what_a_float_holds(desk: Any, tenant: str, total: Any) -> None:
    huge = 123_456_789_012_345_678_901_234_567_890_123_456
    await desk.writer(0).write([total(huge, 1)])
    assert await desk.used(tenant, "tokens", MONTH) == Decimal("123456789012345678901234.567890123456")


async def test_a_store_is_whole_only_after_it_was_filled_and_as_far_as_it_was_told(desk: Any) -> None:
    writer = desk.writer(0)
    assert not await writer.has_all(-1)
    token = await writer.begin_filling()
    await writer.mark_progress(7, 1)
    assert not await writer.has_all(7)
    assert await writer.mark_filled(1, token)
    assert await writer.has_all(7)
    assert await writer.has_all(3)
    # It was told of 9, and says 7: it came back from an older save.
    assert not await writer.has_all(9)
    assert not await desk.writer(1).has_all(-1)


async def test_a_store_that_was_wiped_while_it_was_filled_is_not_marked(desk: Any) -> None:
    writer = desk.writer(0)
    token = await writer.begin_filling()
    await desk.lose(writer)
    await writer.mark_progress(7, 1)
    assert not await writer.mark_filled(1, token)
    assert not await writer.has_all(7)


async def test_filling_anew_takes_the_mark_away(desk: Any) -> None:
    writer = desk.writer(0)
    first = await writer.begin_filling()
    await writer.mark_progress(1, 1)
    assert await writer.mark_filled(1, first)
    second = await writer.begin_filling()
    assert not await writer.has_all(1)
    assert not await writer.mark_filled(1, first)
    assert await writer.mark_filled(1, await writer.begin_filling())
    assert second != first


@pytest.mark.integration
async def test_more_totals_than_a_pipeline_holds_all_arrive(redis_desk: RedisDesk) -> None:
    tenants = [f"many-{next(_numbers)}" for _ in range(1_200)]
    await redis_desk.writer(0).write(
        [Total(tenant, "tokens", period, 0, UNIT, 1, 1, 1) for tenant in tenants for period in (MONTH, HOUR)]
    )
    assert {await redis_desk.used(tenant, "tokens", MONTH) for tenant in tenants} == {Decimal(1)}


@pytest.mark.integration
async def test_keys_expire_months_late_and_hours_soon(redis_desk: RedisDesk, tenant: str, total: Any) -> None:
    await redis_desk.writer(0).write([total(UNIT, 1), total(UNIT, 1, period=HOUR)])
    month_ttl = await redis_desk.redis.ttl(quota_key(tenant, "tokens", MONTH))
    hour_ttl = await redis_desk.redis.ttl(quota_key(tenant, "tokens", HOUR))
    assert 0 < hour_ttl <= HOUR_TTL_SECONDS < month_ttl <= MONTH_TTL_SECONDS


@pytest.mark.integration
async def test_readers_find_quantities_events_and_progress(redis_desk: RedisDesk, tenant: str, total: Any) -> None:
    writer = redis_desk.writer(3)
    await writer.write([total(7 * UNIT // 2, 11, segment=5)])
    partition = writer._partition
    fields = await redis_desk.redis.hgetall(quota_key(tenant, "tokens", MONTH))
    assert fields == {
        f"q{partition}:5": "3.5",
        f"n{partition}:5": "3",
        f"v{partition}:5": "11",
        "at": "1700000000011",
    }
    await writer.mark_progress(11, 99)
    assert await redis_desk.redis.hget(FRESHNESS_KEY, writer._field) == '{"journal_offset":11,"at_ms":99}'


@pytest.mark.integration
async def test_all_keys_of_a_tenant_share_a_cluster_slot(redis_desk: RedisDesk) -> None:
    # Valkey's own function: keys that one script touches must lie in one slot of a cluster.
    async def slot(key: str) -> int:
        return int(await redis_desk.redis.execute_command("CLUSTER KEYSLOT", key))

    for name in ("acme", "a.b-c_d", "0"):
        keys = [quota_key(name, meter, period) for meter in ("tokens", "runs") for period in (MONTH, HOUR)]
        assert len({await slot(key) for key in keys}) == 1
    assert await slot(quota_key("acme", "tokens", MONTH)) != await slot(quota_key("globex", "tokens", MONTH))


@pytest.mark.integration
async def test_a_script_that_the_server_forgot_is_sent_again(redis_desk: RedisDesk, tenant: str, total: Any) -> None:
    writer = redis_desk.writer(0)
    await writer.write([total(UNIT, 1)])
    await redis_desk.redis.script_flush()
    await writer.write([total(2 * UNIT, 2)])
    await redis_desk.redis.script_flush()
    assert await writer.mark_filled(1)
    assert await redis_desk.used(tenant, "tokens", MONTH) == 2
