"""Where the meter worker's time goes: `python -m benchmarks.profile_meter`. One process, no Kafka, processor time.

One of four partitions, in micro-batches of the worker's size, identities on disk. Single events and arrays of 100 take
turns, best of several rounds for each stage, so that other work on the machine slows both alike. First what the Python
way of reading costs alone: ordinary events do not take it where the C part was built.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.workload import BATCH_EVENTS, TENANTS, Workload, generate
from catalogues.load_catalogue import load_catalogue, shipped_files
from core.journal import encode_entry
from core.meters import Registry
from core.usage_event import CloudEvent, IngestLimits, parse_event
from runtime.garbage import collect_seldom
from streams.adapters.identity_store.store import DiskIdentities
from streams.domain.memory_samples import MemorySamples
from streams.domain.meter_partition import MeterPartition

MICRO_BATCH = 20_000
PARTITIONS = 4


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
    parser.add_argument("--events", type=int, default=100_000, help="about so many in the partition (default 100,000)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    now = datetime.now(UTC)
    workload = _of_one_partition(generate(PARTITIONS * options.events, seed=1, until=now))
    registry = Registry.of(set(workload.tenants), load_catalogue(shipped_files()).meters)
    received_ms = int(now.timestamp() * 1_000)
    singles = [Record(n, received_ms, None, body) for n, (_, body) in enumerate(workload.singles())]
    batches = [Record(n, received_ms, None, body) for n, (_, body) in enumerate(workload.batches())]
    collect_seldom(100_000, 50, 50)

    events, limits = len(singles), IngestLimits()
    bodies = [record.value or b"" for record in singles]
    decode_event = msgspec.json.Decoder(CloudEvent, float_hook=Decimal).decode
    decode = _best(options.rounds, lambda: [decode_event(body) for body in bodies])
    judge = _best(options.rounds, lambda: [parse_event(body, registry, limits, received_ms * 1_000) for body in bodies])
    rounds = [
        (
            _count(singles, MICRO_BATCH, registry, limits),
            _count(batches, MICRO_BATCH // BATCH_EVENTS, registry, limits),
        )
        for _ in range(options.rounds)
    ]
    alone, in_arrays = (_Seconds(*map(min, zip(*form, strict=True))) for form in zip(*rounds, strict=True))

    print(f"in Python: decode {_us(decode, events)}, judge {_us(judge - decode, events)} µs per event\n")
    print(f"{'stage, µs per event':<44}{'single events':>14}{'arrays of 100':>14}")
    for name, one, other in (
        ("read, judge, dedupe and add up", alone.judge, in_arrays.judge),
        ("fold into windows and periods, remember", alone.accept, in_arrays.accept),
        ("write the journal entry", alone.encode, in_arrays.encode),
        ("all", sum(alone), sum(in_arrays)),
    ):
        print(f"{name:<44}{_us(one, events):>14}{_us(other, events):>14}")
    print(f"\n{events:,} events, best of {options.rounds} rounds; fetch, transaction and hand-off are not in it")


class _Seconds(NamedTuple):
    judge: float
    accept: float
    encode: float


def _of_one_partition(workload: Workload) -> Workload:
    kept = frozenset(TENANTS[::PARTITIONS])
    one = Workload()
    for tenant, body in workload.singles():
        if tenant in kept:
            one.tenants.append(tenant)
            one.bodies.append(body)
    return one


def _count(records: list[Record], at_once: int, registry: Registry, limits: IngestLimits) -> _Seconds:
    with tempfile.TemporaryDirectory(prefix="meterbook-profile-") as folder:
        identities = DiskIdentities(Path(folder), sync=False)
        asyncio.run(identities.load(_no_entry))
        state = MeterPartition(
            0,
            topic="usage.events",
            owner="profile",
            partition_of=lambda tenant: 0,
            horizon_days=35,
            identities=identities,
            samples=MemorySamples(),
        )
        judge = accept = encode = 0.0
        for start in range(0, len(records), at_once):
            times = [time.process_time()]
            tally = state.judge(records[start : start + at_once], registry, limits)
            assert tally is not None
            times.append(time.process_time())
            batch = state.accept(tally)
            times.append(time.process_time())
            encode_entry(batch.entry)
            times.append(time.process_time())
            judge += times[1] - times[0]
            accept += times[2] - times[1]
            encode += times[3] - times[2]
        asyncio.run(identities.close())
    return _Seconds(judge, accept, encode)


async def _no_entry(offset: int) -> bytes | None:
    return None


def _us(seconds: float, events: int) -> str:
    return f"{seconds / events * 1e6:.2f}"


def _best(rounds: int, work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)


if __name__ == "__main__":
    main()
