"""The contract of live quotas, on memory, the real Valkey and a cluster of it: absolute, newest wins, a wipe shows."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from redis.asyncio.cluster import RedisCluster

from core.live_quota import EPOCH_KEY, FRESHNESS_KEY, RESERVING_KEY, hold_key, quota_key, read_parts
from core.quantity import UNIT, unscale
from runtime.redis import connect_redis, mark_keys
from runtime.settings import Settings
from streams.adapters.redis_quotas import HOUR_TTL_SECONDS, PERIOD_TTL_SECONDS, RedisQuotas
from streams.domain.quota_totals import Total
from tests.redis_cluster import Cluster, redis_cluster  # noqa: F401 - a fixture
from tests.streams.memory_quotas import MemoryQuotas, MemoryStore

MONTH, HOUR = "2026-10", "2026-10-31T07"
_numbers = itertools.count(100_000)


class RedisDesk:
    """Writers of Redis, of partitions no worker has, and a reader."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self._first = next(_numbers) * 100

    def writer(self, partition: int) -> RedisQuotas:
        return RedisQuotas(self.redis, self._first + partition)

    async def used(self, tenant: str, meter: str, period: str) -> Decimal:
        fields = await self.redis.hgetall(quota_key(tenant, meter, period))
        return unscale(sum(part.quantity for part in read_parts(fields)))

    async def lose(self, writer: Any) -> None:
        for name in (EPOCH_KEY, FRESHNESS_KEY):
            for key in mark_keys(self.redis, name):
                await self.redis.hdel(key, writer._field, f"filling:{writer._field}", f"hours:{writer._field}")


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
async def single_desk(settings: Settings) -> AsyncIterator[RedisDesk]:
    redis = connect_redis(settings.redis, timeout_s=10, connect_timeout_s=3)
    yield RedisDesk(redis)
    await redis.aclose()


@pytest.fixture
async def cluster_desk(redis_cluster: Cluster) -> AsyncIterator[RedisDesk]:  # noqa: F811
    redis = connect_redis(redis_cluster.url, timeout_s=10, connect_timeout_s=3)
    # Many first calls at once race inside the client; a lane would try again, these tests call once.
    await redis.initialize()
    yield RedisDesk(redis)
    await redis.aclose()


REAL = [pytest.param(name, marks=pytest.mark.integration) for name in ("single", "cluster")]


