"""Dead letters: what was refused, kept byte for byte, with its place, a stable code and a reason in the headers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

_CUT = re.compile(r" \(only the first (\d+) of \d+ bytes are kept here\)\Z")
_PREFIX = "meterbook_"
_HEADERS = ("code", "reason", "topic", "partition", "offset", "index", "received_ms")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One refused event: `index` is its place in a batch record, -1 when the whole record was refused.

    `body` is None for a tombstone. `received_ms` is the broker's append time in milliseconds since 1970 UTC.
    `source_headers` are those of the record where they are part of the event (CloudEvents in binary mode).
    """

    code: str
    reason: str
    topic: str
    partition: int
    offset: int
    index: int
    received_ms: int
    body: bytes | None
    source_headers: tuple[tuple[str, bytes | None], ...] = ()

    def fitting(self, bytes_max: int) -> DeadLetter:
        """Return this letter with a body of at most `bytes_max` bytes; one that was cut says so in its reason.

        A compressed record can be many times larger than its topic allows; all of it stays on its own topic.
        """
        if self.body is None or len(self.body) <= bytes_max:
            return self
        reason = f"{self.reason} (only the first {bytes_max} of {len(self.body)} bytes are kept here)"
        return replace(self, reason=reason, body=self.body[:bytes_max])

    @property
    def is_cut(self) -> bool:
        """Whether `fitting` has cut the body, so that it must not be taken for the record's."""
        said = _CUT.search(self.reason)
        return said is not None and int(said[1]) == len(self.body or b"")

    def headers(self) -> list[tuple[str, bytes | None]]:
        """Return the Kafka headers that go beside the body."""
        own = [(f"{_PREFIX}{name}", str(getattr(self, name)).encode()) for name in _HEADERS]
        return [*own, *self.source_headers]

    @classmethod
    def from_record(cls, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> DeadLetter:
        """Read a record of a dead-letter topic back."""
        found = {key.removeprefix(_PREFIX): (raw or b"").decode() for key, raw in headers if key.startswith(_PREFIX)}
        return cls(
            code=found["code"],
            reason=found["reason"],
            topic=found["topic"],
            partition=int(found["partition"]),
            offset=int(found["offset"]),
            index=int(found["index"]),
            received_ms=int(found["received_ms"]),
            body=value,
            source_headers=tuple((key, raw) for key, raw in headers if not key.startswith(_PREFIX)),
        )
