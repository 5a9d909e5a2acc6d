"""Judges the records of one micro-batch and adds them up; the partition's state is only read.

What a correction takes out must be known in full. It is found in this very batch, or the tally asks for it
(`wanted`): then whoever runs it fetches the originals and the batch is judged again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from core.corrections import ANY_AGE, Backfill, Correction, MeterBackfill, read_reserved
from core.dead_letter import DeadLetter
from core.errors import BrokenInvariantError
from core.input_forms.binary import is_binary
from core.journal import CorrectionRow, SampleRow
from core.meters import Registry
from core.usage_event import (
    AMEND,
    IDENTITY_BYTES,
    LATEST_US,
    VOID,
    CloudEvent,
    IngestLimits,
    Rejection,
    ReservedEvent,
    Sample,
    UsageEvent,
    correction_claim,
    decode_batch,
    event_identity,
    is_batch,
    judge_event,
    parse_batch,
    parse_event,
    split_batch,
)
from streams.domain.add_up import JudgedEvent, add_up, judged
from streams.domain.cells import MINUTE_US, WindowKey
from streams.domain.ordinary_events import OrdinaryEvents
from streams.domain.source_record import SourceRecord, content_of
from streams.ports import Identities, Place

# A place is packed into 32 bits: 18 for the offset within the micro-batch, 14 for the index within an array.
INDEX_BITS = 14
OFFSETS_AT_ONCE = 1 << 18
# Enough that asking the disk about all at once costs next to nothing each, few enough that what was just judged is
# still in the processor's cache: whole micro-batches cost half as much again.
_COUNTED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Original:
    """An accepted event that a correction names, measured by today's meters; None if it was no usage event.

    `offset` tells which meters counted it: those that were active then. `index` is its place in an array, else 0.
    """

    event: UsageEvent | None
    offset: int
    index: int
    is_corrected: bool = False
    is_unavailable: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """What a correction names, and where it stands if this partition's memory still knows."""

    tenant: str
    source: str
    id: str
    place: Place | None


# Originals that were fetched, by identity; None: there is no such event.
Originals = Mapping[bytes, Original | None]


class StateView(Protocol):
    """What a tally reads of the partition's state."""

    partition: int
    identities: Identities
    activations: dict[str, int]

    def home_of(self, tenant: str) -> int:
        """Return the partition on which all of a tenant's events meet."""
        ...


@dataclass(slots=True)
class Counted:
    """What a tally adds up to."""

    windows: dict[WindowKey, list[int]] = field(default_factory=dict)
    samples: list[SampleRow] = field(default_factory=list)
    identities: dict[bytes, int] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)
    corrections: list[CorrectionRow] = field(default_factory=list)
    activated: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    duplicates: int = 0
    newest_us: int = 0