@pytest.fixture(params=REAL)
def redis_desk(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_desk")


@pytest.fixture(params=["memory", *REAL])
def desk(request: pytest.FixtureRequest) -> Any:
    return MemoryDesk() if request.param == "memory" else request.getfixturevalue(f"{request.param}_desk")


@pytest.fixture
def tenant() -> str:
    return f"quota-{next(_numbers)}"


@pytest.fixture
def total(tenant: str) -> Callable[..., Total]:
    def make(
        quantity: int, version: int, *, segment: int = 0, meter: str = "tokens", period: str = MONTH, **more: Any
    ) -> Total:
        at_ms = 1_700_000_000_000 + version
        return Total(tenant, meter, period, segment, quantity, quantity // UNIT, version, at_ms, **more)

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
    assert await writer.mark_filled(token)
    assert await writer.has_all(7)
    assert await writer.has_all(3)
    assert await writer.mark_filled(token, hours=True)
    # It was told of 9, and says 7: it came back from an older save.
    assert not await writer.has_all(9)
    assert not await desk.writer(1).has_all(-1)


async def test_a_store_that_was_wiped_while_it_was_filled_is_not_marked(desk: Any) -> None:
    writer = desk.writer(0)
    token = await writer.begin_filling()
    await desk.lose(writer)
    await writer.mark_progress(7, 1)
    assert not await writer.mark_filled(token)
    assert not await writer.has_all(7)


async def test_filling_anew_takes_the_mark_away(desk: Any) -> None:
    writer = desk.writer(0)
    first = await writer.begin_filling()
    await writer.mark_progress(1, 1)
    assert await writer.mark_filled(first)
    assert await writer.mark_filled(first, hours=True)
    second = await writer.begin_filling()
    assert not await writer.has_all(1)
    assert not await writer.mark_filled(first)
    assert not await writer.mark_filled(first, hours=True)
    assert await writer.mark_filled(await writer.begin_filling())
    assert second != first


async def test_more_totals_than_a_pipeline_holds_all_arrive(redis_desk: RedisDesk) -> None:
    tenants = [f"many-{next(_numbers)}" for _ in range(1_200)]
    await redis_desk.writer(0).write(
        [Total(tenant, "tokens", period, 0, UNIT, 1, 1, 1) for tenant in tenants for period in (MONTH, HOUR)]
    )
    assert {await redis_desk.used(tenant, "tokens", MONTH) for tenant in tenants} == {Decimal(1)}


async def test_keys_expire_months_late_and_hours_soon(redis_desk: RedisDesk, tenant: str, total: Any) -> None:
    await redis_desk.writer(0).write([total(UNIT, 1), total(UNIT, 1, period=HOUR)])
    month_ttl = await redis_desk.redis.ttl(quota_key(tenant, "tokens", MONTH))
    hour_ttl = await redis_desk.redis.ttl(quota_key(tenant, "tokens", HOUR))
    # A rolling window reaches back through the longest month.
    assert 744 * 3_600 < hour_ttl <= HOUR_TTL_SECONDS < month_ttl <= PERIOD_TTL_SECONDS


async def test_readers_find_quantities_events_aggregation_and_progress(
    redis_desk: RedisDesk, tenant: str, total: Any
) -> None:
    writer = redis_desk.writer(3)
    await writer.write([total(7 * UNIT // 2, 11, segment=5)])
    partition = writer._partition
    assert await redis_desk.redis.hgetall(quota_key(tenant, "tokens", MONTH)) == {
        f"q{partition}:5": "3.5",
        f"n{partition}:5": "3",
        f"v{partition}:5": "11",
        "a": "sum",
        "at": "1700000000011",
    }
    await writer.mark_progress(11, 99)
    for key in mark_keys(redis_desk.redis, FRESHNESS_KEY):
        assert await redis_desk.redis.hget(key, writer._field) == '{"journal_offset":11,"at_ms":99}'


async def test_a_level_and_its_time_are_kept_with_the_area(redis_desk: RedisDesk, tenant: str, total: Any) -> None:
    writer = redis_desk.writer(0)
    at_us = 1_793_000_000_000_001
    await writer.write([total(-5, 4, aggregation="time_weighted", level=7 * UNIT, at_us=at_us)])
    fields = await redis_desk.redis.hgetall(quota_key(tenant, "tokens", MONTH))
    [part] = read_parts(fields)
    assert (part.quantity, part.level, part.at_us, fields["a"]) == (-5, 7 * UNIT, at_us, "time_weighted")


async def test_all_keys_of_a_tenant_share_a_cluster_slot(redis_desk: RedisDesk) -> None:
    # Valkey's own function: keys that one script touches must lie in one slot of a cluster.
    def slot(key: str) -> Any:
        return redis_desk.redis.execute_command("CLUSTER KEYSLOT", key, **target)

    target = {"target_nodes": "random"} if isinstance(redis_desk.redis, RedisCluster) else {}
    for name in ("acme", "a.b-c_d", "0"):
        keys = [quota_key(name, meter, period) for meter in ("tokens", "runs") for period in (MONTH, HOUR)]
        keys += [hold_key(name, "awaited"), hold_key(name, "held:tokens")]
        assert len({await slot(key) for key in keys}) == 1
    assert await slot(quota_key("acme", "tokens", MONTH)) != await slot(quota_key("globex", "tokens", MONTH))


async def test_a_script_that_the_server_forgot_is_sent_again(redis_desk: RedisDesk, tenant: str, total: Any) -> None:
    writer = redis_desk.writer(0)
    await writer.write([total(UNIT, 1)])
    await redis_desk.redis.script_flush()
    await writer.write([total(2 * UNIT, 2)])
    await redis_desk.redis.script_flush()
    assert await writer.mark_filled(await writer.begin_filling())
    assert await redis_desk.used(tenant, "tokens", MONTH) == 2


async def test_only_reservations_whose_event_arrived_are_taken(redis_desk: RedisDesk, tenant: str) -> None:
    redis, writer = redis_desk.redis, redis_desk.writer(0)
    here, elsewhere = bytes(range(16)), bytes(16)
    await redis.hset(hold_key(tenant, "awaited"), mapping={here.hex(): "a|b|rsv_1", elsewhere.hex(): "tokens|rsv_2"})
    await redis.hset(hold_key(tenant, "held:a|b"), "rsv_1", "5")
    await redis.zadd(hold_key(tenant, "expiry:a|b"), {"rsv_1": 1})
    assert await writer.take_held([tenant], {here}) == []
    await redis.sadd(RESERVING_KEY, tenant)
    assert await writer.take_held([tenant, "other"], {here, b"x" * 16}) == ["rsv_1"]
    assert await redis.hgetall(hold_key(tenant, "awaited")) == {elsewhere.hex(): "tokens|rsv_2"}
    assert not await redis.exists(hold_key(tenant, "held:a|b"))
    assert not await redis.exists(hold_key(tenant, "expiry:a|b"))
    assert await writer.take_held([tenant], {here}) == []


@pytest.mark.integration
async def test_one_wiped_node_of_a_cluster_shows(cluster_desk: RedisDesk, redis_cluster: Cluster) -> None:  # noqa: F811
    writer = cluster_desk.writer(0)
    for index in range(3):
        token = await writer.begin_filling()
        await writer.mark_progress(4, 1)
        assert await writer.mark_filled(token)
        assert await writer.has_all(4)
        with redis_cluster.node(index) as node:
            node.flushall()
        assert not await writer.has_all(4)
        assert not await writer.mark_filled(token)
