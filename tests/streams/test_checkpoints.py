"""A partition that goes on from its disk counts as one that read the whole journal, whatever of the disk is left."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from core.journal import JournalEntry, decode_entry, encode_entry
from core.meters import Meter, Registry
from core.usage_event import IngestLimits
from runtime.registry import LoadedRegistry
from streams.adapters.identity_store.store import DiskIdentities
from streams.adapters.sqlite_samples import SqliteSamples
from streams.domain.meter_partition import MeterPartition, MicroBatch
from streams.domain.tally import Originals
from streams.meter_lane import Committed, MeterLane
from tests.streams.in_memory import BASE_MS, Record, cloud_event, count, log_of, partition_in_memory, void

REGISTRY = Registry.of(
    ["acme"],
    [
        Meter("tokens", "token", "llm", "sum", "tokens", ("model",)),
        Meter("peak", "token", "llm", "max", "tokens"),
        Meter("users", "user", "llm", "unique", "user"),
    ],
)


WIDE = IngestLimits(max_age_us=100 * 86_400_000_000)


class Journal:
    """The journal of a partition; outlives its owners."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.entries_read = 0

    async def take_over(self) -> None: ...

    async def entries(self, first: int) -> Any:
        for offset in range(first, len(self.raw)):
            self.entries_read += 1
            yield offset, self.raw[offset]

    async def entry_at(self, offset: int) -> bytes | None:
        return self.raw[offset] if offset < len(self.raw) else None

    async def commit(self, batch: MicroBatch) -> Committed:
        self.raw.append(encode_entry(batch.entry))
        return Committed(len(self.raw) - 1, self.raw[-1])

    async def close(self) -> None: ...


class Cache:
    """A registry that is always fresh."""

    readings = 0

    async def get(self) -> LoadedRegistry:
        return LoadedRegistry(REGISTRY, BASE_MS * 2)


class Log:
    """Originals from the list of all records."""

    def __init__(self, records: list[Record]) -> None:
        self._find = log_of(records)

    async def find(self, targets: Any, registry: Registry) -> Originals:
        return self._find(targets, registry)

    async def close(self) -> None: ...


def traffic(seed: int) -> list[Record]:
    """Return usage with duplicates and voids, spread over some windows and months."""
    rng = random.Random(seed)
    values = []
    for number in range(3_000):
        name = f"e{rng.randrange(2_500)}"
        if number > 500 and rng.random() < 0.05:
            values.append(void(f"v{number}", name))
            continue
        data = {"tokens": rng.randrange(1_000), "model": rng.choice("mn"), "user": f"u{rng.randrange(400)}"}
        time = f"2023-{rng.choice(['10', '11'])}-16T18:{rng.randrange(20):02}:30Z"
        values.append(cloud_event(name, "llm", data, time=time))
    return [Record(offset, BASE_MS + offset, b"acme", value) for offset, value in enumerate(values)]


def lane(folder: Path, journal: Journal, records: list[Record]) -> MeterLane:
    folder.mkdir(exist_ok=True)
    state = MeterPartition(
        0,
        topic="usage.events",
        owner="w",
        partition_of=lambda _: 0,
        horizon_days=35,
        identities=DiskIdentities(folder / "identities", recent_max=400, lock_wait_seconds=0.0),
        samples=SqliteSamples(folder / "samples.db"),
    )
    return MeterLane(state, journal, Log(records), Cache(), WIDE, pause_s=0.0, events_max=150)  # type: ignore[arg-type]


def totals(entries: list[JournalEntry]) -> dict[Any, tuple[int, int]]:
    newest: dict[Any, tuple[str, int]] = {}
    for entry in entries:
        for row in entry.windows:
            newest[row.meter, row.dimensions, row.start, row.segment] = row.quantity, row.events
        for period in entry.periods:
            newest[period.meter, period.period, "live", period.segment] = period.quantity, period.events
    summed: dict[Any, tuple[int, int]] = {}
    for key, (quantity, events) in newest.items():
        before = summed.get(key[:3], (0, 0))
        summed[key[:3]] = before[0] + int(quantity), before[1] + events
    return {key: total for key, total in summed.items() if total[1]}


