"""Reading live totals: memory, the real Valkey and a cluster of it say the same of what the quota agent wrote."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from core.calendar import UTC_MONTHS
from core.errors import UnavailableError
from core.live_quota import EPOCH_KEY, FRESHNESS_KEY
from core.meters import Meter
from core.quantity import UNIT, format_scaled
from quotas.adapters.redis_view import RedisView
from quotas.domain.span import resolve_span
from quotas.read_quotas import read_quotas
from runtime.redis import connect_redis, mark_keys
from streams.adapters.redis_quotas import RedisQuotas
from streams.domain.quota_totals import Total
from tests.quotas.memory_books import MemoryView
from tests.redis_cluster import Cluster, redis_cluster  # noqa: F401 - a fixture

NOW = datetime(2026, 10, 20, 12, tzinfo=UTC)
CALLS = Meter("calls", "call", "e", "sum", "n")
DISK = Meter("disk", "GB-hour", "e", "time_weighted", "gb", weight_per="hour")
_numbers = itertools.count()


class RealScene:
    """One partition, filled by the quota agent's own adapter."""

    def __init__(self, redis: Any) -> None:
        self.redis, self.writer = redis, RedisQuotas(redis, 0)
        self.view = RedisView(redis, 1)

    async def fill(self, totals: Iterable[Total] = (), *, hours: bool = True) -> None:
        token = await self.writer.begin_filling()
        await self.writer.write(totals)
        await self.writer.mark_progress(7, 1_792_497_540_000)
        await self.writer.mark_filled(token)
        if hours:
            await self.writer.mark_filled(token, hours=True)

    async def wipe(self) -> None:
        for key in (*mark_keys(self.redis, EPOCH_KEY), *mark_keys(self.redis, FRESHNESS_KEY)):
            await self.redis.hdel(key, "p0", "hours:p0", "filling:p0")


class MemoryScene:
    def __init__(self) -> None:
        self.view: Any = MemoryView(stale=True)

    async def fill(self, totals: Iterable[Total] = (), *, hours: bool = True) -> None:
        for total in totals:
            fields = self.view.fields.setdefault((total.tenant, total.meter, total.period), {})
            fields |= {f"q0:{total.segment}": format_scaled(total.quantity), f"n0:{total.segment}": str(total.events)}
            if total.at_us:
                fields |= {f"l0:{total.segment}": format_scaled(total.level), f"t0:{total.segment}": str(total.at_us)}
        self.view.freshness = {"0": 1_792_497_540_000}
        self.view.stale = False

    async def wipe(self) -> None:
        self.view.stale, self.view.freshness = True, {}


@pytest.fixture(params=["memory", *(pytest.param(n, marks=pytest.mark.integration) for n in ("single", "cluster"))])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return ""
    if request.param == "single":
        return str(request.getfixturevalue("settings").redis)
    return str(request.getfixturevalue("redis_cluster").url)


@pytest.fixture
async def scene(url: str) -> AsyncIterator[Any]:
    if not url:
        yield MemoryScene()
        return
    redis = connect_redis(url, timeout_s=10, connect_timeout_s=3)
    made = RealScene(redis)
    yield made
    await made.wipe()
    await redis.aclose()


def total(tenant: str, meter: Meter, period: str, quantity: int, **more: Any) -> Total:
    return Total(tenant, meter.meter_id, period, more.pop("segment", 0), quantity, 1, 3, 1, meter.aggregation, **more)


async def read(scene: Any, tenant: str, text: str, *meters: Meter) -> Any:
    span = resolve_span(text, UTC_MONTHS, NOW)
    return await read_quotas(scene.view, tenant, meters, span, calendar=UTC_MONTHS, now=NOW)


@pytest.fixture
def tenant() -> str:
    return f"view-{next(_numbers)}"


async def test_months_years_and_rolling_windows_add_up(scene: Any, tenant: str) -> None:
    await scene.fill(
        [
            total(tenant, CALLS, "2026-10", 5 * UNIT),
            total(tenant, CALLS, "2026-10", -UNIT // 4, segment=9),
            total(tenant, CALLS, "2026-03", 7 * UNIT),
            total(tenant, CALLS, "2026-10-20T11", 2 * UNIT),
            total(tenant, CALLS, "2026-10-19T12", UNIT),
            total(tenant, CALLS, "2026-10-19T11", 90 * UNIT),
        ]
    )
    found = {}
    for text in ("current_month", "current_year", "rolling:24h", "2026-03", "2026-10-19T11"):
        [reading] = await read(scene, tenant, text, CALLS)
        found[text] = reading.quantity
        assert not reading.is_stale
        assert reading.as_of == datetime.fromtimestamp(1_792_497_540, UTC)
    assert found == {
        "current_month": 19 * UNIT // 4, "current_year": 47 * UNIT // 4, "rolling:24h": 3 * UNIT, "2026-03": 7 * UNIT,
        "2026-10-19T11": 90 * UNIT,
    }  # fmt: skip


async def test_several_meters_and_a_level_set_earlier_are_read_together(scene: Any, tenant: str) -> None:
    september = int(datetime(2026, 9, 29, tzinfo=UTC).timestamp()) * 1_000_000
    later = int(datetime(2026, 10, 2, tzinfo=UTC).timestamp()) * 1_000_000
    await scene.fill(
        [
            total(tenant, CALLS, "2026-09", 5 * UNIT),
            # The present level is younger than the end of September; August's is the one September began with.
            total(tenant, DISK, "now", 0, level=9 * UNIT, at_us=later),
            total(tenant, DISK, "2026-08", 0, level=2 * UNIT, at_us=september - 31 * 86_400_000_000),
        ]
    )
    calls, disk = await read(scene, tenant, "2026-09", CALLS, DISK)
    assert (calls.quantity, disk.quantity) == (5 * UNIT, 2 * 30 * 24 * UNIT)
    nothing = await read(scene, f"{tenant}-other", "current_month", CALLS, DISK)
    assert [reading.quantity for reading in nothing] == [0, 0]


async def test_what_is_not_all_there_is_stale(scene: Any, tenant: str) -> None:
    await scene.fill([total(tenant, CALLS, "2026-10", UNIT)])
    await scene.wipe()
    [reading] = await read(scene, tenant, "current_month", CALLS)
    assert (reading.is_stale, reading.as_of) == (True, None)


@pytest.mark.integration
async def test_rolling_windows_wait_for_the_hours(url: str, scene: Any, tenant: str) -> None:
    if not url:
        return
    await scene.fill([total(tenant, CALLS, "2026-10", UNIT)], hours=False)
    assert [r.is_stale for r in await read(scene, tenant, "current_month", CALLS)] == [False]
    assert [r.is_stale for r in await read(scene, tenant, "rolling:24h", CALLS)] == [True]


async def test_a_store_that_does_not_answer_is_unavailable() -> None:
    redis = connect_redis("redis://127.0.0.1:1/0", timeout_s=1, connect_timeout_s=1)
    with pytest.raises(UnavailableError):
        await RedisView(redis, 1).fetch("acme", [("calls", "2026-10")], [], NOW)
    await redis.aclose()
