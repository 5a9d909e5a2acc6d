"""Where the meter worker's time goes: `python -m benchmarks.profile_meter`. One process, no Kafka, processor time.

Stages are measured cumulatively on the same records, best of several rounds, and the differences shown: what decoding
costs, what judging adds (names, time, quantities, dimensions), what dedupe and rollup add, what the journal entry adds.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from benchmarks.workload import generate
from catalogues.load_catalogue import load_catalogue, shipped_files
from core.journal import encode_entry
from core.meters import Registry
from core.usage_event import CloudEvent, IngestLimits, parse_event
from streams.domain.memory_identities import MemoryIdentities
from streams.domain.memory_samples import MemorySamples
from streams.domain.meter_partition import MeterPartition

MICRO_BATCH = 20_000


class Record(NamedTuple):
    """A record of the source topic as the worker sees it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def main() -> None:
    """Print microseconds per event and stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    now = datetime.now(UTC)
    workload = generate(options.events, seed=1, until=now)
    registry = Registry.of({tenant for tenant, _ in workload.singles()}, load_catalogue(shipped_files()).meters)
    received_ms = int(now.timestamp() * 1_000)
    singles = [Record(n, received_ms, None, body) for n, (_, body) in enumerate(workload.singles())]
    batches = [Record(n, received_ms, None, body) for n, (_, body) in enumerate(workload.batches())]
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)

    events = len(singles)
    received_us, limits = received_ms * 1_000, IngestLimits()
    bodies = [record.value or b"" for record in singles]
    decode_event = msgspec.json.Decoder(CloudEvent, float_hook=Decimal).decode
    decode = _best(options.rounds, lambda: [decode_event(body) for body in bodies]) / events
    judge = (
        _best(options.rounds, lambda: [parse_event(body, registry, limits, received_us) for body in bodies]) / events
    )
    count = _best(options.rounds, lambda: _count(singles, registry, limits, encode=False)) / events
    journal = _best(options.rounds, lambda: _count(singles, registry, limits, encode=True)) / events
    in_batches = _best(options.rounds, lambda: _count(batches, registry, limits, encode=True)) / events

    print(f"{'stage':<42}{'µs per event':>14}")
    rows = {
        "decode the CloudEvent": decode,
        "judge: names, time, quantities, dimensions": judge - decode,
        "dedupe and roll up": count - judge,
        "write the journal entry": journal - count,
        "all, single events": journal,
        "all, in arrays of 100": in_batches,
    }
    for name, seconds in rows.items():
        print(f"{name:<42}{seconds * 1e6:>14.2f}")
    print(f"\n{events:,} events, best of {options.rounds} rounds; fetch, transaction and hand-off are not in it")


def _count(records: list[Record], registry: Registry, limits: IngestLimits, *, encode: bool) -> None:
    state = MeterPartition(
        0,
        topic="usage.events",
        owner="profile",
        partition_of=lambda tenant: 0,
        horizon_days=35,
        identities=MemoryIdentities(),
        samples=MemorySamples(),
    )
    for start in range(0, len(records), MICRO_BATCH):
        tally = state.judge(records[start : start + MICRO_BATCH], registry, limits)
        assert tally is not None
        batch = state.accept(tally)
        if encode:
            encode_entry(batch.entry)


def _best(rounds: int, work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)


if __name__ == "__main__":
    main()
