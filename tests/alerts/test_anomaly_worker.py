"""Anomalies from ClickHouse's rollups to one alert per stretch, by however many workers, whatever arrives late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from alerts import anomaly_worker
from alerts.adapters.clickhouse_usage import ClickHouseUsage
from alerts.adapters.postgres_anomalies import PostgresAnomalies
from alerts.watch_anomalies import watch_anomalies
from core.alert_rules import AlertRule, AlertRules
from core.clock import ManualClock
from core.meters import Meter
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse_async
from runtime.postgres import Pool
from runtime.settings import Settings

pytestmark = pytest.mark.integration
HOUR = timedelta(hours=1)
BEGIN = datetime(2026, 9, 1, tzinfo=UTC)


class Scene:
    """A meter of its own with usage by the hour, and a watermark that moves only when told to."""

    def __init__(self, client: Any, pool: Pool, usage: ClickHouseUsage, meter: Meter) -> None:
        self.client, self.pool, self.usage, self.meter = client, pool, usage, meter
        self.tenant, self.rules = f"tenant-{uuid4().hex[:12]}", AlertRules.of((), (80,))
        self.states, self.version = PostgresAnomalies(pool), 0

    async def use(self, first: int, quantities: list[int], *, tenant: str | None = None, segment: int = 0) -> None:
        """Store usage of hours from `first` on: absolute rows, as the warehouse agent writes them."""
        self.version += 1
        rows = [
            [tenant or self.tenant, self.meter.meter_id, {}, BEGIN + HOUR * (first + i), 0, segment, Decimal(q), q,
             self.version]
            for i, q in enumerate(quantities) if q
        ]  # fmt: skip
        columns = (
            "tenant", "meter", "dimensions", "window_start", "source_partition", "segment", "quantity", "events",
            "version",
        )  # fmt: skip
        await self.client.insert("usage_rollups", rows, column_names=columns, settings=INSERT_SETTINGS)

    async def watch(self, hour: float, *, parts: int = 3) -> int:
        """Judge what has closed when the watermark is at `hour`."""
        return await watch_anomalies(
            self.meter,
            BEGIN + HOUR * hour,
            rules=self.rules,
            usage=self.usage,
            states=self.states,
            channels=("slack",),
            clock=ManualClock(BEGIN + HOUR * hour),
            parts=parts,
        )

    async def alerts(self) -> list[dict[str, Any]]:
        async with self.pool.connection() as connection:
            rows = await (
                await connection.execute(
                    "SELECT payload FROM alerts WHERE meter_id = %s ORDER BY created_at, alert_id",
                    (self.meter.meter_id,),
                )
            ).fetchall()
        return [row["payload"] for row in rows]


@pytest.fixture
async def scene(settings: Settings, pool: Pool) -> AsyncIterator[Scene]:
    meter = Meter(f"meter_{uuid4().hex[:12]}", "request", "api.request", "sum", "requests", ())
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, created_at)"
            " VALUES (%s, 'request', 'api.request', 'sum', 'requests', now())",
            (meter.meter_id,),
        )
    client, usage = await connect_clickhouse_async(settings), ClickHouseUsage(settings)
    yield Scene(client, pool, usage, meter)
    await client.close()
    await usage.close()
    # Other tests read all meters.
    async with pool.connection() as connection:
        await connection.execute("DELETE FROM anomaly_progress WHERE meter_id = %s", (meter.meter_id,))
        await connection.execute("DELETE FROM meters WHERE meter_id = %s", (meter.meter_id,))


def wave(hours: int, level: int = 1_000) -> list[int]:
    return [level + 7 * (hour % 5) for hour in range(hours)]


async def test_the_past_is_no_news_and_each_closed_hour_is_judged_once(scene: Scene) -> None:
    await scene.use(0, [*wave(200), 9_000, *wave(20)])
    # The first look only notes where it stands: the jump before it is not told.
    assert await scene.watch(222) == 0
    await scene.use(221, [12_000])
    # The hour has ended, its hour of grace has not.
    assert await scene.watch(222.9) == 0
    assert await scene.watch(223) == 1
    assert await scene.watch(223.5) == 0
    [alert] = await scene.alerts()
    assert (alert["kind"], alert["quantity"], alert["tenant_id"]) == ("jump", "12000", scene.tenant)
    assert (alert["window_start"], alert["window_end"]) == ("2026-09-10T05:00:00Z", "2026-09-10T06:00:00Z")
    assert 1_000 <= Decimal(alert["usual"]) <= 1_030


async def test_a_stretch_is_told_once_and_again_after_it_was_calm(scene: Scene) -> None:
    await scene.use(0, [*wave(200), 9_000, 9_500, 9_000, *wave(10), 30_000, *wave(5)])
    await scene.watch(201)
    assert [await scene.watch(hour) for hour in range(202, 221)].count(1) == 2
    assert [alert["quantity"] for alert in await scene.alerts()] == ["9000", "30000"]


async def test_silence_is_told_with_its_beginning(scene: Scene) -> None:
    await scene.use(0, wave(200))
    await scene.watch(201)
    told = [await scene.watch(hour) for hour in range(202, 230)]
    assert sum(told) == 1
    assert told.index(1) == 2
    [alert] = await scene.alerts()
    assert alert["kind"] == "silence"
    assert (alert["window_start"], alert["window_end"]) == ("2026-09-09T08:00:00Z", "2026-09-09T11:00:00Z")
    await scene.use(229, wave(200))
    assert await scene.watch(231) == 0
    assert await scene.watch(430) == 0
    told = [await scene.watch(hour) for hour in range(431, 440)]
    assert sum(told) == 1


async def test_what_arrives_late_is_not_judged_again(scene: Scene) -> None:
    await scene.use(0, wave(200))
    await scene.watch(200)
    assert await scene.watch(201) == 0
    await scene.use(199, [50_000], segment=1)
    assert await scene.watch(201) == 0
    await scene.use(200, wave(1))
    assert await scene.watch(202) == 0
    assert await scene.alerts() == []


async def test_workers_at_once_and_a_long_outage_tell_once(scene: Scene) -> None:
    await scene.use(0, wave(200))
    await scene.use(0, [*wave(190), *wave(10, 40_000)], tenant=scene.tenant + "-b")
    await scene.watch(150)
    # The jump is 11 hours ago when somebody looks again.
    assert sum(await asyncio.gather(*(scene.watch(201) for _ in range(4)))) == 1
    [alert] = await scene.alerts()
    assert alert["tenant_id"] == scene.tenant + "-b"
    assert alert["window_start"] == "2026-09-08T22:00:00Z"


async def test_a_disabled_rule_silences_and_its_hours_are_gone(scene: Scene) -> None:
    await scene.use(0, [*wave(200), 9_000])
    await scene.watch(201)
    scene.rules = AlertRules.of([AlertRule("off", "anomaly", tenant_id=scene.tenant, enabled=False)], ())
    assert await scene.watch(202) == 0
    scene.rules = AlertRules.of((), ())
    assert await scene.watch(202) == 0


async def test_the_slowest_partition_decides_what_is_closed(scene: Scene) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    columns = (
        "at", "stage", "source_partition", "next_offset", "end_offset", "events", "duplicates", "rejected",
        "freshness_ms", "watermark",
    )  # fmt: skip
    rows = [[now, "warehouse", part, 1, 1, 0, 0, 0, 0, now - HOUR * (part - 200)] for part in (201, 202)]
    # A later report of the slow one that is further counts, an earlier one does not.
    rows.append([now - HOUR, "warehouse", 202, 1, 1, 0, 0, 0, 0, now - HOUR * 30])
    rows.append([now, "quota", 203, 1, 1, 0, 0, 0, 0, now - HOUR * 90])
    await scene.client.insert("pipeline_progress", rows, column_names=columns, settings=INSERT_SETTINGS)
    watermark = await scene.usage.watermark()
    assert watermark is not None
    assert watermark <= now - HOUR * 2
    gone = "ALTER TABLE pipeline_progress DELETE WHERE source_partition > 200 SETTINGS mutations_sync = 2"
    await scene.client.command(gone)


async def test_the_worker_judges_every_meter_and_stops(
    scene: Scene, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def watermark(_: Any) -> datetime:
        return BEGIN + HOUR * hour

    monkeypatch.setattr(ClickHouseUsage, "watermark", watermark)
    monkeypatch.setattr(anomaly_worker, "_POLL_SECONDS", 0.05)
    await scene.use(0, [*wave(200), 20_000])
    hour, stop = 201, asyncio.Event()
    worker = asyncio.create_task(anomaly_worker.run(settings, stop))
    try:
        async with asyncio.timeout(30):
            while not await _progress(scene):
                assert not worker.done()
                await asyncio.sleep(0.05)
            hour = 202
            while not await scene.alerts():
                assert not worker.done()
                await asyncio.sleep(0.05)
    finally:
        stop.set()
        await worker
    [alert] = await scene.alerts()
    assert alert["quantity"] == "20000"


async def _progress(scene: Scene) -> bool:
    async with scene.pool.connection() as connection:
        row = await (
            await connection.execute("SELECT 1 FROM anomaly_progress WHERE meter_id = %s", (scene.meter.meter_id,))
        ).fetchone()
    return row is not None
