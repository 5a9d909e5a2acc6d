"""What the warehouse agent does with one journal partition: rollups and the raw events behind them to ClickHouse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from prometheus_client import Counter, Gauge

from core.clock import Clock
from core.journal import decode_entry
from runtime.patience import until_done
from streams.domain.warehouse_rows import event_rows, rollup_rows, source_range

STORED = Counter("meterbook_warehouse_rows_total", "Rows written to ClickHouse", ["table"])
WAREHOUSE_FRESHNESS = Gauge(
    "meterbook_warehouse_freshness_seconds", "Age of the newest event visible in ClickHouse", ["partition"]
)
LAG = Gauge("meterbook_lag_records", "Records of usage.events not yet in the warehouse", ["partition"])
_EVENTS_PER_INSERT = 50_000


class Warehouse(Protocol):
    """Port: where rows go; each call returns when they are safe."""

    async def insert_rollups(self, rows: list[list[Any]]) -> None:
        """Insert rollup rows."""
        ...

    async def insert_events(self, rows: list[list[Any]]) -> None:
        """Insert event rows."""
        ...

    async def insert_progress(self, rows: list[list[Any]]) -> None:
        """Insert progress rows."""
        ...


class Source(Protocol):
    """Port: the raw records."""

    async def start(self) -> None:
        """Connect."""
        ...

    async def stop(self) -> None:
        """Disconnect."""
        ...

    def read(self, first: int, last: int) -> AsyncIterator[Any]:
        """Yield records from `first` to `last`."""
        ...

    async def end_offset(self) -> int:
        """Return the partition's end."""
        ...


class WarehouseLane:
    """Brings one partition's journal, and the raw events it covers, into the warehouse."""

    def __init__(
        self,
        partition: int,
        warehouse: Warehouse,
        source: Source,
        *,
        commit: Callable[[int], Awaitable[None]],
        clock: Clock,
        transient: tuple[type[BaseException], ...],
    ) -> None:
        self._partition, self._warehouse, self._source = partition, warehouse, source
        self._commit, self._clock, self._transient = commit, clock, transient

    async def open(self) -> None:
        """Connect to the raw topic."""
        await self._source.start()

    async def handle(self, records: list[Any]) -> None:
        """Write what the journal records say, in inserts of bounded size, then commit the journal offset."""
        pending: list[Any] = []
        events = 0
        for record in records:
            entry = decode_entry(record.value)
            pending.append((record.offset, entry))
            events += entry.accepted + entry.duplicates
            if events >= _EVENTS_PER_INSERT:
                await self._store(pending)
                pending, events = [], 0
        await self._store(pending)

    async def close(self) -> None:
        """Disconnect."""
        await self._source.stop()

    async def _store(self, pending: list[Any]) -> None:
        if not pending:
            return
        rollups: list[list[Any]] = []
        events: list[list[Any]] = []
        for version, entry in pending:
            rollups += rollup_rows(self._partition, version, entry)
            covered = source_range(self._partition, entry)
            async for record in self._source.read(covered.first, covered.last):
                events += event_rows(covered, record)
        await self._until_stored(lambda: self._warehouse.insert_events(events))
        await self._until_stored(lambda: self._warehouse.insert_rollups(rollups))
        STORED.labels("usage_events").inc(len(events))
        STORED.labels("usage_rollups").inc(len(rollups))
        await self._until_stored(lambda: self._report(pending))
        await self._commit(pending[-1][0] + 1)

    async def _report(self, pending: list[Any]) -> None:
        last = pending[-1][1]
        now_ms = int(self._clock.now().timestamp() * 1_000)
        freshness_ms = max(0, now_ms - last.received_ms)
        end = await self._source.end_offset()
        LAG.labels(self._partition).set(max(0, end - last.last - 1))
        WAREHOUSE_FRESHNESS.labels(self._partition).set(freshness_ms / 1_000)
        accepted = sum(entry.accepted for _, entry in pending)
        duplicates = sum(entry.duplicates for _, entry in pending)
        rejected = sum(entry.rejected for _, entry in pending)
        row = [
            now_ms, "warehouse", self._partition, last.last + 1, end, accepted, duplicates, rejected, freshness_ms
        ]  # fmt: skip
        await self._warehouse.insert_progress([row])

    async def _until_stored(self, call: Callable[[], Awaitable[None]]) -> None:
        await until_done("clickhouse", call, transient=self._transient)
