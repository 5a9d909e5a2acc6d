"""A partition's state with everything in memory, and records to give it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from core.meters import Registry
from core.usage_event import IngestLimits
from streams.domain.memory_identities import MemoryIdentities
from streams.domain.memory_samples import MemorySamples
from streams.domain.meter_partition import MeterPartition, MicroBatch
from streams.domain.tally import Original, Originals, Tally, Target, read_original

BASE_MS = 1_700_158_800_000  # 2023-11-16T18:20:00Z


class Record(NamedTuple):
    """A record of the source topic."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def partition_in_memory(home: Callable[[str], int] = lambda _: 0, *, horizon_days: int = 35) -> MeterPartition:
    """Return an empty state of partition 0."""
    return MeterPartition(
        0,
        topic="usage.events",
        owner="w",
        partition_of=home,
        horizon_days=horizon_days,
        identities=MemoryIdentities(),
        samples=MemorySamples(),
    )


def cloud_event(event_id: str, kind: str, data: dict[str, Any], **changes: str) -> bytes:
    """Return a structured CloudEvent of tenant acme."""
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": "s",
        "type": kind,
        "subject": "acme",
        "time": "2023-11-16T18:19:30Z",
        **changes,
        "data": data,
    }
    return json.dumps(event).encode()


def void(event_id: str, target: str, *, source: str = "s", **changes: str) -> bytes:
    """Return an event that takes another out."""
    return cloud_event(event_id, "meterbook.usage.void", {"corrects": {"source": source, "id": target}}, **changes)


def amend(event_id: str, target: str, kind: str, data: dict[str, Any], time: str = "2023-11-16T18:19:30Z") -> bytes:
    """Return an event that replaces another."""
    content = {"type": kind, "time": time, "data": data}
    body = {"corrects": {"source": "s", "id": target}, "event": content, "reason": "typo"}
    return cloud_event(event_id, "meterbook.usage.amend", body)


def backfill(event_id: str, events: list[dict[str, Any]], start: str, end: str) -> bytes:
    """Return an event that adds a closed range."""
    return cloud_event(event_id, "meterbook.usage.backfill", {"start": start, "end": end, "events": events})


def log_of(records: list[Record]) -> Callable[[Mapping[bytes, Target], Registry], Originals]:
    """Return how originals are found in a list of records by their places."""

    def find(targets: Mapping[bytes, Target], registry: Registry) -> Originals:
        found: dict[bytes, Original | None] = {}
        for identity, target in targets.items():
            place = target.place
            record = next((one for one in records if place is not None and one.offset == place.offset), None)
            found[identity] = read_original(record, place.index, registry) if record and place else None
        return found

    return find


def judge(
    state: MeterPartition,
    records: list[Record],
    registry: Registry,
    limits: IngestLimits | None = None,
    find: Callable[[Mapping[bytes, Target], Registry], Originals] | None = None,
) -> Tally | None:
    """Judge records, looking originals up until none is missing."""
    originals: dict[bytes, Original | None] = {}
    while True:
        tally = state.judge(records, registry, limits or IngestLimits(), originals)
        if tally is None or not tally.wanted:
            return tally
        assert find is not None, "nothing to look originals up in"
        originals |= dict(find(tally.wanted, registry))


def count(
    state: MeterPartition,
    records: list[Record],
    registry: Registry,
    find: Any = None,
    limits: IngestLimits | None = None,
) -> MicroBatch:
    """Judge and accept records of which at least one is new."""
    tally = judge(state, records, registry, limits, find)
    assert tally is not None
    return state.accept(tally)
