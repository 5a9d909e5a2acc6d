"""The meter worker's state of one source partition, and what a micro-batch of records does to it.

The state is a function of the journal: `restore` replays entries, `judge` and `accept` make the next. An event's
identity is remembered by the day it was *received*, never by its own time, so a retry with another timestamp is still
a duplicate.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from core.dead_letter import DeadLetter
from core.errors import must_hold
from core.journal import FORMAT, JournalEntry, LateRow, PeriodRow, SampleRow, WindowRow
from core.meters import ADDITIVE, Registry
from core.usage_event import IngestLimits
from streams.domain.cells import DAY_MS, MINUTE_US, Cell, Cells, PeriodKey, WindowKey
from streams.domain.fold import fold
from streams.domain.live_periods import LivePeriods
from streams.domain.ordinary_events import OrdinaryEvents
from streams.domain.source_record import Records, SourceRecord
from streams.domain.tally import OFFSETS_AT_ONCE, Originals, Tally
from streams.ports import Claimed, Identities, SampleBook

_NO_ORIGINALS: Originals = {}
# Samples of closed periods are kept a little longer than anything can come in late without being called a backfill.
SAMPLES_KEPT_US = 62 * 86_400 * 1_000_000


@dataclass(slots=True)
class MicroBatch:
    """What came of some records: the journal entry, refused events, and events found on another tenant's partition."""

    entry: JournalEntry
    dead_letters: list[tuple[DeadLetter, bytes | None]] = field(default_factory=list)
    misplaced: list[tuple[int, bytes, bytes]] = field(default_factory=list)


class _Frozen(msgspec.Struct, array_like=True):
    format: int
    last: int
    watermark_us: int
    activations: dict[str, int]
    cells: bytes


