"""The warehouse on the real ClickHouse: writing again changes nothing, the first twin wins; and its lane in memory."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from core.clock import ManualClock
from core.journal import FORMAT, JournalEntry, SampleRow, WindowRow, encode_entry
from runtime.settings import Settings, load_settings
from streams import warehouse_lane
from streams.adapters.clickhouse_warehouse import CLICKHOUSE_DOWN, ClickHouseWarehouse
from streams.domain.warehouse_rows import COLUMNS
from streams.warehouse_lane import WarehouseLane
from tests.streams.observed import clickhouse

START = datetime(2026, 10, 31, 7, 30, tzinfo=UTC)
_numbers = itertools.count()


@pytest.fixture
async def warehouse(settings: Settings) -> AsyncIterator[ClickHouseWarehouse]:
    warehouse = ClickHouseWarehouse(settings)
    yield warehouse
    await warehouse.close()


@pytest.fixture
def tenant() -> str:
    return f"warehouse-{next(_numbers)}"


def rollup(tenant: str, **changes: Any) -> list[Any]:
    row = {
        "tenant": tenant,
        "meter": "tokens",
        "dimensions": {"model": "größer", "region": ""},
        "window_start": START,
        "source_partition": 1,
        "segment": 10,
        "quantity": Decimal("1.000000000001"),
        "events": 1,
        "version": 5,
        **changes,
    }
    return [row[name] for name in COLUMNS["usage_rollups"]]


def event(tenant: str, number: int, **changes: Any) -> list[Any]:
    row = {
        "tenant": tenant,
        "source": "gateway/1",
        "id": f"e{number}",
        "type": "llm",
        "customer": "",
        "time": START + timedelta(microseconds=999_999),
        "data": '{"tokens": 0.10}',
        "received_at": START,
        "source_partition": 1,
        "source_offset": number,
        "source_index": 0,
        "version": 2**62 - number,
        **changes,
    }
    return [row[name] for name in COLUMNS["usage_events"]]


def ask(settings: Settings, query: str, tenant: str) -> list[Any]:
    client = clickhouse(settings.clickhouse)
    try:
        return list(client.query(query, parameters={"tenant": tenant}).result_rows)
    finally:
        client.close()


ROLLUPS = "SELECT sum(quantity), sum(events) FROM usage_rollups FINAL WHERE tenant = %(tenant)s"


@pytest.mark.integration
async def test_writing_rollups_again_changes_nothing(
    settings: Settings, warehouse: ClickHouseWarehouse, tenant: str
) -> None:
    rows = [rollup(tenant, segment=segment, version=segment) for segment in range(3)]
    for _ in range(3):
        await warehouse.insert("usage_rollups", rows)
    assert ask(settings, ROLLUPS, tenant) == [(Decimal("3.000000000003"), 3)]


@pytest.mark.integration
async def test_the_newest_version_of_a_window_wins_whatever_comes_last(
    settings: Settings, warehouse: ClickHouseWarehouse, tenant: str
) -> None:
    newest = rollup(tenant, quantity=Decimal("99999999999999999999999999.999999999999"), events=7, version=9)
    await warehouse.insert("usage_rollups", [newest])
    await warehouse.insert("usage_rollups", [rollup(tenant)])
    await warehouse.insert("usage_rollups", [rollup(tenant, source_partition=2, quantity=Decimal(0), version=1)])
    assert ask(settings, ROLLUPS, tenant) == [(Decimal("99999999999999999999999999.999999999999"), 8)]


@pytest.mark.integration
async def test_of_twins_the_first_record_wins_whatever_is_written_last(
    settings: Settings, warehouse: ClickHouseWarehouse, tenant: str
) -> None:
    first = event(tenant, 1, data='{"tokens": 1}')
    twin = event(tenant, 1, data='{"tokens": 2}', time=START + timedelta(days=40), version=2**62 - 1_000)
    await warehouse.insert("usage_events", [twin])
    await warehouse.insert("usage_events", [first, event(tenant, 2)])
    await warehouse.insert("usage_events", [twin])
    found = ask(settings, "SELECT id, data, time FROM usage_events FINAL WHERE tenant = %(tenant)s ORDER BY id", tenant)
    assert [(row[0], row[1]) for row in found] == [("e1", '{"tokens": 1}'), ("e2", '{"tokens": 0.10}')]
    assert found[0][2].replace(tzinfo=UTC) == START + timedelta(microseconds=999_999)


@pytest.mark.integration
async def test_progress_is_kept_with_its_instant_and_found_again(
    settings: Settings, warehouse: ClickHouseWarehouse
) -> None:
    at = datetime.now(UTC).replace(microsecond=123_000)
    partition = 60_000 + next(_numbers)
    assert await warehouse.progress_of(partition) == (0, 0)
    watermark = datetime(2026, 10, 31, 7, 30, 0, 999_999, tzinfo=UTC)
    for number in range(2):
        row = [at + timedelta(number), "warehouse", partition, 11 + number, 12, 3, 1, 0, 250, watermark]
        await warehouse.insert("pipeline_progress", [row])
    query = (
        "SELECT toUnixTimestamp64Milli(at), next_offset, end_offset, events, duplicates, rejected, freshness_ms,"
        f" toUnixTimestamp64Micro(watermark) FROM pipeline_progress WHERE source_partition = {partition} ORDER BY at"
    )
    watermark_us = 1_793_431_800_999_999
    assert ask(settings, query, "")[0] == (int(at.timestamp() * 1_000), 11, 12, 3, 1, 0, 250, watermark_us)
    assert await warehouse.progress_of(partition) == (12, watermark_us)


@pytest.mark.integration
async def test_every_table_takes_its_rows(settings: Settings, warehouse: ClickHouseWarehouse, tenant: str) -> None:
    dims, day = {"model": "größer"}, START
    rows: dict[str, list[Any]] = {
        "usage_samples": [tenant, "m", dims, day, 1, 5, 0, Decimal("1.000000000001"), "", 0, 3],
        "usage_corrections": [tenant, "s", "e1", "void", "s", "v1", "why", day, day, day, 1, 5, 0, 3],
        "usage_late": [tenant, "m", dims, day, 1, Decimal(-1), -1, day, 3],
        "meter_activations": [tenant, 1, 17, 3],
    }
    for table, row in rows.items():
        await warehouse.insert(table, [row])
        await warehouse.insert(table, [row])
        name = "meter" if table == "meter_activations" else "tenant"
        query = f"SELECT * FROM {table} FINAL WHERE {name} = %(tenant)s"
        [found] = ask(settings, query, tenant)
        assert [value.replace(tzinfo=UTC) if isinstance(value, datetime) else value for value in found] == row


@pytest.mark.integration
async def test_a_sample_that_was_taken_out_stays_out(
    settings: Settings, warehouse: ClickHouseWarehouse, tenant: str
) -> None:
    put = [tenant, "m", {}, START, 1, 5, 0, Decimal(1), "", 0, 3]
    taken = [*put[:9], 1, 4]
    for row in (put, taken, put):
        await warehouse.insert("usage_samples", [row])
    assert ask(settings, "SELECT removed FROM usage_samples FINAL WHERE tenant = %(tenant)s", tenant) == [(1,)]


@pytest.mark.integration
async def test_an_empty_insert_asks_nobody(settings: Settings, warehouse: ClickHouseWarehouse) -> None:
    away = ClickHouseWarehouse(load_settings(home=settings.home, clickhouse_url="http://127.0.0.1:1/meterbook"))
    await away.insert("usage_events", [])
    with pytest.raises(CLICKHOUSE_DOWN):
        await away.insert("usage_rollups", [rollup("anyone")])


@pytest.mark.integration
async def test_a_store_that_is_away_is_an_outage_and_not_a_fault(settings: Settings, tenant: str) -> None:
    away = ClickHouseWarehouse(load_settings(home=settings.home, clickhouse_url="http://127.0.0.1:1/meterbook"))
    for _ in range(2):
        with pytest.raises(CLICKHOUSE_DOWN):
            await away.insert("usage_rollups", [rollup(tenant)])
    await away.close()


# The lane, with its stores in memory


class Record(NamedTuple):
    offset: int
    value: bytes


class Raw(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class MemoryWarehouse:
    def __init__(self, failures: int = 0, progress: tuple[int, int] = (0, 0)) -> None:
        self.calls: list[tuple[str, int]] = []
        self.rows: dict[str, list[Any]] = {table: [] for table in COLUMNS}
        self.failures, self.progress = failures, progress

    async def insert(self, table: str, rows: list[list[Any]]) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionResetError
        self.calls.append((table, len(rows)))
        self.rows[table] += rows

    async def progress_of(self, partition: int) -> tuple[int, int]:
        return self.progress


class MemorySource:
    def __init__(self, length: int) -> None:
        self._length = length
        self.open = False

    async def start(self) -> None:
        self.open = True

    async def stop(self) -> None:
        self.open = False

    async def read(self, first: int, last: int) -> AsyncIterator[Raw]:
        raw = '{"id":"%d","source":"s","type":"t","subject":"acme","time":"2026-10-31T07:30:00Z","data":{}}'
        for offset in range(first, last + 1):
            yield Raw(offset, 1_000, None, (raw % offset).encode())

    async def end_offset(self) -> int:
        return self._length

    async def is_read_up(self, next_offset: int) -> bool:
        return next_offset >= self._length


def journal(*ranges: tuple[int, int]) -> list[Record]:
    return [
        Record(
            number,
            encode_entry(
                JournalEntry(
                    FORMAT, first - 1, first, last, "w", 1_000, 2_000, last - first + 1, 0, 0, b"", b"", b"",
                    [WindowRow("acme", "tokens", (), 60, first, "1", 1)], [],
                    [SampleRow("acme", "seats", (), 60_000_000, "1", first, -1)], [], [], [],
                    {"tokens": (), "seats": ()}, {"tokens": "sum", "seats": "latest"}, {}, first * 1_000_000,
                )
            ),
        )
        for number, (first, last) in enumerate(ranges)
    ]  # fmt: skip


def lane(
    warehouse: MemoryWarehouse, source: MemorySource, committed: list[int], clock: ManualClock | None = None
) -> WarehouseLane:
    async def commit(offset: int) -> None:
        committed.append(offset)

    clock = clock or ManualClock(datetime.fromtimestamp(5, UTC))
    return WarehouseLane(
        0, warehouse, source, commit=commit, clock=clock, transient=(OSError,), max_ahead_us=300_000_000
    )


async def test_the_offset_is_committed_after_events_and_rollups_are_safe() -> None:
    warehouse, source, committed = MemoryWarehouse(), MemorySource(12), []
    worker = lane(warehouse, source, committed)
    await worker.open()
    assert source.open
    await worker.handle(journal((0, 3), (4, 9)))
    assert warehouse.calls == [
        ("usage_events", 10), ("usage_rollups", 2), ("usage_samples", 2), ("pipeline_progress", 1)
    ]  # fmt: skip
    offset = COLUMNS["usage_events"].index("source_offset")
    assert [row[offset] for row in warehouse.rows["usage_events"]] == list(range(10))
    now, watermark = datetime.fromtimestamp(5, UTC), datetime.fromtimestamp(4, UTC)
    assert warehouse.rows["pipeline_progress"] == [[now, "warehouse", 0, 10, 12, 10, 0, 0, 3_000, watermark]]
    assert committed == [2]
    await worker.close()
    assert not source.open


async def test_an_outage_is_waited_out_and_nothing_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def instantly(seconds: float) -> None:
        return

    monkeypatch.setattr("runtime.patience.asyncio.sleep", instantly)
    warehouse, committed = MemoryWarehouse(failures=6), []
    await lane(warehouse, MemorySource(4), committed).handle(journal((0, 3)))
    assert [call for call, _ in warehouse.calls] == [
        "usage_events", "usage_rollups", "usage_samples", "pipeline_progress"
    ]  # fmt: skip
    assert committed == [1]


async def test_inserts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warehouse_lane, "_EVENTS_PER_INSERT", 5)
    warehouse, committed = MemoryWarehouse(), []
    await lane(warehouse, MemorySource(20), committed).handle(journal((0, 2), (3, 6), (7, 8), (9, 19)))
    assert [rows for call, rows in warehouse.calls if call == "usage_events"] == [7, 13]
    assert committed == [2, 4]


def progress(warehouse: MemoryWarehouse) -> list[tuple[int, datetime]]:
    return [(row[3], row[9]) for row in warehouse.rows["pipeline_progress"]]


async def test_time_goes_on_while_nothing_comes_once_everything_is_stored() -> None:
    warehouse, source = MemoryWarehouse(), MemorySource(10)
    clock = ManualClock(datetime.fromtimestamp(400, UTC))
    worker = lane(warehouse, source, [], clock)
    await worker.open()
    assert not await worker.report_idle(), "ten records wait"
    await worker.handle(journal((0, 9)))
    assert await worker.report_idle()
    clock.advance(timedelta(seconds=50))
    assert await worker.report_idle()
    # 0 s from the entry, then the clock less the 300 s that an event may lie ahead of it
    assert progress(warehouse) == [(10, datetime.fromtimestamp(second, UTC)) for second in (0, 100, 150)]
    await worker.close()


async def test_the_clock_never_sets_a_watermark_back() -> None:
    warehouse, clock = MemoryWarehouse(progress=(10, 200_000_000)), ManualClock(datetime.fromtimestamp(500, UTC))
    worker = lane(warehouse, MemorySource(10), [], clock)
    await worker.open()
    assert not await worker.report_idle(), "200 s was reported before the restart"
    clock.advance(timedelta(seconds=1))
    assert await worker.report_idle()
    assert progress(warehouse) == [(10, datetime.fromtimestamp(201, UTC))]
    await worker.handle(journal((9, 9)))
    assert progress(warehouse)[-1] == (10, datetime.fromtimestamp(201, UTC)), "an entry read again does neither"
    await worker.close()


async def test_an_outage_while_nothing_comes_is_no_fault() -> None:
    warehouse = MemoryWarehouse()
    worker = lane(warehouse, MemorySource(0), [], ManualClock(datetime.fromtimestamp(400, UTC)))
    worker._idle_seconds = 0.001
    await worker.open()
    warehouse.failures = 3
    for _ in range(2_000):
        if warehouse.calls:
            break
        await asyncio.sleep(0.005)
    assert progress(warehouse) == [(0, datetime.fromtimestamp(100, UTC))]
    await worker.close()
