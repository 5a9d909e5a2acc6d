"""Checks that a meter worker counted exactly: what its journal says against what was produced."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from benchmarks.engines import PARTITIONS, Broker
from benchmarks.workload import Windows, Workload
from core.journal import JournalEntry
from streams.adapters.kafka_journal import read_journal

_SHOWN = 5


class NotExactError(Exception):
    """The journal does not say what was produced; its text names the differences."""


def check(broker: Broker, workload: Workload) -> None:
    """Raise `NotExactError` unless every event was counted once, in its window, and nothing else was."""
    found = asyncio.run(_read(broker))
    faults = find_faults(found, workload)
    if faults:
        raise NotExactError("\n".join(faults))


def find_faults(partitions: Iterable[list[JournalEntry]], workload: Workload) -> list[str]:
    """Compare the entries of all partitions, in journal order, with the workload; an empty list means exact."""
    faults = []
    accepted = duplicates = rejected = 0
    segments: dict[tuple[str, str, tuple[str, ...], int, int, int], tuple[int, int]] = {}
    for partition, entries in enumerate(partitions):
        last = -1
        for entry in entries:
            if entry.previous_last != last:
                faults.append(f"partition {partition}: an entry follows offset {entry.previous_last}, expected {last}")
            last = entry.last
            accepted += entry.accepted
            duplicates += entry.duplicates
            rejected += entry.rejected
            for row in entry.windows:
                key = (row.tenant, row.meter, row.dimensions, row.start, row.segment, partition)
                segments[key] = (int(row.quantity), row.events)
    if (accepted, duplicates, rejected) != (workload.distinct, workload.duplicates, 0):
        faults.append(
            f"{accepted} accepted, {duplicates} duplicates, {rejected} rejected; expected {workload.distinct},"
            f" {workload.duplicates}, 0"
        )
    windows: Windows = {}
    for segment, (quantity, events) in segments.items():
        cell = windows.setdefault(segment[:4], [0, 0])
        cell[0] += quantity
        cell[1] += events
    expected = workload.expected
    differing = [window for window in windows.keys() | expected if windows.get(window) != expected.get(window)]
    if differing:
        faults.append(f"{len(differing)} windows differ")
        for window in sorted(differing)[:_SHOWN]:
            faults.append(f"  {window}: counted {windows.get(window)}, expected {expected.get(window)}")
    return faults


async def _read(broker: Broker) -> list[list[JournalEntry]]:
    return [[entry async for _, entry in read_journal(broker.bootstrap, partition)] for partition in range(PARTITIONS)]