def decoded(journal: Journal) -> list[JournalEntry]:
    return [decode_entry(raw) for raw in journal.raw]


@pytest.mark.parametrize("lost", ["nothing", "identities", "samples", "everything"])
async def test_restarts_change_nothing_whatever_is_left_of_the_disk(tmp_path: Path, lost: str) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    records, journal, rng = traffic(seed), Journal(), random.Random(seed)
    position = 0
    while position < len(records):
        worker = lane(tmp_path / "state", journal, records)
        await worker.open()
        for _ in range(rng.randrange(1, 8)):
            # What was counted before may be fetched again.
            begin = max(0, position - rng.randrange(50))
            await worker.handle(list(records[begin : position + 150]))
            position = min(len(records), position + 150)
        await worker.close()
        for name, part in [("identities", "identities"), ("samples", "samples.db")]:
            if lost in (name, "everything") and rng.random() < 0.5:
                target = tmp_path / "state" / part
                shutil.rmtree(target) if target.is_dir() else target.unlink()
    straight = partition_in_memory()
    whole = [
        count(straight, records[start : start + 150], REGISTRY, log_of(records), WIDE).entry
        for start in range(0, len(records), 150)
    ]
    assert totals(decoded(journal)) == totals(whole)
    for name in ("accepted", "duplicates", "rejected"):
        found = sum(getattr(entry, name) for entry in decoded(journal))
        assert found == sum(getattr(entry, name) for entry in whole), name


async def test_a_checkpoint_spares_the_reading_of_what_it_covers(tmp_path: Path) -> None:
    records, journal = traffic(1), Journal()
    worker = lane(tmp_path / "state", journal, records)
    await worker.open()
    for start in range(0, len(records), 150):
        await worker.handle(records[start : start + 150])
        if worker._checkpoint is not None:
            await worker._checkpoint
    await worker.close()
    in_order = lane(tmp_path / "state", journal, records)
    journal.entries_read = 0
    await in_order.open()
    assert journal.entries_read == 0
    await in_order.close()


async def test_a_killed_workers_checkpoint_spares_most_of_the_reading(tmp_path: Path) -> None:
    records, journal = traffic(1), Journal()
    worker = lane(tmp_path / "state", journal, records)
    await worker.open()
    for start in range(0, len(records), 150):
        await worker.handle(records[start : start + 150])
        if worker._checkpoint is not None:
            await worker._checkpoint
    # As kill -9 leaves it: nobody closed anything.
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    successor = lane(tmp_path / "copy", journal, records)
    journal.entries_read = 0
    await successor.open()
    assert 0 < journal.entries_read < len(journal.raw) // 2
    assert len(successor._state) == len(worker._state)
    await successor.close()
    await worker.close()


async def test_a_lost_disk_is_filled_again_while_the_journal_is_read(tmp_path: Path) -> None:
    records, journal = traffic(1), Journal()
    worker = lane(tmp_path / "lost", journal, records)
    await worker.open()
    for start in range(0, len(records), 150):
        await worker.handle(records[start : start + 150])
    await worker.close()
    reader = lane(tmp_path / "new", journal, records)
    await reader.open()
    # Without closing: what was read is on disk already.
    shutil.copytree(tmp_path / "new", tmp_path / "copy")
    journal.entries_read = 0
    successor = lane(tmp_path / "copy", journal, records)
    await successor.open()
    assert journal.entries_read < len(journal.raw) // 2
    assert len(successor._state) == len(reader._state) > 1_000
    await successor.close()
    await reader.close()


async def test_the_disk_of_another_journal_is_not_believed(tmp_path: Path) -> None:
    records, journal = traffic(1), Journal()
    worker = lane(tmp_path / "state", journal, records)
    await worker.open()
    for start in range(0, len(records), 150):
        await worker.handle(records[start : start + 150])
    await worker.close()
    other = Journal()
    newcomer = lane(tmp_path / "state", other, records)
    await newcomer.open()
    await newcomer.handle(records[:150])
    await newcomer.close()
    fresh = count(partition_in_memory(), records[:150], REGISTRY, limits=WIDE).entry
    assert totals(decoded(other)) == totals([fresh])
    assert decoded(other)[0].duplicates == fresh.duplicates