class Tally:
    """The outcome of judging `records`, in offset order and within `OFFSETS_AT_ONCE` offsets.

    `activated` has the meters that are counted from these records on.
    """

    def __init__(
        self,
        state: StateView,
        records: list[SourceRecord],
        registry: Registry,
        limits: IngestLimits,
        originals: Originals,
        topic: str,
        activated: dict[str, int],
        ordinary: OrdinaryEvents,
    ) -> None:
        self.records = records
        self.registry = registry
        # Whether a tenant or meter was unknown: a newer registry might know it.
        self.unknown = False
        self.wanted: dict[bytes, Target] = {}
        self.counted = Counted(activated=activated)
        self.dead_letters: list[tuple[DeadLetter, bytes | None]] = []
        self.misplaced: list[tuple[int, bytes, bytes]] = []
        self.refused: list[tuple[int, int]] = []
        self._state, self._limits, self._originals, self._topic = state, limits, originals, topic
        self._ordinary = ordinary
        self._first = records[0].offset
        self._homes: dict[str, int] = {}
        # Judged and not yet counted: events, and their packed places.
        self._events: list[JudgedEvent] = []
        self._places: list[int] = []
        # Where what was counted stands; built only when a correction looks for something.
        self._positions: dict[bytes, int] = {}
        self._take()

    @property
    def weight(self) -> int:
        """About how many bytes the micro-batch's transaction will have, rather more than less."""
        counted = self.counted
        total = (IDENTITY_BYTES + 8) * len(counted.identities) + 12 * len(self.refused)
        for tenant, meter, dimensions, _ in counted.windows:
            # A window row, two or three period rows, perhaps a late row, and text of up to four bytes a character.
            total += 6 * (64 + len(tenant) + len(meter) + sum(map(len, dimensions)))
        total += sum(200 + 4 * (len(row.value) + len(row.tenant) + len(row.meter)) for row in counted.samples)
        total += sum(200 + 4 * (len(row.reason) + len(row.target_id) + len(row.id)) for row in counted.corrections)
        total += sum(500 + len(letter.body or b"") for letter, _ in self.dead_letters)
        return total + sum(100 + len(raw) for _, _, raw in self.misplaced)

    def _take(self) -> None:
        """Judge the records in order, each an event, an array of events, or something to refuse; then add them up."""
        records, read_ordinary = self.records, self._ordinary.read_records
        events, places, first = self._events, self._places, self._first
        number = 0
        while True:
            number = read_ordinary(records, number, _COUNTED_AT_ONCE, first, events, places)
            if len(events) >= _COUNTED_AT_ONCE:
                self._count()
            elif number < len(records):
                self._take_record(records[number])
                number += 1
            else:
                break
        self._count()

    def _take_record(self, record: SourceRecord) -> None:
        value = content_of(record)
        if isinstance(value, Rejection):
            self._refuse(record, -1, record.value, value)
        elif value is not None and is_batch(value):
            self._take_array(record, value)
        else:
            self._judge(record, -1, value, parse_event(value, self.registry, self._limits, record.timestamp * 1_000))

    def _take_array(self, record: SourceRecord, value: bytes) -> None:
        registry, limits = self.registry, self._limits
        received_us = record.timestamp * 1_000
        ordinary = self._ordinary.read_array(value, received_us)
        if ordinary is not None:
            place = (record.offset - self._first << INDEX_BITS) + 1
            self._events += ordinary
            self._places += range(place, place + len(ordinary))
            return
        items = parse_batch(value, limits)
        if isinstance(items, Rejection):
            self._refuse(record, -1, value, items)
            return
        decoded = decode_batch(value, limits)
        for index, item in enumerate(items):
            if decoded is None:
                event = parse_event(item, registry, limits, received_us)
            else:
                event = judge_event(decoded[index], registry, limits, received_us)
            self._judge(record, index, item, event)

    def _judge(
        self, record: SourceRecord, index: int, raw: bytes | None, event: UsageEvent | ReservedEvent | Rejection
    ) -> None:
        if isinstance(event, Rejection):
            self._refuse(record, index, raw, event)
            return
        tenant = event.tenant
        home = self._homes.get(tenant)
        if home is None:
            home = self._homes[tenant] = self._state.home_of(tenant)
        if isinstance(event, ReservedEvent) and index >= 0 and event.type not in _ALLOWED_IN_ARRAYS:
            self._refuse(record, index, raw, Rejection("backfill_in_batch", "a backfill is a record of its own"))
        elif home != self._state.partition:
            self.misplaced.append((home, tenant.encode(), raw or b""))
            self.refused.append((record.offset, index))
        elif isinstance(event, ReservedEvent):
            self._take_reserved(record, index, raw, event)
        else:
            self._ordinary.learn(event)
            self._events.append(judged(event))
            self._places.append(self._pack(record, index))

    def _take_reserved(self, record: SourceRecord, index: int, raw: bytes | None, event: ReservedEvent) -> None:
        found = read_reserved(event, self.registry, record.timestamp * 1_000)
        if isinstance(found, Rejection):
            self._refuse(record, index, raw, found)
        elif isinstance(found, Backfill):
            self._take_backfill(record, found)
        else:
            # What came before must have been counted: it may be what is corrected.
            self._count()
            if isinstance(found, Correction):
                self._correct(record, index, raw, found)
            else:
                self._activate(record, index, raw, found)

    def _take_backfill(self, record: SourceRecord, backfill: Backfill) -> None:
        received_us = record.timestamp * 1_000
        for index, item in enumerate(backfill.items):
            event = parse_event(item, self.registry, ANY_AGE, received_us)
            if isinstance(event, ReservedEvent):
                event = Rejection("invalid_correction", "a backfill's events must be usage", "/type")
            elif isinstance(event, UsageEvent) and not backfill.start_us <= event.time_us < backfill.end_us:
                event = Rejection("outside_range", "the event is not within the backfill's range", "/time")
            self._judge(record, index, item, event)
        names = backfill.source, backfill.id
        covered = backfill.start_us, backfill.end_us
        row = CorrectionRow(
            backfill.tenant, "backfill", *names, *names, backfill.reason, record.offset, -1, record.timestamp, covered
        )
        self.counted.corrections.append(row)

    def _count(self) -> None:
        """Add up the events that nobody has seen before."""
        events, places = self._events, self._places
        if not events:
            return
        counted, known = self.counted, self._state.identities
        old = known.find_old([event[2] for event in events])
        accepted_before = len(counted.places)
        duplicates, counted.newest_us, twins, sampled = add_up(
            events, places, known.recent, old, counted.identities, counted.places, counted.windows, counted.newest_us
        )
        counted.duplicates += duplicates
        counted.accepted += len(counted.places) - accepted_before
        for place in twins:
            self._refuse_twin(place)
        for number in sampled:
            tenant, time_us, _, _, _, samples = events[number]
            offset, index = self._first + (places[number] >> INDEX_BITS), _index(places[number])
            self._add_samples(tenant, time_us, samples, offset, index)
        events.clear()
        places.clear()

    def _add_samples(self, tenant: str, time_us: int, samples: list[Sample], offset: int, index: int) -> None:
        position = max(index, 0)
        self.counted.samples += [
            SampleRow(tenant, meter, dimensions, time_us, value, offset, position)
            for meter, dimensions, value in samples
        ]

    # Corrections

    def _correct(self, record: SourceRecord, index: int, raw: bytes | None, correction: Correction) -> None:
        tenant = correction.tenant
        own = event_identity(tenant, correction.source, correction.id)
        claim = correction_claim(tenant, correction.target_source, correction.target_id)
        # The claim stands for the correction's content: a twin that corrects something else has claimed another.
        if self._knows(own):
            if self._knows(claim):
                self.counted.duplicates += 1
            else:
                self._refuse(record, index, raw, _TWIN)
            return
        if self._knows(claim):
            self._refuse(record, index, raw, _CORRECTED)
            return
        target = event_identity(tenant, correction.target_source, correction.target_id)
        original = self._original(target, correction)
        if original is _NOT_FETCHED:
            return
        if original is None:
            reason = f"no event {correction.target_id!r} of source {correction.target_source!r} was accepted"
            self._refuse(record, index, raw, Rejection("unknown_event", reason[:300], "/data/corrects"))
            return
        if original.is_corrected or original.is_unavailable:
            self._refuse(record, index, raw, _CORRECTED if original.is_corrected else _UNAVAILABLE)
            return
        if original.event is None:
            why = "only usage can be corrected, and only while its tenant and meter are known"
            self._refuse(record, index, raw, Rejection("not_correctable", why, "/data/corrects"))
            return
        self._take_out(original)
        place = self._pack(record, index)
        for identity in (own, claim):
            self.counted.identities[identity] = 0
            self.counted.places.append(place)
        self.counted.accepted += 1
        if correction.replacement is not None:
            self._put_in(correction.replacement, record.offset, index)
        names = correction.source, correction.id, correction.target_source, correction.target_id
        row = CorrectionRow(tenant, correction.kind, *names, correction.reason, record.offset, index, record.timestamp)
        self.counted.corrections.append(row)

    def _original(self, target: bytes, correction: Correction) -> Original | None:
        if target in self.counted.identities:
            place = self._place_in_batch(target)
            return self._in_this_batch(self._first + (place >> INDEX_BITS), _index(place))
        if target in self._originals:
            return self._originals[target]
        names = correction.tenant, correction.target_source, correction.target_id
        self.wanted[target] = Target(*names, self._state.identities.place_of(target))
        return _NOT_FETCHED

    def _place_in_batch(self, identity: bytes) -> int:
        known, counted = self._positions, self.counted
        for number, claimed in enumerate(islice(counted.identities, len(known), None), len(known)):
            known[claimed] = counted.places[number]
        return known[identity]

    def _in_this_batch(self, offset: int, index: int) -> Original:
        record = self.records[bisect_left(self.records, offset, key=lambda found: found.offset)]
        return read_original(record, index, self.registry)

    def _take_out(self, original: Original) -> None:
        event = original.event
        assert event is not None
        active = self._state.activations | self.counted.activated
        start = event.time_us // MINUTE_US * 60
        for meter, dimensions, quantity in event.measures:
            # A meter that was not there yet has not counted it.
            if active[meter] <= original.offset:
                self._add_to_window((event.tenant, meter, dimensions, start), -quantity, -1)
        kept = [sample for sample in event.samples if active[sample[0]] <= original.offset]
        for meter, dimensions, value in kept:
            self.counted.samples.append(
                SampleRow(
                    event.tenant, meter, dimensions, event.time_us, value, original.offset, original.index, removed=True
                )
            )

    def _put_in(self, event: UsageEvent, offset: int, index: int) -> None:
        start = event.time_us // MINUTE_US * 60
        for meter, dimensions, quantity in event.measures:
            self._add_to_window((event.tenant, meter, dimensions, start), quantity, 1)
        self._add_samples(event.tenant, event.time_us, event.samples, offset, index)

    def _add_to_window(self, key: WindowKey, quantity: int, events: int) -> None:
        cell = self.counted.windows.setdefault(key, [0, 0])
        cell[0] += quantity
        cell[1] += events

    def _activate(self, record: SourceRecord, index: int, raw: bytes | None, backfill: MeterBackfill) -> None:
        """Count what a meter would have counted before it was known here; the last part makes it known all along."""
        own = event_identity(backfill.tenant, backfill.source, backfill.id)
        if self._knows(own):
            self.counted.duplicates += 1
            return
        since = (self._state.activations | self.counted.activated)[backfill.meter]
        if since != backfill.before:
            why = f"the meter is counted here from offset {since} on, not from {backfill.before}"
            self._refuse(record, index, raw, Rejection("invalid_correction", why, "/data/before"))
            return
        self.counted.identities[own] = 0
        self.counted.places.append(self._pack(record, index))
        self.counted.accepted += 1
        for dimensions, start, quantity, events in backfill.windows:
            self._add_to_window((backfill.tenant, backfill.meter, dimensions, start), quantity, events)
        for dimensions, time_us, value, offset, position in backfill.samples:
            self.counted.samples.append(
                SampleRow(backfill.tenant, backfill.meter, dimensions, time_us, value, offset, position)
            )
        if backfill.is_last:
            self.counted.activated[backfill.meter] = 0

    def _knows(self, identity: bytes) -> bool:
        known = self._state.identities
        return identity in self.counted.identities or identity in known.recent or bool(known.find_old([identity]))

    # Refusals

    def _pack(self, record: SourceRecord, index: int) -> int:
        return (record.offset - self._first << INDEX_BITS) + index + 1

    def _refuse_twin(self, place: int) -> None:
        offset, index = self._first + (place >> INDEX_BITS), _index(place)
        record = self.records[bisect_left(self.records, offset, key=lambda found: found.offset)]
        self._refuse(record, index, _bytes_at(record, index, self.registry), _TWIN)

    def _refuse(self, record: SourceRecord, index: int, raw: bytes | None, why: Rejection) -> None:
        reason = f"{why.reason} (at {why.pointer})" if why.pointer else why.reason
        letter = DeadLetter(
            why.code,
            reason,
            self._topic,
            self._state.partition,
            record.offset,
            index,
            record.timestamp,
            raw,
            # Only what is refused as it came needs them; all else was made structured before.
            tuple(record.headers) if raw is record.value and is_binary(record.headers) else (),
        )
        self.unknown = self.unknown or why.code in ("unknown_tenant", "unknown_meter")
        self.dead_letters.append((letter, record.key))
        self.refused.append((record.offset, index))


