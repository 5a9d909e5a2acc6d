"""The meter worker's state of one source partition, and what a micro-batch of records does to it.

The state is a function of the journal: `restore` replays entries, `judge` and `accept` make the next. Owns dedupe,
minute windows and period totals. An event's identity is remembered by the day it was *received*, never by its own
time, so a retry with another timestamp is still a duplicate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from core.dead_letter import DeadLetter
from core.errors import must_hold
from core.journal import FORMAT, JournalEntry, PeriodRow, WindowRow
from core.meters import Registry
from core.usage_event import (
    IDENTITY_BYTES,
    IngestLimits,
    Rejection,
    UsageEvent,
    decode_batch,
    event_identity,
    is_batch,
    judge_event,
    parse_batch,
    parse_event,
    split_batch,
)
from streams.domain.source_record import Records, SourceRecord

DAY_MS = 86_400_000
MINUTE_US = 60_000_000
HOUR_SECONDS = 3_600
# A window or period untouched for this long leaves memory; touched again it opens a new segment.
WINDOW_KEPT_MS = 2 * 3_600_000
PERIOD_KEPT_MS = 40 * DAY_MS
_EVICT_EVERY_MS = 60_000
# Few enough that what was just judged is still in the processor's cache: a whole micro-batch costs half as much again.
_COUNTED_AT_ONCE = 50

_K = TypeVar("_K")
WindowKey = tuple[str, str, tuple[str, ...], int]
PeriodKey = tuple[str, str, str]


@dataclass(slots=True)
class Cell:
    """A running total: quantity x 10^12, events, the segment's name, and when it was last touched (received ms)."""

    segment: int
    quantity: int
    events: int
    touched_ms: int


@dataclass(slots=True)
class MicroBatch:
    """What came of some records: the journal entry, refused events, and events found on another tenant's partition."""

    entry: JournalEntry
    dead_letters: list[tuple[DeadLetter, bytes | None]] = field(default_factory=list)
    misplaced: list[tuple[int, bytes, bytes]] = field(default_factory=list)


