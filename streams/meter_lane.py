"""What the meter worker does with one source partition: take it over, count micro-batches, commit each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import structlog
from prometheus_client import Counter, Gauge, Histogram

from core.journal import JournalEntry
from core.topics import USAGE_JOURNAL
from core.usage_event import IngestLimits
from runtime.registry import RegistryCache
from streams.domain.meter_partition import MeterPartition, MicroBatch

log = structlog.get_logger()
EVENTS = Counter("meterbook_events_total", "Usage events by outcome", ["outcome"])
REJECTED = Counter("meterbook_events_rejected_total", "Refused usage events by code", ["code"])
COMMIT_SECONDS = Histogram(
    "meterbook_commit_seconds",
    "Time of a micro-batch's transaction",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
FRESHNESS = Gauge("meterbook_meter_freshness_seconds", "Age of the newest counted event's append time", ["partition"])
IDENTITIES = Gauge("meterbook_dedupe_identities", "Identities remembered", ["partition"])


# A transaction beyond this is cut in two: an entry must fit its topic whatever its events carry.
WEIGHT_MAX = USAGE_JOURNAL.max_bytes // 2

# Records of fewer bytes than this together (some two thousand single events) wait for company.
GATHER_BELOW_BYTES = 500_000


class Journal(Protocol):
    """Port: the journal of one source partition."""

    async def take_over(self) -> None:
        """Fence the previous owner."""
        ...

    def entries(self) -> AsyncIterator[tuple[int, JournalEntry]]:
        """Yield committed entries."""
        ...

    async def commit(self, batch: MicroBatch) -> None:
        """Commit a micro-batch, all or nothing."""
        ...

    async def close(self) -> None:
        """Give the journal up."""
        ...


class MeterLane:
    """Counts the records of one source partition exactly once."""

    def __init__(
        self,
        state: MeterPartition,
        journal: Journal,
        registry: RegistryCache,
        limits: IngestLimits,
        *,
        pause_s: float,
        events_max: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state, self._journal, self._registry, self._limits = state, journal, registry, limits
        self._pause_s, self._events_max, self._monotonic = pause_s, events_max, monotonic
        self._last_commit = 0.0

    async def open(self) -> None:
        """Fence the previous owner, then rebuild the state from the journal."""
        began = self._monotonic()
        await self._journal.take_over()
        entries = 0
        async for _, entry in self._journal.entries():
            self._state.restore(entry)
            entries += 1
        log.info(
            "partition.taken_over",
            partition=self._state.partition,
            last=self._state.last,
            entries=entries,
            identities=len(self._state),
            seconds=round(self._monotonic() - began, 3),
        )

    async def handle(self, records: list[Any]) -> None:
        """Count and commit records, at most `events_max` records to a transaction."""
        # Small batches are gathered for a moment: a transaction costs five round trips whatever its size. A large one
        # means a backlog, and waiting would only make it longer.
        wait = self._last_commit + self._pause_s - self._monotonic()
        if wait > 0 and sum(len(record.value or b"") for record in records) < GATHER_BELOW_BYTES:
            await asyncio.sleep(wait)
        for start in range(0, len(records), self._events_max):
            await self._count(records[start : start + self._events_max])

    async def close(self) -> None:
        """Stop the producer; nothing is open between micro-batches."""
        await self._journal.close()

    async def _count(self, records: list[Any]) -> None:
        loaded = await self._registry.get()
        tally = self._state.judge(records, loaded.registry, self._limits)
        if tally is None:
            return
        if tally.unknown and loaded.loaded_ms <= records[-1].timestamp:
            # The tenant or meter may be younger than our registry; refuse only by one read after the event came.
            loaded = await self._registry.newer_than(records[-1].timestamp + 1)
            tally = self._state.judge(records, loaded.registry, self._limits)
            assert tally is not None
        if tally.weight > WEIGHT_MAX and len(tally.records) > 1:
            middle = len(tally.records) // 2
            await self._count(tally.records[:middle])
            await self._count(tally.records[middle:])
            return
        batch = self._state.accept(tally)
        began = self._monotonic()
        await self._journal.commit(batch)
        self._last_commit = self._monotonic()
        self._observe(batch, self._last_commit - began)

    def _observe(self, batch: MicroBatch, seconds: float) -> None:
        entry = batch.entry
        COMMIT_SECONDS.observe(seconds)
        EVENTS.labels("accepted").inc(entry.accepted)
        EVENTS.labels("duplicate").inc(entry.duplicates)
        EVENTS.labels("misplaced").inc(len(batch.misplaced))
        EVENTS.labels("rejected").inc(entry.rejected)
        for letter, _ in batch.dead_letters:
            REJECTED.labels(letter.code).inc()
        FRESHNESS.labels(self._state.partition).set(max(0.0, time.time() - entry.received_ms / 1_000))
        IDENTITIES.labels(self._state.partition).set(len(self._state))
