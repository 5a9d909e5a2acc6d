"""The short way for ordinary events, where its C part was built; everything else is judged the long way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core import native
from core.meters import ADDS_UP, Registry
from core.usage_event import EARLIEST_US, LATEST_US, IngestLimits, UsageEvent
from streams.domain.add_up import JudgedEvent
from streams.domain.source_record import SourceRecord

ReadRecords = Callable[[list[SourceRecord], int, int, int, list[JudgedEvent], list[int]], int]
ReadArray = Callable[[bytes, int], list[JudgedEvent] | None]
_SUBJECTS_KEPT = 50_000


class OrdinaryEvents:
    """Reads ordinary events of tenants that are known to belong to one partition, under one registry.

    Without the C part it knows no event at all. It never refuses: what it does not know it hands back.

    `read_records(records, begin, most, first, events, places)` appends the events of records from number `begin` on, as
    `streams.domain.add_up.judged` would, and their packed places; it stops at `most` events or at a record it does not
    know, and returns that record's number. `read_array(value, received_us)` returns all events of an array, or None if
    there is any that it does not know.
    """

    def __init__(self, registry: Registry, limits: IngestLimits) -> None:
        self._subjects: dict[str, str] = {}
        self._reader: Any = None
        self.read_records: ReadRecords = _know_no_record
        self.read_array: ReadArray = _know_no_array
        if native.reader is not None:
            self._reader = native.reader.Reader(
                {kind: readings for kind in registry.readings if (readings := _plain(registry, kind))},
                self._subjects,
                max_bytes=limits.max_bytes,
                max_events=limits.max_batch_events,
                max_ahead_us=limits.max_ahead_us,
                max_age_us=limits.max_age_us,
                earliest_us=EARLIEST_US,
                latest_us=LATEST_US,
            )
            self.read_records = self._reader.read_records
            self.read_array = self._reader.read_array

    def learn(self, event: UsageEvent) -> None:
        """Remember that the event's subject belongs to this partition."""
        if self._reader is not None and len(self._subjects) < _SUBJECTS_KEPT:
            subject = f"{event.tenant}/{event.customer}" if event.customer else event.tenant
            self._subjects[subject] = event.tenant


def _plain(registry: Registry, kind: str) -> tuple[tuple[str, str | None, tuple[str, ...]], ...]:
    """Return a type's readings, or none at all if one of them needs more than adding up."""
    readings = registry.readings[kind]
    if any(with_filters is not None or value_kind != ADDS_UP for *_, with_filters, value_kind in readings):
        return ()
    return tuple((meter, value_property, dimensions) for meter, value_property, dimensions, _, _ in readings)


def _know_no_record(
    records: list[SourceRecord], begin: int, most: int, first: int, events: list[JudgedEvent], places: list[int]
) -> int:
    return begin


def _know_no_array(value: bytes, received_us: int) -> list[JudgedEvent] | None:
    return None
