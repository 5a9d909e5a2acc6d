"""The warehouse on the real ClickHouse: writing again changes nothing, the first twin wins; and its lane in memory."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from core.clock import ManualClock
from core.journal import FORMAT, JournalEntry, WindowRow, encode_entry
from runtime.settings import Settings, load_settings
from streams import warehouse_lane
from streams.adapters.clickhouse_warehouse import CLICKHOUSE_DOWN, ClickHouseWarehouse
from streams.domain.warehouse_rows import EVENT_COLUMNS, ROLLUP_COLUMNS
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
    return [row[name] for name in ROLLUP_COLUMNS]


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
    return [row[name] for name in EVENT_COLUMNS]


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
        await warehouse.insert_rollups(rows)
    assert ask(settings, ROLLUPS, tenant) == [(Decimal("3.000000000003"), 3)]


@pytest.mark.integration
async def test_the_newest_version_of_a_window_wins_whatever_comes_last(
    settings: Settings, warehouse: ClickHouseWarehouse, tenant: str
) -> None:
    newest = rollup(tenant, quantity=Decimal("99999999999999999999999999.999999999999"), events=7, version=9)
    await warehouse.insert_rollups([newest])
    await warehouse.insert_rollups([rollup(tenant)])
    await warehouse.insert_rollups([rollup(tenant, source_partition=2, quantity=Decimal(0), version=1)])
    assert ask(settings, ROLLUPS, tenant) == [(Decimal("99999999999999999999999999.999999999999"), 8)]


@pytest.mark.integration
async def test_of_twins_the_first_record_wins_whatever_is_written_last(
    settings: Settings, warehouse: ClickHouseWarehouse, tenant: str
) -> None:
    first = event(tenant, 1, data='{"tokens": 1}')
    twin = event(tenant, 1, data='{"tokens": 2}', time=START + timedelta(days=40), version=2**62 - 1_000)
    await warehouse.insert_events([twin])
    await warehouse.insert_events([first, event(tenant, 2)])
    await warehouse.insert_events([twin])
    found = ask(settings, "SELECT id, data, time FROM usage_events FINAL WHERE tenant = %(tenant)s ORDER BY id", tenant)
    assert [(row[0], row[1]) for row in found] == [("e1", '{"tokens": 1}'), ("e2", '{"tokens": 0.10}')]
    assert found[0][2].replace(tzinfo=UTC) == START + timedelta(microseconds=999_999)


@pytest.mark.integration
async def test_progress_is_kept_with_its_instant(settings: Settings, warehouse: ClickHouseWarehouse) -> None:
    at_ms = int(datetime.now(UTC).timestamp() * 1_000)
    partition = 60_000 + next(_numbers)
    await warehouse.insert_progress([[at_ms, "warehouse", partition, 11, 12, 3, 1, 0, 250]])
    query = (
        "SELECT toUnixTimestamp64Milli(at), next_offset, end_offset, events, duplicates, rejected, freshness_ms"
        f" FROM pipeline_progress WHERE source_partition = {partition}"
    )
    assert ask(settings, query, "") == [(at_ms, 11, 12, 3, 1, 0, 250)]


@pytest.mark.integration
async def test_an_empty_insert_is_none(settings: Settings, warehouse: ClickHouseWarehouse) -> None:
    await ClickHouseWarehouse(load_settings(home=settings.home, clickhouse_url="http://127.0.0.1:1")).insert_events([])


@pytest.mark.integration
async def test_a_store_that_is_away_is_an_outage_and_not_a_fault(settings: Settings, tenant: str) -> None:
    away = ClickHouseWarehouse(load_settings(home=settings.home, clickhouse_url="http://127.0.0.1:1/meterbook"))
    for _ in range(2):
        with pytest.raises(CLICKHOUSE_DOWN):
            await away.insert_rollups([rollup(tenant)])
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


class MemoryWarehouse:
    def __init__(self, failures: int = 0) -> None:
        self.calls: list[tuple[str, int]] = []
        self.rows: dict[str, list[Any]] = {"events": [], "rollups": [], "progress": []}
        self.failures = failures

    async def insert_rollups(self, rows: list[list[Any]]) -> None:
        await self._insert("rollups", rows)

    async def insert_events(self, rows: list[list[Any]]) -> None:
        await self._insert("events", rows)

    async def insert_progress(self, rows: list[list[Any]]) -> None:
        await self._insert("progress", rows)

    async def _insert(self, table: str, rows: list[list[Any]]) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionResetError
        self.calls.append((table, len(rows)))
        self.rows[table] += rows


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


def journal(*ranges: tuple[int, int]) -> list[Record]:
    return [
        Record(
            number,
            encode_entry(
                JournalEntry(
                    FORMAT, first - 1, first, last, "w", 1_000, 2_000, last - first + 1, 0, 0, b"",
                    [WindowRow("acme", "tokens", (), 60, first, "1", 1)], [], [], {"tokens": ()},
                )
            ),
        )
        for number, (first, last) in enumerate(ranges)
    ]  # fmt: skip


def lane(warehouse: MemoryWarehouse, source: MemorySource, committed: list[int]) -> WarehouseLane:
    async def commit(offset: int) -> None:
        committed.append(offset)

    clock = ManualClock(datetime.fromtimestamp(5, UTC))
    return WarehouseLane(0, warehouse, source, commit=commit, clock=clock, transient=(OSError,))


async def test_the_offset_is_committed_after_events_and_rollups_are_safe() -> None:
    warehouse, source, committed = MemoryWarehouse(), MemorySource(12), []
    worker = lane(warehouse, source, committed)
    await worker.open()
    assert source.open
    await worker.handle(journal((0, 3), (4, 9)))
    assert warehouse.calls == [("events", 10), ("rollups", 2), ("progress", 1)]
    assert [row[EVENT_COLUMNS.index("source_offset")] for row in warehouse.rows["events"]] == list(range(10))
    assert warehouse.rows["progress"] == [[5_000, "warehouse", 0, 10, 12, 10, 0, 0, 3_000]]
    assert committed == [2]
    await worker.close()
    assert not source.open


async def test_an_outage_is_waited_out_and_nothing_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def instantly(seconds: float) -> None:
        return

    monkeypatch.setattr("runtime.patience.asyncio.sleep", instantly)
    warehouse, committed = MemoryWarehouse(failures=6), []
    await lane(warehouse, MemorySource(4), committed).handle(journal((0, 3)))
    assert [call for call, _ in warehouse.calls] == ["events", "rollups", "progress"]
    assert committed == [1]


async def test_inserts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warehouse_lane, "_EVENTS_PER_INSERT", 5)
    warehouse, committed = MemoryWarehouse(), []
    await lane(warehouse, MemorySource(20), committed).handle(journal((0, 2), (3, 6), (7, 8), (9, 19)))
    assert [rows for call, rows in warehouse.calls if call == "events"] == [7, 13]
    assert committed == [2, 4]