class MeterPartition:
    """Dedupe identities, open windows, period totals and samples of one source partition.

    `partition_of` tells where a tenant's events belong; one found elsewhere is sent there in the same transaction,
    because duplicates are only seen where all events of a tenant meet.
    """

    def __init__(
        self,
        partition: int,
        *,
        topic: str,
        owner: str,
        partition_of: Callable[[str], int],
        horizon_days: int,
        identities: Identities,
        samples: SampleBook,
    ) -> None:
        self.partition = partition
        self.identities = identities
        self.last = -1
        self.watermark_us = 0
        self.activations: dict[str, int] = {}
        self.samples = samples
        self._topic, self._owner, self._partition_of, self._horizon_days = topic, owner, partition_of, horizon_days
        self._cells = Cells()
        self._live: tuple[Registry, LivePeriods] | None = None
        self._ordinary: tuple[Registry, IngestLimits, OrdinaryEvents] | None = None

    def __len__(self) -> int:
        """Return how many identities are remembered."""
        return len(self.identities)

    @property
    def open_windows(self) -> int:
        """How many windows are in memory."""
        return len(self._cells.windows)

    def home_of(self, tenant: str) -> int:
        """Return the partition on which all of a tenant's events meet."""
        return self._partition_of(tenant)

    # From the journal

    def restore(self, version: int, entry: JournalEntry, registry: Registry) -> None:
        """Apply an entry read from the journal; a broken offset chain stops the work."""
        must_hold(
            entry.previous_last == self.last or self.last == -1,
            f"journal of partition {self.partition}: entry {entry.first}-{entry.last} follows {entry.previous_last},"
            f" but the state ends at {self.last}",
        )
        must_hold(entry.previous_last < entry.first <= entry.last, "a journal entry's offsets must ascend")
        self.last, self.watermark_us = entry.last, max(self.watermark_us, entry.watermark_us)
        self.activations.update(entry.activated)
        self.identities.add(_claimed(entry))
        for row in entry.windows:
            key = (row.tenant, row.meter, row.dimensions, row.start)
            self._cells.windows[key] = Cell(row.segment, int(row.quantity), row.events, entry.received_ms)
        for total in entry.periods:
            if entry.aggregations[total.meter] in ADDITIVE:
                self._cells.periods[total.tenant, total.meter, total.period] = Cell(
                    total.segment, int(total.quantity), total.events, entry.received_ms
                )
        self.restore_samples(version, entry, registry)
        self._evict(entry.received_ms)

    def restore_samples(self, version: int, entry: JournalEntry, registry: Registry) -> None:
        """Apply only an entry's samples, where the book reaches less far than the rest of the state."""
        if version > self.samples.journal_offset:
            known = [row for row in entry.samples if row.meter in registry.by_id]
            if known:
                self.samples.apply(known, self._live_periods(registry))

    def freeze(self) -> bytes:
        """Return all of the state but identities and samples, for a checkpoint."""
        return msgspec.msgpack.encode(
            _Frozen(FORMAT, self.last, self.watermark_us, self.activations, self._cells.freeze())
        )

    def thaw(self, raw: bytes) -> None:
        """Go on from what `freeze` returned; raises msgspec's errors for anything else."""
        frozen = msgspec.msgpack.decode(raw, type=_Frozen)
        must_hold(frozen.format == FORMAT, "a checkpoint of another format")
        self.last, self.watermark_us, self.activations = frozen.last, frozen.watermark_us, frozen.activations
        self._cells = Cells.thaw(frozen.cells)

    # From the source

    def judge(
        self, records: Records, registry: Registry, limits: IngestLimits, originals: Originals = _NO_ORIGINALS
    ) -> Tally | None:
        """Judge records in offset order; those at or below the last counted offset are skipped. Changes nothing.

        Returns None when nothing is new. A tally may cover fewer records than were given (`Tally.records`).
        """
        if records and records[0].offset > self.last:
            fresh: list[SourceRecord] = list(records)  # in offset order, so all are new
        else:
            fresh = [record for record in records if record.offset > self.last]
        if not fresh:
            return None
        if fresh[-1].offset - fresh[0].offset >= OFFSETS_AT_ONCE:
            end = fresh[0].offset + OFFSETS_AT_ONCE
            fresh = [record for record in fresh if record.offset < end]
        activated = self._activate_new(registry, fresh[0].offset)
        return Tally(
            self, fresh, registry, limits, originals, self._topic, activated, self._ordinary_events(registry, limits)
        )

    def accept(self, tally: Tally) -> MicroBatch:
        """Make a tally part of the state and return what must be committed.

        The state changes at once: if the transaction fails, this object must be thrown away with the process.
        """
        must_hold(not tally.wanted, "a tally with originals still missing")
        fresh, counted, registry = tally.records, tally.counted, tally.registry
        first, last, received_ms = fresh[0].offset, fresh[-1].offset, fresh[-1].timestamp
        must_hold(first <= last, "records must come in offset order")
        self.activations.update(counted.activated)
        live = self._live_periods(registry)
        windows, periods, late = self._fold(counted.windows, registry, live, first, received_ms)
        if counted.samples:
            late += self._late_samples(counted.samples, registry)
            periods += self.samples.apply(counted.samples, live)
        touched = sorted({key[1] for key in counted.windows} | {row.meter for row in counted.samples})
        self.watermark_us = max(self.watermark_us, min(counted.newest_us, received_ms * 1_000))
        entry = JournalEntry(
            format=FORMAT,
            previous_last=self.last,
            first=first,
            last=last,
            owner=self._owner,
            oldest_received_ms=fresh[0].timestamp,
            received_ms=received_ms,
            accepted=counted.accepted,
            duplicates=counted.duplicates,
            rejected=len(tally.dead_letters),
            identities=b"".join(counted.identities),
            digests=array("I", counted.identities.values()).tobytes(),
            places=array("I", counted.places).tobytes(),
            windows=windows,
            periods=periods,
            samples=counted.samples,
            corrections=counted.corrections,
            late=late,
            refused=tally.refused,
            dimension_names={meter: registry.by_id[meter].dimensions for meter in touched},
            aggregations={meter: registry.by_id[meter].aggregation for meter in touched},
            activated=counted.activated,
            watermark_us=self.watermark_us,
        )
        self.identities.add(_claimed(entry), counted.identities)
        self.last = last
        self._evict(received_ms)
        return MicroBatch(entry, tally.dead_letters, tally.misplaced)

    def _activate_new(self, registry: Registry, first: int) -> dict[str, int]:
        """Return the meters that are counted from this micro-batch on; on an empty partition, from its beginning."""
        since = first if self.last >= 0 else 0
        return {meter.meter_id: since for meter in registry.meters if meter.meter_id not in self.activations}

    def _fold(
        self,
        measured: dict[WindowKey, list[int]],
        registry: Registry,
        live: LivePeriods,
        segment: int,
        received_ms: int,
    ) -> tuple[list[WindowRow], list[PeriodRow], list[LateRow]]:
        """Add the batch's sums to windows and periods; returns the changed ones, absolute, and what came late."""
        closed_before = {
            meter.meter_id: self.watermark_us // 1_000_000 - meter.allowed_lateness_seconds - 60
            for meter in registry.meters
        }
        windows, late, slots = fold(measured, self._cells.windows, closed_before, segment, received_ms)
        touched: dict[PeriodKey, None] = {}
        for (tenant, meter, number), (quantity, events) in slots.items():
            for name in live.names_of_slot(tenant, number):
                self._cells.add_period((tenant, meter, name), segment, quantity, events, received_ms)
                touched[tenant, meter, name] = None
        periods = []
        for tenant, meter, name in sorted(touched):
            total = self._cells.periods[tenant, meter, name]
            periods.append(PeriodRow(tenant, meter, name, total.segment, str(total.quantity), total.events))
        return windows, periods, late

    def _late_samples(self, samples: list[SampleRow], registry: Registry) -> list[LateRow]:
        late: dict[WindowKey, int] = {}
        for row in samples:
            start = row.time_us // MINUTE_US * 60
            lateness = registry.by_id[row.meter].allowed_lateness_seconds
            if (start + 60 + lateness) * 1_000_000 <= self.watermark_us:
                key = (row.tenant, row.meter, row.dimensions, start)
                late[key] = late.get(key, 0) + (-1 if row.removed else 1)
        # What a sample does to its meter's total depends on the others, so only their number is told.
        return [LateRow(*key, "0", events) for key, events in late.items()]

    def _live_periods(self, registry: Registry) -> LivePeriods:
        if self._live is None or self._live[0] is not registry:
            self._live = registry, LivePeriods(registry)
        return self._live[1]

    def _ordinary_events(self, registry: Registry, limits: IngestLimits) -> OrdinaryEvents:
        known = self._ordinary
        if known is None or known[0] is not registry or known[1] != limits:
            known = self._ordinary = registry, limits, OrdinaryEvents(registry, limits)
        return known[2]

    def _evict(self, received_ms: int) -> None:
        self._cells.evict(received_ms)
        self.identities.forget_before(received_ms // DAY_MS - self._horizon_days)
        self.samples.forget_before(received_ms * 1_000 - SAMPLES_KEPT_US)


def _claimed(entry: JournalEntry) -> Claimed:
    return Claimed(entry.identities, entry.digests, entry.places, entry.first, entry.received_ms // DAY_MS)