# A received time that lies behind every event's own.
_AFTER_ALL_US = LATEST_US
_ALLOWED_IN_ARRAYS = frozenset({VOID, AMEND})
_TWIN = Rejection("conflict", "another event of this source and id was accepted before, and counts otherwise", "/id")
_CORRECTED = Rejection(
    "already_corrected", "the event was corrected before; correct what replaced it instead", "/data/corrects"
)
_UNAVAILABLE = Rejection(
    "original_unavailable", "the warehouse did not answer in time; replay this when it does", "/data/corrects"
)
_NOT_FETCHED = Original(None, -1, -1)


def read_original(record: SourceRecord, index: int, registry: Registry) -> Original:
    """Return an accepted event as it stands in its record, measured by the registry's meters."""
    raw = _bytes_at(record, index, registry)
    judged = parse_event(raw, registry, ANY_AGE, _AFTER_ALL_US)
    return Original(_usage_of(judged, registry), record.offset, max(index, 0))


def measure_accepted(event: CloudEvent, registry: Registry) -> UsageEvent | None:
    """Read an event that was accepted once, whatever its age: an amend is what it counts, other corrections None."""
    return _usage_of(judge_event(event, registry, ANY_AGE, _AFTER_ALL_US), registry)


def _usage_of(judged: UsageEvent | ReservedEvent | Rejection, registry: Registry) -> UsageEvent | None:
    if isinstance(judged, ReservedEvent):
        found = read_reserved(judged, registry, _AFTER_ALL_US)
        return found.replacement if isinstance(found, Correction) else None
    # A tenant or meter that is gone counts nothing any more, so there is nothing to take out.
    return None if isinstance(judged, Rejection) else judged


def _bytes_at(record: SourceRecord, index: int, registry: Registry) -> bytes | None:
    value = content_of(record)
    if isinstance(value, Rejection):
        raise BrokenInvariantError(f"offset {record.offset} was accepted and cannot be read: {value.reason}")
    if index < 0 or value is None:
        return value
    if is_batch(value):
        return _split(value)[index]
    event = parse_event(value, registry, ANY_AGE, _AFTER_ALL_US)
    found = read_reserved(event, registry, _AFTER_ALL_US) if isinstance(event, ReservedEvent) else None
    if not isinstance(found, Backfill):
        raise BrokenInvariantError(f"offset {record.offset} holds no event {index}")
    return found.items[index]


def _index(place: int) -> int:
    return (place & (1 << INDEX_BITS) - 1) - 1


def _split(batch: bytes) -> list[bytes]:
    items = split_batch(batch)
    assert isinstance(items, list), "an array that was decoded can be split"
    return items
