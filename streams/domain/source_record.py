"""What the stream needs of a Kafka record, whichever client class carries it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Protocol

from core.input_forms.binary import to_structured
from core.usage_event import Rejection


class SourceRecord(Protocol):
    """A record of `usage.events`; `timestamp` is the broker's append time in milliseconds since 1970 UTC."""

    @property
    def offset(self) -> int:
        """Place within the partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Append time in milliseconds."""
        ...

    @property
    def key(self) -> bytes | None:
        """The key's bytes."""
        ...

    @property
    def value(self) -> bytes | None:
        """The value's bytes, None for a tombstone."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Headers; an event in binary mode has its attributes there."""
        ...


Records = Sequence[SourceRecord]


def ascending(records: Records) -> Records:
    """Return the records whose offsets ascend; after a rebalance, what still waited may have been fetched again."""
    offsets = [record.offset for record in records]
    if all(map(operator.lt, offsets, offsets[1:])):
        return records
    kept, last = [], -1
    for record in records:
        if record.offset > last:
            kept.append(record)
            last = record.offset
    return kept


def content_of(record: SourceRecord) -> bytes | Rejection | None:
    """Return the event or array that a record holds as structured JSON, or why it cannot be read; None: a tombstone."""
    if record.headers:
        structured = to_structured(record.headers, record.value)
        if structured is not None:
            return structured
    return record.value
