"""What the stream needs of a Kafka record, whichever client class carries it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


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


Records = Sequence[SourceRecord]
