"""What the warehouse stores: rows from a journal entry, and event rows from the raw records it covers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from core.errors import BrokenInvariantError, must_hold
from core.event_time import parse_event_time, to_datetime
from core.journal import JournalEntry
from core.quantity import unscale
from core.usage_event import AMEND, BACKFILL, METER_BACKFILL, is_batch, split_batch
from streams.domain.source_record import SourceRecord, content_of

COLUMNS: dict[str, tuple[str, ...]] = {
    "usage_events": (
        "tenant", "source", "id", "type", "customer", "time", "data", "received_at",
        "source_partition", "source_offset", "source_index", "version",
    ),
    "usage_rollups": (
        "tenant", "meter", "dimensions", "window_start", "source_partition", "segment", "quantity", "events",
        "version",
    ),
    "usage_samples": (
        "tenant", "meter", "dimensions", "time", "source_partition", "source_offset", "source_index", "quantity",
        "text", "removed", "version",
    ),
    "usage_corrections": (
        "tenant", "target_source", "target_id", "kind", "source", "id", "reason", "range_start", "range_end",
        "received_at", "source_partition", "source_offset", "source_index", "version",
    ),
    "usage_late": (
        "tenant", "meter", "dimensions", "window_start", "source_partition", "quantity", "events", "received_at",
        "version",
    ),
    "meter_activations": ("meter", "source_partition", "first_offset", "version"),
    "pipeline_progress": (
        "at", "stage", "source_partition", "next_offset", "end_offset", "events", "duplicates", "rejected",
        "freshness_ms", "watermark",
    ),
}  # fmt: skip
# Kafka offsets stay far below 2^62; counting down from here makes the first record of an identity the newest version.
_OFFSETS_END = 1 << 62
Rows = list[list[Any]]


class _Content(msgspec.Struct, gc=False):
    type: str
    time: str
    data: msgspec.Raw


class _RawCloudEvent(msgspec.Struct, gc=False):
    id: str
    source: str
    type: str
    subject: str
    time: str
    data: msgspec.Raw


class _RawAmend(msgspec.Struct, gc=False):
    event: _Content


class _RawItem(_Content, gc=False):
    id: str


class _RawBackfill(msgspec.Struct, gc=False):
    events: list[_RawItem]


_decode = msgspec.json.Decoder(_RawCloudEvent).decode
_decode_amend = msgspec.json.Decoder(_RawAmend).decode
_decode_backfill = msgspec.json.Decoder(_RawBackfill).decode


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


def journal_rows(partition: int, version: int, entry: JournalEntry) -> dict[str, Rows]:
    """Return the rows that an entry itself makes, by table; `version` is its journal offset."""
    return {
        "usage_rollups": _rollup_rows(partition, version, entry),
        "usage_samples": _sample_rows(partition, version, entry),
        "usage_corrections": _correction_rows(partition, version, entry),
        "usage_late": _late_rows(partition, version, entry),
        "meter_activations": [[meter, partition, offset, version] for meter, offset in sorted(entry.activated.items())],
    }


def event_rows(covered: SourceRange, record: SourceRecord) -> Rows:
    """Return rows of `usage_events` for what the meter worker accepted of a record (duplicates included).

    A void keeps its own type, an amend has the type, time and data that it counts instead, a backfill is its events,
    and what a meter counted in hindsight is no event at all. The worker has judged these very bytes, so anything
    unreadable here is our own mistake and stops the work.
    """
    must_hold(covered.first <= record.offset <= covered.last, "a record outside of the entry's range")
    if (record.offset, -1) in covered.refused:
        return []
    value = content_of(record)
    if not isinstance(value, bytes):
        raise BrokenInvariantError(f"offset {record.offset}: an accepted record is unreadable: {value}")
    if not is_batch(value):
        return _rows_of(covered, record, 0, value)
    items = split_batch(value)
    if not isinstance(items, list):
        raise BrokenInvariantError(f"offset {record.offset}: an accepted batch is unreadable: {items.reason}")
    return [
        row
        for index, item in enumerate(items)
        if (record.offset, index) not in covered.refused
        for row in _rows_of(covered, record, index, item)
    ]


def _rows_of(covered: SourceRange, record: SourceRecord, position: int, raw: bytes) -> Rows:
    event = _decode(raw)
    if event.type == METER_BACKFILL:
        return []
    if event.type == BACKFILL:
        return [
            _event_row(covered.partition, record, index, event, item.id, item)
            for index, item in enumerate(_decode_backfill(event.data).events)
            if (record.offset, index) not in covered.refused
        ]
    content = _decode_amend(event.data).event if event.type == AMEND else event
    return [_event_row(covered.partition, record, position, event, event.id, content)]


def _event_row(
    partition: int,
    record: SourceRecord,
    position: int,
    event: _RawCloudEvent,
    event_id: str,
    content: _Content | _RawCloudEvent,
) -> list[Any]:
    tenant, _, customer = event.subject.partition("/")
    time_us = parse_event_time(content.time)
    if isinstance(time_us, str):
        raise BrokenInvariantError(f"offset {record.offset}: an accepted event has time {content.time!r}")
    return [
        tenant,
        event.source,
        event_id,
        content.type,
        customer,
        to_datetime(time_us),
        bytes(content.data).decode(),
        _from_ms(record.timestamp),
        partition,
        record.offset,
        position,
        # First record wins, and within a batch the first element; a batch has fewer than 2^20 elements.
        ((_OFFSETS_END >> 20) - record.offset << 20) - position,
    ]


def _rollup_rows(partition: int, version: int, entry: JournalEntry) -> Rows:
    return [
        [
            row.tenant,
            row.meter,
            _dimensions(entry, row.meter, row.dimensions),
            datetime.fromtimestamp(row.start, UTC),
            partition,
            row.segment,
            _decimal(row.quantity),
            row.events,
            version,
        ]
        for row in entry.windows
    ]


def _sample_rows(partition: int, version: int, entry: JournalEntry) -> Rows:
    # A sample that was put in and taken out by the same micro-batch has one version, so only its end may be written.
    last = {(row.tenant, row.meter, row.time_us, row.offset, max(row.index, 0)): row for row in entry.samples}
    rows = []
    for (tenant, meter, time_us, offset, position), row in last.items():
        is_text = entry.aggregations[meter] == "unique"
        rows.append(
            [
                tenant,
                meter,
                _dimensions(entry, meter, row.dimensions),
                to_datetime(time_us),
                partition,
                offset,
                position,
                Decimal(0) if is_text else _decimal(row.value),
                row.value if is_text else "",
                int(row.removed),
                version,
            ]
        )
    return rows


def _correction_rows(partition: int, version: int, entry: JournalEntry) -> Rows:
    return [
        [
            row.tenant,
            row.target_source,
            row.target_id,
            row.kind,
            row.source,
            row.id,
            row.reason,
            to_datetime(row.range_us[0]),
            to_datetime(row.range_us[1]),
            _from_ms(row.received_ms),
            partition,
            row.offset,
            max(row.index, 0),
            version,
        ]
        for row in entry.corrections
    ]


def _late_rows(partition: int, version: int, entry: JournalEntry) -> Rows:
    sums: dict[tuple[str, str, tuple[str, ...], int], tuple[int, int]] = {}
    for row in entry.late:
        key = (row.tenant, row.meter, row.dimensions, row.start)
        quantity, events = sums.get(key, (0, 0))
        sums[key] = (quantity + int(row.quantity), events + row.events)
    return [
        [
            tenant,
            meter,
            _dimensions(entry, meter, values),
            datetime.fromtimestamp(start, UTC),
            partition,
            unscale(quantity),
            events,
            _from_ms(entry.received_ms),
            version,
        ]
        for (tenant, meter, values, start), (quantity, events) in sums.items()
    ]


def _dimensions(entry: JournalEntry, meter: str, values: Iterable[str]) -> dict[str, str]:
    return dict(zip(entry.dimension_names[meter], values, strict=True))


def _decimal(scaled: str) -> Decimal:
    return unscale(int(scaled))


def _from_ms(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1_000, UTC)