class MeterPartition:
    """Dedupe identities, open windows and period totals of one source partition.

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
    ) -> None:
        self.partition = partition
        self.last = -1
        self._topic = topic
        self._owner = owner
        self._partition_of = partition_of
        self._horizon_days = horizon_days
        self._seen: dict[bytes, int] = {}
        self._windows: dict[WindowKey, Cell] = {}
        self._periods: dict[PeriodKey, Cell] = {}
        self._period_names: dict[int, tuple[str, str]] = {}
        self._evicted_ms = 0
        self._forgotten_day = 0

    def __len__(self) -> int:
        """Return how many identities are remembered."""
        return len(self._seen)

    @property
    def open_windows(self) -> int:
        """How many windows are in memory."""
        return len(self._windows)

    def restore(self, entry: JournalEntry) -> None:
        """Apply an entry read from the journal; a broken offset chain stops the work."""
        must_hold(
            entry.previous_last == self.last or self.last == -1,
            f"journal of partition {self.partition}: entry {entry.first}-{entry.last} follows {entry.previous_last},"
            f" but the state ends at {self.last}",
        )
        must_hold(entry.previous_last < entry.first <= entry.last, "a journal entry's offsets must ascend")
        self.last = entry.last
        day = entry.received_ms // DAY_MS
        identities = entry.identities
        for start in range(0, len(identities), IDENTITY_BYTES):
            self._seen[identities[start : start + IDENTITY_BYTES]] = day
        for row in entry.windows:
            key = (row.tenant, row.meter, row.dimensions, row.start)
            self._windows[key] = Cell(row.segment, int(row.quantity), row.events, entry.received_ms)
        for total in entry.periods:
            self._periods[total.tenant, total.meter, total.period] = Cell(
                total.segment, int(total.quantity), total.events, entry.received_ms
            )
        self._evict(entry.received_ms)

    def judge(self, records: Records, registry: Registry, limits: IngestLimits) -> Tally | None:
        """Judge records in offset order; those at or below the last counted offset are skipped. Changes nothing.

        Returns None when nothing is new.
        """
        if records and records[0].offset > self.last:
            fresh = list(records)  # in offset order, so all are new
        else:
            fresh = [record for record in records if record.offset > self.last]
        if not fresh:
            return None
        tally = Tally(self, fresh, registry, limits)
        tally.take(fresh)
        return tally

    def accept(self, tally: Tally) -> MicroBatch:
        """Make a tally part of the state and return what must be committed.

        The state changes at once: if the transaction fails, this object must be thrown away with the process.
        """
        return self._close(tally.records, tally)

    def _close(self, fresh: list[SourceRecord], tally: Tally) -> MicroBatch:
        first, last, received_ms = fresh[0].offset, fresh[-1].offset, fresh[-1].timestamp
        must_hold(first <= last, "records must come in offset order")
        day = received_ms // DAY_MS
        self._seen.update(dict.fromkeys(tally.identities, day))
        windows, periods = self._fold(tally.measured, first, received_ms)
        meters = {meter for _, meter, _, _ in tally.measured}
        entry = JournalEntry(
            format=FORMAT,
            previous_last=self.last,
            first=first,
            last=last,
            owner=self._owner,
            oldest_received_ms=fresh[0].timestamp,
            received_ms=received_ms,
            accepted=len(tally.identities),
            duplicates=tally.duplicates,
            rejected=len(tally.dead_letters),
            identities=b"".join(tally.identities),
            windows=windows,
            periods=periods,
            refused=tally.refused,
            dimension_names={meter: tally.registry.by_id[meter].dimensions for meter in sorted(meters)},
        )
        self.last = last
        self._evict(received_ms)
        return MicroBatch(entry, tally.dead_letters, tally.misplaced)

    def _fold(
        self, measured: dict[WindowKey, list[int]], segment: int, received_ms: int
    ) -> tuple[list[WindowRow], list[PeriodRow]]:
        """Add the batch's sums to windows and periods; returns the changed ones, absolute."""
        windows = []
        hours: dict[tuple[str, str, int], list[int]] = {}
        for key, (quantity, events) in measured.items():
            tenant, meter, dimensions, start = key
            cell = _add(self._windows, key, segment, quantity, events, received_ms)
            windows.append(WindowRow(tenant, meter, dimensions, start, cell.segment, str(cell.quantity), cell.events))
            # Windows of an hour are added up before they are added to the periods, of which there are far fewer.
            hour = hours.get((tenant, meter, start // HOUR_SECONDS))
            if hour is None:
                hours[tenant, meter, start // HOUR_SECONDS] = [quantity, events]
            else:
                hour[0] += quantity
                hour[1] += events
        touched = set()
        for (tenant, meter, number), (quantity, events) in hours.items():
            for name in self._names_of(number * HOUR_SECONDS):
                _add(self._periods, (tenant, meter, name), segment, quantity, events, received_ms)
                touched.add((tenant, meter, name))
        periods = []
        for tenant, meter, name in sorted(touched):
            cell = self._periods[tenant, meter, name]
            periods.append(PeriodRow(tenant, meter, name, cell.segment, str(cell.quantity), cell.events))
        return windows, periods

    def _names_of(self, start: int) -> tuple[str, str]:
        names = self._period_names.get(start)
        if names is None:
            if len(self._period_names) > 100_000:
                self._period_names.clear()
            instant = datetime.fromtimestamp(start, UTC)
            names = (instant.strftime("%Y-%m"), instant.strftime("%Y-%m-%dT%H"))
            self._period_names[start] = names
        return names

    def _evict(self, received_ms: int) -> None:
        if received_ms - self._evicted_ms < _EVICT_EVERY_MS:
            return
        self._evicted_ms = received_ms
        _drop_older(self._windows, received_ms - WINDOW_KEPT_MS)
        _drop_older(self._periods, received_ms - PERIOD_KEPT_MS)
        oldest_day = received_ms // DAY_MS - self._horizon_days
        if oldest_day > self._forgotten_day:
            self._forgotten_day = oldest_day
            self._seen = {identity: day for identity, day in self._seen.items() if day >= oldest_day}


def _add(cells: dict[_K, Cell], key: _K, segment: int, quantity: int, events: int, received_ms: int) -> Cell:
    cell = cells.get(key)
    if cell is None:
        cell = cells[key] = Cell(segment, quantity, events, received_ms)
    else:
        cell.quantity += quantity
        cell.events += events
        cell.touched_ms = received_ms
    return cell


def _split(batch: bytes) -> list[bytes]:
    items = split_batch(batch)
    assert isinstance(items, list), "an array that was decoded can be split"
    return items


def _drop_older(cells: dict[WindowKey, Cell] | dict[PeriodKey, Cell], before_ms: int) -> None:
    old = [key for key, cell in cells.items() if cell.touched_ms < before_ms]
    for key in old:
        del cells[key]  # type: ignore[arg-type]


class Tally:
    """Judges the records of one micro-batch and adds them up; the state is only read."""

    def __init__(
        self, state: MeterPartition, records: list[SourceRecord], registry: Registry, limits: IngestLimits
    ) -> None:
        self.records = records
        # Whether a tenant or meter was unknown: a newer registry might know it.
        self.unknown = False
        self.registry = registry
        self.limits = limits
        self.measured: dict[WindowKey, list[int]] = {}
        self.identities: dict[bytes, None] = {}
        self.duplicates = 0
        self.dead_letters: list[tuple[DeadLetter, bytes | None]] = []
        self.misplaced: list[tuple[int, bytes, bytes]] = []
        self.refused: list[tuple[int, int]] = []
        self._state = state
        self._homes: dict[str, int] = {}

    @property
    def weight(self) -> int:
        """About how many bytes the micro-batch's transaction will have, rather more than less."""
        total = IDENTITY_BYTES * len(self.identities) + 12 * len(self.refused)
        for tenant, meter, dimensions, _ in self.measured:
            # A window row, at most two period rows, and text of up to four bytes a character.
            total += 4 * (64 + len(tenant) + len(meter) + sum(map(len, dimensions)))
        total += sum(500 + len(letter.body or b"") for letter, _ in self.dead_letters)
        return total + sum(100 + len(raw) for _, _, raw in self.misplaced)

    def take(self, records: list[SourceRecord]) -> None:
        """Judge records in order, each an event, an array of events, or something to refuse; then add them up."""
        events: list[UsageEvent] = []
        registry, limits, homes, here = self.registry, self.limits, self._homes, self._state.partition
        for record in records:
            value = record.value
            if len(events) >= _COUNTED_AT_ONCE:
                self._count(events)
                events.clear()
            if value is not None and is_batch(value):
                self._take_array(record, value, events)
                continue
            event = parse_event(value, registry, limits, record.timestamp * 1_000)
            if type(event) is UsageEvent and homes.get(event.tenant) == here:
                events.append(event)
            else:
                self._judge(record, -1, value, event, events)
        self._count(events)

    def _take_array(self, record: SourceRecord, value: bytes, events: list[UsageEvent]) -> None:
        registry, limits, homes, here = self.registry, self.limits, self._homes, self._state.partition
        received_us = record.timestamp * 1_000
        decoded = decode_batch(value, limits)
        if decoded is None:
            items = parse_batch(value, limits)
            if isinstance(items, Rejection):
                self._refuse(record, -1, value, items)
                return
            for index, item in enumerate(items):
                self._judge(record, index, item, parse_event(item, registry, limits, received_us), events)
            return
        items = []
        for index, cloud_event in enumerate(decoded):
            event = judge_event(cloud_event, registry, limits, received_us)
            if type(event) is UsageEvent and homes.get(event.tenant) == here:
                events.append(event)
                continue
            # Only now the event's own bytes are needed, to hand them on.
            items = items or _split(value)
            self._judge(record, index, items[index], event, events)

    def _judge(
        self,
        record: SourceRecord,
        index: int,
        raw: bytes | None,
        event: UsageEvent | Rejection,
        events: list[UsageEvent],
    ) -> None:
        if type(event) is not UsageEvent:
            self._refuse(record, index, raw, event)  # type: ignore[arg-type]
            return
        tenant = event.tenant
        home = self._homes.get(tenant)
        if home is None:
            home = self._homes[tenant] = self._state._partition_of(tenant)
        if home == self._state.partition:
            events.append(event)
            return
        self.misplaced.append((home, tenant.encode(), raw or b""))
        self.refused.append((record.offset, index))

    def _count(self, events: list[UsageEvent]) -> None:
        """Add events up that nobody has seen before."""
        seen, identities, measured = self._state._seen, self.identities, self.measured
        for event in events:
            tenant = event.tenant
            identity = event_identity(tenant, event.source, event.id)
            if identity in seen or identity in identities:
                self.duplicates += 1
                continue
            identities[identity] = None
            start = event.time_us // MINUTE_US * 60
            for meter, dimensions, quantity in event.measures:
                key = (tenant, meter, dimensions, start)
                cell = measured.get(key)
                if cell is None:
                    measured[key] = [quantity, 1]
                else:
                    cell[0] += quantity
                    cell[1] += 1

    def _refuse(self, record: SourceRecord, index: int, raw: bytes | None, why: Rejection) -> None:
        reason = f"{why.reason} (at {why.pointer})" if why.pointer else why.reason
        letter = DeadLetter(
            why.code, reason, self._state._topic, self._state.partition, record.offset, index, record.timestamp, raw
        )
        self.unknown = self.unknown or why.code in ("unknown_tenant", "unknown_meter")
        self.dead_letters.append((letter, record.key))
        self.refused.append((record.offset, index))
