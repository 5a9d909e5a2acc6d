"""What the warehouse agent does with one journal partition: what it says, and the raw events behind it, to ClickHouse.

While nothing comes, event time goes on: once every raw record is stored, the reported watermark follows the clock, as
far behind it as an event may lie ahead of it. Otherwise one quiet partition would hold the time of all back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import structlog
from prometheus_client import Counter, Gauge

from core.clock import Clock
from core.event_time import to_datetime, to_microseconds
from core.journal import JournalEntry, decode_entry, must_follow
from runtime.patience import until_done
from streams.adapters.lanes import end_process_if_failed
from streams.domain.warehouse_rows import Rows, event_rows, journal_rows, source_range

T = TypeVar("T")
log = structlog.get_logger()
STORED = Counter("meterbook_warehouse_rows_total", "Rows written to ClickHouse", ["table"])
WAREHOUSE_FRESHNESS = Gauge(
    "meterbook_warehouse_freshness_seconds", "Age of the newest event visible in ClickHouse", ["partition"]
)
LAG = Gauge("meterbook_lag_records", "Records of usage.events not yet in the warehouse", ["partition"])
_EVENTS_PER_INSERT = 50_000
IDLE_SECONDS = 10.0


class Warehouse(Protocol):
    """Port: where rows go; each call returns when they are safe."""

    async def insert(self, table: str, rows: Rows) -> None:
        """Insert rows of a table, in the order of `streams.domain.warehouse_rows.COLUMNS`."""
        ...

    async def progress_of(self, partition: int) -> tuple[int, int]:
        """Return the source offset after the last stored one and the watermark (microseconds); (0, 0) if none is."""
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

    async def is_read_up(self, next_offset: int) -> bool:
        """Tell whether there is no record from `next_offset` on."""
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
        max_ahead_us: int,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._partition, self._warehouse, self._source = partition, warehouse, source
        self._commit, self._clock, self._transient = commit, clock, transient
        self._max_ahead_us, self._idle_seconds = max_ahead_us, idle_seconds
        self._next_offset, self._watermark_us = 0, 0
        # Up to where the journal was read without a hole; entries that come again do not set it back.
        self._read_up_to = 0
        self._turn = asyncio.Lock()
        self._has_worked = False
        self._idle: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect to the raw topic, learn how far the warehouse is, and begin to let time pass while nothing comes."""
        await self._source.start()
        self._next_offset, self._watermark_us = await self._until_stored(
            lambda: self._warehouse.progress_of(self._partition)
        )
        self._read_up_to = self._next_offset
        self._idle = asyncio.create_task(self._let_time_pass(), name=f"idle-{self._partition}")
        self._idle.add_done_callback(end_process_if_failed)

    async def handle(self, records: list[Any]) -> None:
        """Write what the journal records say, in inserts of bounded size, then commit the journal offset."""
        async with self._turn:
            pending: list[tuple[int, JournalEntry]] = []
            events = 0
            for record in records:
                entry = decode_entry(record.value)
                self._read_up_to = must_follow(entry, self._read_up_to)
                pending.append((record.offset, entry))
                events += entry.accepted + entry.duplicates
                if events >= _EVENTS_PER_INSERT:
                    await self._store(pending)
                    pending, events = [], 0
            await self._store(pending)
            self._has_worked = True

    async def close(self) -> None:
        """Disconnect."""
        if self._idle is not None:
            self._idle.cancel()
        await self._source.stop()

    async def report_idle(self) -> bool:
        """Report the watermark that the clock allows, if every raw record is stored; tells whether it was reported."""
        async with self._turn:
            if not await self._source.is_read_up(self._next_offset):
                return False
            watermark_us = to_microseconds(self._clock.now()) - self._max_ahead_us
            if watermark_us <= self._watermark_us:
                return False
            await self._report(watermark_us, end=self._next_offset, counts=(0, 0, 0), freshness_ms=0)
            return True

    async def _let_time_pass(self) -> None:
        while True:
            await asyncio.sleep(self._idle_seconds)
            if self._has_worked:
                self._has_worked = False
                continue
            try:
                await self.report_idle()
            except self._transient as error:
                log.warning("warehouse.idle_not_reported", partition=self._partition, error=repr(error)[:200])

    async def _store(self, pending: list[tuple[int, JournalEntry]]) -> None:
        if not pending:
            return
        rows: dict[str, Rows] = {"usage_events": []}
        for version, entry in pending:
            for table, found in journal_rows(self._partition, version, entry).items():
                rows.setdefault(table, []).extend(found)
            covered = source_range(self._partition, entry)
            async for record in self._source.read(covered.first, covered.last):
                rows["usage_events"] += event_rows(covered, record)
        for table, found in rows.items():
            await self._insert(table, found)
        await self._until_stored(lambda: self._report_stored(pending))
        await self._commit(pending[-1][0] + 1)

    async def _insert(self, table: str, rows: Rows) -> None:
        if rows:
            await self._until_stored(lambda: self._warehouse.insert(table, rows))
            STORED.labels(table).inc(len(rows))

    async def _report_stored(self, pending: list[tuple[int, JournalEntry]]) -> None:
        last = pending[-1][1]
        entries = [entry for _, entry in pending]
        self._next_offset = last.last + 1
        # Entries that are read again, or that came after the clock had moved it, do not set the watermark back.
        watermark_us = max(self._watermark_us, last.watermark_us)
        freshness_ms = max(0, int(self._clock.now().timestamp() * 1_000) - last.received_ms)
        counts = (
            sum(entry.accepted for entry in entries),
            sum(entry.duplicates for entry in entries),
            sum(entry.rejected for entry in entries),
        )
        await self._report(watermark_us, end=await self._source.end_offset(), counts=counts, freshness_ms=freshness_ms)

    async def _report(self, watermark_us: int, *, end: int, counts: tuple[int, int, int], freshness_ms: int) -> None:
        LAG.labels(self._partition).set(max(0, end - self._next_offset))
        WAREHOUSE_FRESHNESS.labels(self._partition).set(freshness_ms / 1_000)
        row = [
            self._clock.now(), "warehouse", self._partition, self._next_offset, end, *counts, freshness_ms,
            to_datetime(watermark_us),
        ]  # fmt: skip
        await self._warehouse.insert("pipeline_progress", [row])
        self._watermark_us = watermark_us

    async def _until_stored(self, call: Callable[[], Awaitable[T]]) -> T:
        return await until_done("clickhouse", call, transient=self._transient)
