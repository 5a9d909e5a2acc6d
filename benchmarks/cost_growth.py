"""How an event's cost grows: `python -m benchmarks.cost_growth`. One process, no Kafka, processor time per event.

One thing is varied at a time, everything else stays as in the first row; the ratio beside each figure is to that row.
Counted is what the worker's processor does for an event: read, judge, dedupe, add up, fold, encode the journal entry.
Fetching and the transaction are in `make bench`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from benchmarks.profile_meter import Record
from core.journal import encode_entry
from core.meters import Meter, Registry
from core.usage_event import IngestLimits
from runtime.garbage import collect_seldom
from streams.adapters.identity_store.store import DiskIdentities
from streams.domain.memory_samples import MemorySamples
from streams.domain.meter_partition import MeterPartition
from streams.ports import Claimed, Identities

MICRO_BATCH = 20_000
_ENTRY = 50_000


@dataclass(frozen=True, slots=True)
class Shape:
    """What the usage looks like."""

    tenants: int = 50
    meters: int = 1
    dimensions: int = 2
    values: int = 8
    identities: int = 0
    partitions: int = 1
    duplicates: float = 0.0


VARIED = {
    "tenants": [1, 50, 1_000, 10_000],
    "meters": [1, 2, 4, 8],
    "dimensions": [0, 1, 2, 4],
    "values": [2, 8, 50, 500],
    "identities": [0, 100_000, 1_000_000, 5_000_000],
    "partitions": [1, 4, 16],
    "duplicates": [0.0, 0.05, 0.5, 0.99],
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=sorted(VARIED))
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    collect_seldom(100_000, 50, 50)
    base = _measure(Shape(), options.events, options.rounds)
    print(f"{'what is varied':<34}{'µs per event':>14}{'x':>8}")
    print(f"{'(first row: ' + _text(Shape()) + ')'}\n{'as above':<34}{base:>14.2f}{1:>8.2f}")
    for name, values in VARIED.items():
        if options.only not in (None, name):
            continue
        for value in values:
            shape = replace(Shape(), **{name: value})
            found = _measure(shape, options.events, options.rounds)
            print(f"{f'{name} {value:,}':<34}{found:>14.2f}{found / base:>8.2f}", flush=True)


def _text(shape: Shape) -> str:
    return f"{shape.tenants} tenants, {shape.meters} meter, {shape.dimensions} dimensions of {shape.values} values"


def _measure(shape: Shape, events: int, rounds: int) -> float:
    registry = _registry(shape)
    best = float("inf")
    for number in range(rounds):
        with _states(shape) as states:
            per_partition = _records(shape, events, datetime.now(UTC), seed=number)
            began = time.process_time()
            for state, records in zip(states, per_partition, strict=True):
                _count(state, records, registry)
            best = min(best, time.process_time() - began)
    return best / events * 1e6


def _registry(shape: Shape) -> Registry:
    dimensions = tuple(f"dimension_{number}" for number in range(shape.dimensions))
    return Registry.of(
        [f"tenant-{number:05}" for number in range(shape.tenants)],
        [Meter(f"meter_{n}", "unit", "usage", "sum", f"quantity_{n}", dimensions) for n in range(shape.meters)],
    )


def _records(shape: Shape, events: int, now: datetime, *, seed: int) -> list[list[Record]]:
    rng = random.Random(seed)
    step = timedelta(minutes=10) / events
    received_ms = int(now.timestamp() * 1_000)
    found: list[list[Record]] = [[] for _ in range(shape.partitions)]
    for number in range(events):
        tenant = rng.randrange(shape.tenants)
        partition = found[tenant % shape.partitions]
        if partition and rng.random() < shape.duplicates:
            twin = rng.choice(partition)
            partition.append(Record(len(partition), received_ms, None, twin.value))
            continue
        at = now - timedelta(minutes=10) + number * step
        data: dict[str, object] = {f"quantity_{n}": rng.randrange(1_000) for n in range(shape.meters)}
        data |= {f"dimension_{n}": f"value-{rng.randrange(shape.values)}" for n in range(shape.dimensions)}
        event = {
            "specversion": "1.0",
            "id": f"{rng.getrandbits(128):032x}",
            "source": "/bench",
            "type": "usage",
            "subject": f"tenant-{tenant:05}",
            "time": at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            "data": data,
        }
        partition.append(Record(len(partition), received_ms, None, json.dumps(event).encode()))
    return found


@contextmanager
def _states(shape: Shape) -> Iterator[list[MeterPartition]]:
    with tempfile.TemporaryDirectory(prefix="cost-growth-") as folder, asyncio.Runner() as runner:
        states = []
        for partition in range(shape.partitions):
            identities = DiskIdentities(Path(folder) / str(partition))
            runner.run(_fill(identities, shape.identities // shape.partitions))
            states.append(
                MeterPartition(
                    0,
                    topic="usage.events",
                    owner="bench",
                    partition_of=lambda _: 0,
                    horizon_days=35,
                    identities=identities,
                    samples=MemorySamples(),
                )
            )
        yield states
        for state in states:
            runner.run(state.identities.close())


async def _fill(identities: Identities, count: int) -> None:
    async def no_entry(offset: int) -> bytes | None:
        return None

    await identities.load(no_entry)
    day = int(time.time() // 86_400)
    rng = random.Random(1)
    for start in range(0, count, _ENTRY):
        size = min(_ENTRY, count - start)
        packed = array("I", bytes(4 * size)).tobytes()
        identities.add(Claimed(rng.randbytes(16 * size), packed, packed, start, day))
        if identities.checkpoint_due():
            await identities.checkpoint(start, b"entry", b"")


def _count(state: MeterPartition, records: list[Record], registry: Registry) -> None:
    limits = IngestLimits()
    for start in range(0, len(records), MICRO_BATCH):
        tally = state.judge(records[start : start + MICRO_BATCH], registry, limits)
        assert tally is not None
        encode_entry(state.accept(tally).entry)


if __name__ == "__main__":
    main()
