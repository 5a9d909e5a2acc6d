"""What the warehouse stores: rollup rows from a journal entry, event rows from the raw records it covers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from core.errors import BrokenInvariantError, must_hold
from core.event_time import parse_event_time, to_datetime
from core.journal import JournalEntry
from core.quantity import unscale
from core.usage_event import is_batch, split_batch
from streams.domain.source_record import SourceRecord

ROLLUP_COLUMNS = (
    "tenant", "meter", "dimensions", "window_start", "source_partition", "segment", "quantity", "events", "version",
)  # fmt: skip
EVENT_COLUMNS = (
    "tenant", "source", "id", "type", "customer", "time", "data", "received_at",
    "source_partition", "source_offset", "source_index", "version",
)  # fmt: skip
# Kafka offsets stay far below 2^62; counting down from here makes the first record of an identity the newest version.
_OFFSETS_END = 1 << 62


class _RawCloudEvent(msgspec.Struct, gc=False):
    id: str
    source: str
    type: str
    subject: str
    time: str
    data: msgspec.Raw


_decode = msgspec.json.Decoder(_RawCloudEvent).decode


@dataclass(frozen=True, slots=True)
class SourceRange:
    """The source records an entry covers, and which of them it did not accept."""

    partition: int
    first: int
    last: int
    refused: frozenset[tuple[int, int]]


def source_range(partition: int, entry: JournalEntry) -> SourceRange:
    """Return the range of source records behind an entry."""
    return SourceRange(
        partition, entry.first, entry.last, frozenset((offset, index) for offset, index in entry.refused)
    )


def rollup_rows(partition: int, version: int, entry: JournalEntry) -> list[list[Any]]:
    """Return rows of `usage_rollups`; `version` is the entry's journal offset."""
    names = entry.dimension_names
    return [
        [
            row.tenant,
            row.meter,
            dict(zip(names[row.meter], row.dimensions, strict=True)),
            datetime.fromtimestamp(row.start, UTC),
            partition,
            row.segment,
            _decimal(row.quantity),
            row.events,
            version,
        ]
        for row in entry.windows
    ]


def event_rows(covered: SourceRange, record: SourceRecord) -> list[list[Any]]:
    """Return rows of `usage_events` for what the meter worker accepted of a record (duplicates included).

    The worker has judged these very bytes, so anything unreadable here is our own mistake and stops the work.
    """
    must_hold(covered.first <= record.offset <= covered.last, "a record outside of the entry's range")
    value = record.value
    if value is None or (record.offset, -1) in covered.refused:
        must_hold((record.offset, -1) in covered.refused, "a tombstone the worker accepted")
        return []
    if not is_batch(value):
        return [_event_row(covered.partition, record, -1, value)]
    items = split_batch(value)
    if not isinstance(items, list):
        raise BrokenInvariantError(f"offset {record.offset}: an accepted batch is unreadable: {items.reason}")
    return [
        _event_row(covered.partition, record, index, item)
        for index, item in enumerate(items)
        if (record.offset, index) not in covered.refused
    ]


def _event_row(partition: int, record: SourceRecord, index: int, raw: bytes) -> list[Any]:
    event = _decode(raw)
    tenant, _, customer = event.subject.partition("/")
    time_us = parse_event_time(event.time)
    if isinstance(time_us, str):
        raise BrokenInvariantError(f"offset {record.offset}: an accepted event has time {event.time!r}")
    position = max(index, 0)
    return [
        tenant,
        event.source,
        event.id,
        event.type,
        customer,
        to_datetime(time_us),
        bytes(event.data).decode(),
        datetime.fromtimestamp(record.timestamp / 1_000, UTC),
        partition,
        record.offset,
        position,
        # First record wins, and within a batch the first element; a batch has fewer than 2^20 elements.
        ((_OFFSETS_END >> 20) - record.offset << 20) - position,
    ]


def _decimal(scaled: str) -> Decimal:
    return unscale(int(scaled))
