"""What the meter worker does with one source partition: take it over, count micro-batches, commit each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from prometheus_client import Counter, Gauge, Histogram

from core.journal import decode_entry
from core.meters import Registry
from core.topics import USAGE_JOURNAL
from core.usage_event import IngestLimits
from runtime.registry import LoadedRegistry, RegistryCache
from streams.adapters.lanes import end_process_if_failed
from streams.domain.meter_partition import MeterPartition, MicroBatch
from streams.domain.source_record import ascending
from streams.domain.tally import Originals, Tally, Target

log = structlog.get_logger()
EVENTS = Counter("meterbook_events_total", "Usage events by outcome", ["outcome"])
REJECTED = Counter("meterbook_events_rejected_total", "Refused usage events by code", ["code"])
COMMIT_SECONDS = Histogram(
    "meterbook_commit_seconds",
    "Time of a micro-batch's transaction",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
FRESHNESS = Gauge("meterbook_meter_freshness_seconds", "Age of the newest counted event's append time", ["partition"])
LATE = Counter("meterbook_late_windows_total", "Closed windows that were changed all the same", ["meter"])
WATERMARK = Gauge("meterbook_watermark_seconds", "Greatest event time counted, seconds since 1970 UTC", ["partition"])
IDENTITIES = Gauge("meterbook_dedupe_identities", "Identities remembered", ["partition"])


# A transaction beyond this is cut in two: an entry must fit its topic whatever its events carry.
WEIGHT_MAX = USAGE_JOURNAL.max_bytes // 2

# Records of fewer bytes than this together (some two thousand single events) wait for company.
GATHER_BELOW_BYTES = 500_000
_SAMPLES_COMMITTED_EVERY = 200
# A checkpoint that takes longer is left behind half done: the last whole one stays.
_CHECKPOINT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Committed:
    """Where a journal entry stands, and its bytes."""

    offset: int
    raw: bytes


class Journal(Protocol):
    """Port: the journal of one source partition."""

    async def take_over(self) -> None:
        """Fence the previous owner."""
        ...

    def entries(self, first: int) -> AsyncIterator[tuple[int, bytes]]:
        """Yield committed entries' bytes with their journal offsets, from the offset `first` on."""
        ...

    async def entry_at(self, offset: int) -> bytes | None:
        """Return the entry's bytes at a journal offset, None if there is none (any more)."""
        ...

    async def commit(self, batch: MicroBatch) -> Committed:
        """Commit a micro-batch, all or nothing."""
        ...

    async def close(self) -> None:
        """Give the journal up."""
        ...


