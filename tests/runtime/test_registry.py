"""The registry of tenants and meters: fresh when asked, the last good one in an outage, never older than needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from core.calendar import UTC_MONTHS, Calendar
from core.clock import ManualClock
from core.meters import Filter, Meter
from runtime import registry as module
from runtime.postgres import create_pool
from runtime.registry import RegistryCache
from runtime.settings import Settings


class Pool:
    """PostgreSQL in memory: tenants, one meter, and whether it answers."""

    def __init__(self, *tenants: str) -> None:
        self.tenants = list(tenants)
        self.zones: dict[str, str] = {}
        self.down = 0
        self.silent = False
        self.readings = 0

    @asynccontextmanager
    async def connection(self, timeout: float) -> AsyncIterator[Any]:
        self.readings += 1
        if self.down:
            self.down -= 1
            raise psycopg.OperationalError("no connection")
        yield self

    async def execute(self, query: str) -> Any:
        if self.silent:
            await asyncio.Event().wait()
        meter = Meter("tokens", "token", "llm", "sum", "tokens", ("model",))
        rows: list[dict[str, Any]] = [
            {"tenant_id": tenant, "time_zone": zone, "billing_anchor_day": 1}
            for tenant, zone in ((tenant, self.zones.get(tenant, "UTC")) for tenant in self.tenants)
        ]
        if "meters" in query:
            rows = [{name: getattr(meter, name) for name in Meter.__slots__}]

        class Cursor:
            async def fetchall(self) -> Any:
                return rows

        return Cursor()


class Desk:
    def __init__(self) -> None:
        self.pool = Pool("acme")
        self.clock = ManualClock(datetime(2026, 10, 31, tzinfo=UTC))
        self.cache = RegistryCache(self.pool, self.clock, refresh_seconds=5)  # type: ignore[arg-type]

    async def tenants(self) -> set[str]:
        return set((await self.cache.get()).registry.tenants)

    def pass_seconds(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    sleep = asyncio.sleep

    async def instantly(seconds: float) -> None:
        await sleep(0)

    monkeypatch.setattr(module.asyncio, "sleep", instantly)
    return Desk()


async def test_it_is_read_once_and_again_when_it_is_old(desk: Desk) -> None:
    assert await desk.tenants() == {"acme"}
    desk.pool.tenants.append("globex")
    desk.pass_seconds(4.9)
    assert await desk.tenants() == {"acme"}
    desk.pass_seconds(0.1)
    assert await desk.tenants() == {"acme", "globex"}
    assert desk.pool.readings == 2


async def test_in_an_outage_the_last_good_one_serves_and_only_one_caller_waits_each_time(desk: Desk) -> None:
    await desk.tenants()
    desk.pool.down = 100
    desk.pass_seconds(6)
    for _ in range(50):
        assert await desk.tenants() == {"acme"}
    assert desk.pool.readings == 2
    desk.pass_seconds(5)
    assert await desk.tenants() == {"acme"}
    assert desk.pool.readings == 3
    desk.pool.down = 0
    desk.pool.tenants.append("globex")
    desk.pass_seconds(5)
    assert await desk.tenants() == {"acme", "globex"}


async def test_a_store_that_goes_silent_while_it_answers_is_given_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 0.01)
    assert await desk.tenants() == {"acme"}
    desk.pool.tenants, desk.pool.silent = ["acme", "globex"], True
    desk.pass_seconds(6)
    assert await desk.tenants() == {"acme"}
    desk.pool.silent = False
    desk.pass_seconds(6)
    assert await desk.tenants() == {"acme", "globex"}


async def test_the_first_reading_waits_for_the_store(desk: Desk) -> None:
    desk.pool.down = 4
    assert await desk.tenants() == {"acme"}
    assert desk.pool.readings == 5


async def test_one_newer_than_a_reading_is_read_once_for_all_who_ask(desk: Desk) -> None:
    known = (await desk.cache.get()).reading
    desk.pool.tenants.append("globex")
    desk.pass_seconds(-600)  # a clock that was set back says nothing about which reading is newer
    found = await asyncio.gather(*(desk.cache.newer_than(known) for _ in range(6)))
    assert all("globex" in loaded.registry.tenants and loaded.reading > known for loaded in found)
    assert desk.pool.readings == 2


async def test_one_newer_than_a_reading_waits_an_outage_out_rather_than_refuse_wrongly(desk: Desk) -> None:
    known = (await desk.cache.get()).reading
    desk.pool.tenants.append("globex")
    desk.pool.down = 7
    assert "globex" in (await desk.cache.newer_than(known)).registry.tenants
    assert desk.pool.readings == 9


async def test_a_zone_this_machine_does_not_know_is_told_and_stops_nobody(desk: Desk) -> None:
    desk.pool.tenants.append("globex")
    desk.pool.zones = {"acme": "Mars/Olympus_Mons", "globex": "Asia/Tokyo"}
    registry = (await desk.cache.get()).registry
    assert registry.calendars == {"globex": Calendar("Asia/Tokyo", 1)}
    assert registry.calendar_of("acme") == UTC_MONTHS


@pytest.mark.integration
async def test_tenants_and_meters_come_as_they_were_stored(settings: Settings) -> None:
    with psycopg.connect(settings.postgres, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO tenants"
            " (tenant_id, name, email, country, currency, time_zone, billing_anchor_day, created_at)"
            " VALUES ('registry-1', 'R', 'r@example.com', 'DE', 'EUR', 'UTC', 1, now()),"
            " ('registry-2', 'R', 'r@example.com', 'DE', 'EUR', 'Europe/Berlin', 31, now())"
        )
        connection.execute(
            "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, dimensions, created_at)"
            " VALUES ('registry_sum', 'GB', 'registry.sum', 'sum', 'gb', '{region,class}', now()),"
            " ('registry_count', 'run', 'registry.sum', 'count', NULL, '{}', now())"
        )
        connection.execute(
            "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, filters, weight_per,"
            " allowed_lateness_seconds, created_at) VALUES ('registry_weighted', 'GB-month', 'registry.weighted',"
            " 'time_weighted', 'gb', %s, 'month', 0, now())",
            (Jsonb([{"property": "region", "operator": "in", "values": ["eu", "us"]}]),),
        )
    async with create_pool(settings, max_size=1) as pool:
        loaded = await RegistryCache(pool, ManualClock(datetime.now(UTC)), refresh_seconds=5).get()
    assert "registry-1" in loaded.registry.tenants
    assert "registry-1" not in loaded.registry.calendars
    assert loaded.registry.calendar_of("registry-2") == Calendar("Europe/Berlin", 31)
    assert loaded.registry.by_id["registry_weighted"] == Meter(
        "registry_weighted", "GB-month", "registry.weighted", "time_weighted", "gb", (),
        (Filter("region", "in", ("eu", "us")),), "month", 0,
    )  # fmt: skip
    assert set(loaded.registry.by_event_type["registry.sum"]) == {
        Meter("registry_sum", "GB", "registry.sum", "sum", "gb", ("region", "class")),
        Meter("registry_count", "run", "registry.sum", "count", None, ()),
    }