class OriginalsFinder(Protocol):
    """Port: what corrections name, fetched from where it is kept."""

    async def find(self, targets: Mapping[bytes, Target], registry: Registry) -> Originals:
        """Return an answer for every target."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


class MeterLane:
    """Counts the records of one source partition exactly once."""

    def __init__(
        self,
        state: MeterPartition,
        journal: Journal,
        originals: OriginalsFinder,
        registry: RegistryCache,
        limits: IngestLimits,
        *,
        pause_s: float,
        events_max: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state, self._journal, self._originals = state, journal, originals
        self._registry, self._limits = registry, limits
        self._pause_s, self._events_max, self._monotonic = pause_s, events_max, monotonic
        self._last_commit = 0.0
        self._checkpoint: asyncio.Task[None] | None = None
        # The newest commit that no checkpoint was begun for.
        self._unsaved: Committed | None = None

    async def open(self) -> None:
        """Fence the previous owner, then go on from the local checkpoint and what the journal has beyond it."""
        began = self._monotonic()
        await self._journal.take_over()
        registry = (await self._registry.get()).registry
        state, book = self._state, self._state.samples
        loaded = await state.identities.load(self._journal.entry_at)
        first = 0
        if loaded is not None:
            state.thaw(loaded.state)
            first = loaded.journal_offset + 1
        elif book.journal_offset >= 0 and await self._journal.entry_at(book.journal_offset) is None:
            # No checkpoint of this journal, and it does not reach to where the book says it was: another journal's.
            book.reset()
        entries, version = 0, -1
        async for version, raw in self._journal.entries(min(first, book.journal_offset + 1)):
            entry = decode_entry(raw)
            if version >= first:
                state.restore(version, entry, registry)
                # A lost disk is filled again while it is read, or memory would have to hold all of it.
                if state.identities.checkpoint_due():
                    await self._save(Committed(version, raw))
            else:
                state.restore_samples(version, entry, registry)
            entries += 1
            if entries % _SAMPLES_COMMITTED_EVERY == 0:
                book.commit(version)
        if version > book.journal_offset:
            book.commit(version)
        log.info(
            "partition.taken_over",
            partition=state.partition,
            last=state.last,
            from_checkpoint=first - 1,
            entries=entries,
            identities=len(state),
            seconds=round(self._monotonic() - began, 3),
        )

    async def handle(self, records: list[Any]) -> None:
        """Count and commit records, at most `events_max` records to a transaction."""
        # Small batches are gathered for a moment: a transaction costs five round trips whatever its size. A large one
        # means a backlog, and waiting would only make it longer.
        wait = self._last_commit + self._pause_s - self._monotonic()
        if wait > 0 and sum(len(record.value or b"") for record in records) < GATHER_BELOW_BYTES:
            await asyncio.sleep(wait)
        fresh = list(ascending(records))
        for start in range(0, len(fresh), self._events_max):
            await self._count(fresh[start : start + self._events_max])

    async def close(self) -> None:
        """Stop the producer; nothing is open between micro-batches. What was counted is saved for the next owner."""
        if self._checkpoint is not None:
            await asyncio.wait({self._checkpoint}, timeout=_CHECKPOINT_SECONDS)
        if self._unsaved is not None and (self._checkpoint is None or self._checkpoint.done()):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._save(self._unsaved), _CHECKPOINT_SECONDS)
        await self._originals.close()
        await self._journal.close()
        self._state.samples.close()
        await self._state.identities.close()

    async def _count(self, records: list[Any]) -> None:
        tally = await self._judge(records)
        if tally is None:
            return
        if tally.weight > WEIGHT_MAX and len(tally.records) > 1:
            middle = len(tally.records) // 2
            await self._count(tally.records[:middle])
            await self._count(tally.records[middle:])
        else:
            batch = self._state.accept(tally)
            began = self._monotonic()
            committed = await self._journal.commit(batch)
            if batch.entry.samples:
                self._state.samples.commit(committed.offset)
            self._last_commit = self._monotonic()
            self._observe(batch, self._last_commit - began)
            self._checkpoint_if_due(committed)
        if tally.records[-1].offset < records[-1].offset:
            await self._count(records)

    async def _judge(self, records: list[Any]) -> Tally | None:
        readings = self._registry.readings
        loaded = await self._registry.get()
        tally = await self._judge_by(records, loaded)
        if tally is not None and tally.unknown and loaded.reading <= readings:
            # The tenant or meter may be younger than our registry; refuse only by one read after the event came. That
            # is counted, not timed: this machine's clock may be ahead of the broker's.
            loaded = await self._registry.newer_than(readings)
            tally = await self._judge_by(records, loaded)
        return tally

    async def _judge_by(self, records: list[Any], loaded: LoadedRegistry) -> Tally | None:
        originals: Originals = {}
        while True:
            tally = self._state.judge(records, loaded.registry, self._limits, originals)
            if tally is None or not tally.wanted:
                return tally
            # Each round answers all that was wanted, so a round wants only what an earlier one had not come to.
            originals = {**originals, **await self._originals.find(tally.wanted, loaded.registry)}

    def _checkpoint_if_due(self, committed: Committed) -> None:
        self._unsaved = committed
        identities = self._state.identities
        if (self._checkpoint is not None and not self._checkpoint.done()) or not identities.checkpoint_due():
            return
        self._unsaved = None
        self._checkpoint = asyncio.create_task(self._save(committed), name=f"checkpoint-{self._state.partition}")
        self._checkpoint.add_done_callback(end_process_if_failed)

    def _save(self, committed: Committed) -> Coroutine[Any, Any, None]:
        """Begin a checkpoint of the state as it is at this call, up to a journal entry; awaiting finishes it."""
        self._state.samples.commit(committed.offset)
        return self._state.identities.checkpoint(committed.offset, committed.raw, self._state.freeze())

    def _observe(self, batch: MicroBatch, seconds: float) -> None:
        entry = batch.entry
        COMMIT_SECONDS.observe(seconds)
        EVENTS.labels("accepted").inc(entry.accepted)
        EVENTS.labels("duplicate").inc(entry.duplicates)
        EVENTS.labels("misplaced").inc(len(batch.misplaced))
        EVENTS.labels("rejected").inc(entry.rejected)
        for letter, _ in batch.dead_letters:
            REJECTED.labels(letter.code).inc()
        for row in entry.late:
            LATE.labels(row.meter).inc()
        FRESHNESS.labels(self._state.partition).set(max(0.0, time.time() - entry.received_ms / 1_000))
        WATERMARK.labels(self._state.partition).set(entry.watermark_us / 1_000_000)
        IDENTITIES.labels(self._state.partition).set(len(self._state))
