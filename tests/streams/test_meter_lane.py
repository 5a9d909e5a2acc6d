"""The meter worker's lane with everything around it in memory: taking over, judging by a fresh registry, cutting."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from core.errors import BrokenInvariantError
from core.journal import JournalEntry, encode_entry
from core.meters import Meter, Registry
from core.usage_event import IngestLimits
from runtime.registry import LoadedRegistry
from streams import meter_lane
from streams.domain.meter_partition import MicroBatch
from streams.domain.tally import OFFSETS_AT_ONCE, Originals, Target
from streams.meter_lane import Committed, MeterLane
from tests.streams.in_memory import BASE_MS, Record, log_of, partition_in_memory, void

METER = Meter("tokens", "token", "llm", "sum", "tokens", ("model",))


class MemoryJournal:
    """What was committed, and in which order the lane called."""

    def __init__(self, *earlier: JournalEntry) -> None:
        self.batches: list[MicroBatch] = []
        self.calls: list[str] = []
        self._earlier = earlier
        self.fails = False

    async def take_over(self) -> None:
        self.calls.append("take_over")

    async def entries(self, first: int) -> AsyncIterator[tuple[int, bytes]]:
        self.calls.append("entries")
        for offset, entry in enumerate(self._earlier):
            if offset >= first:
                yield offset, encode_entry(entry)

    async def entry_at(self, offset: int) -> bytes | None:
        return encode_entry(self._earlier[offset]) if offset < len(self._earlier) else None

    async def commit(self, batch: MicroBatch) -> Committed:
        if self.fails:
            raise RuntimeError("in doubt")
        self.calls.append("commit")
        self.batches.append(batch)
        return Committed(len(self._earlier) + len(self.batches) - 1, encode_entry(batch.entry))

    async def close(self) -> None:
        self.calls.append("close")


class MemoryRegistry:
    """A registry that learns tenants when it is read anew."""

    def __init__(self, *tenants: str, newer: tuple[str, ...] = (), reads_again: bool = False) -> None:
        # A clock ahead of the broker's must not make an old registry look like one read after the records came.
        ahead_ms = BASE_MS + 600_000
        self.readings = 1
        self._old = LoadedRegistry(Registry.of(tenants, [METER]), ahead_ms, 2 if reads_again else 1)
        self._newer = Registry.of((*tenants, *newer), [METER])
        self.asked: list[int] = []

    async def get(self) -> LoadedRegistry:
        return self._old

    async def newer_than(self, reading: int) -> LoadedRegistry:
        self.asked.append(reading)
        return LoadedRegistry(self._newer, 0, reading + 1)


def event(number: int, tenant: str = "acme", **data: Any) -> bytes:
    return json.dumps(
        {
            "specversion": "1.0",
            "id": f"e{number}",
            "source": "s",
            "type": "llm",
            "subject": tenant,
            "time": "2023-11-16T18:19:30Z",
            "data": {"tokens": 2, "model": "m", **data},
        }
    ).encode()


def records(*values: bytes | None, first: int = 0) -> list[Record]:
    return [Record(first + number, BASE_MS + number, None, value) for number, value in enumerate(values)]


class MemoryOriginals:
    """Finds originals in a list of records; counts how often it was asked."""

    def __init__(self, log: list[Record]) -> None:
        self.asked: list[int] = []
        self._find = log_of(log)

    async def find(self, targets: Mapping[bytes, Target], registry: Registry) -> Originals:
        self.asked.append(len(targets))
        return self._find(targets, registry)

    async def close(self) -> None: ...


def lane(
    journal: MemoryJournal,
    registry: MemoryRegistry | None = None,
    originals: MemoryOriginals | None = None,
    **changes: Any,
) -> MeterLane:
    settings: dict[str, Any] = {"pause_s": 0.0, "events_max": 1_000, **changes}
    return MeterLane(
        partition_in_memory(),
        journal,
        originals or MemoryOriginals([]),
        registry or MemoryRegistry("acme"),  # type: ignore[arg-type]
        IngestLimits(),
        **settings,
    )


async def test_originals_are_fetched_for_all_corrections_of_a_batch_at_once() -> None:
    log = records(*map(event, range(6)))
    journal, originals = MemoryJournal(), MemoryOriginals(log)
    worker = lane(journal, originals=originals)
    await worker.handle(log)
    await worker.handle(records(void("v1", "e1"), void("v2", "e2"), void("v3", "e1"), first=6))
    assert originals.asked == [2]
    entry = journal.batches[1].entry
    assert (entry.accepted, entry.rejected) == (2, 1)
    assert [(row.quantity, row.events) for row in entry.windows] == [(str(8 * 10**12), 4)]


async def test_a_tenants_first_batch_may_span_more_offsets_than_one_entry_can_name() -> None:
    journal = MemoryJournal()
    far = [Record(offset, BASE_MS, None, event(offset)) for offset in (0, 1, OFFSETS_AT_ONCE, 3 * OFFSETS_AT_ONCE)]
    await lane(journal).handle(far)
    assert [(batch.entry.first, batch.entry.last) for batch in journal.batches] == [
        (0, 1), (OFFSETS_AT_ONCE, OFFSETS_AT_ONCE), (3 * OFFSETS_AT_ONCE, 3 * OFFSETS_AT_ONCE),
    ]  # fmt: skip


async def test_it_fences_before_it_loads_and_counts_on_from_there() -> None:
    first = MemoryJournal()
    await lane(first).handle(records(event(1), event(2)))
    journal = MemoryJournal(*[batch.entry for batch in first.batches])
    second = lane(journal)
    await second.open()
    await second.handle(records(event(1), event(2), event(2), event(3)))
    assert journal.calls == ["take_over", "entries", "commit"]
    [batch] = journal.batches
    assert (batch.entry.previous_last, batch.entry.first, batch.entry.last) == (1, 2, 3)
    assert (batch.entry.accepted, batch.entry.duplicates) == (1, 1)
    [row] = batch.entry.windows
    assert (row.quantity, row.events) == (str(6 * 10**12), 3)


async def test_records_that_were_counted_make_no_transaction() -> None:
    journal = MemoryJournal()
    worker = lane(journal)
    await worker.handle(records(event(1)))
    await worker.handle(records(event(1)))
    assert len(journal.batches) == 1


async def test_a_tenant_younger_than_the_registry_is_looked_up_before_it_is_refused() -> None:
    journal, registry = MemoryJournal(), MemoryRegistry("acme", newer=("young",))
    await lane(journal, registry).handle(records(event(1), event(2, "young"), event(3, "nobody")))
    [batch] = journal.batches
    assert batch.entry.accepted == 2
    assert [letter.code for letter, _ in batch.dead_letters] == ["unknown_tenant"]
    assert registry.asked == [1]


async def test_a_registry_read_after_the_records_came_is_believed() -> None:
    journal, registry = MemoryJournal(), MemoryRegistry("acme", newer=("young",), reads_again=True)
    await lane(journal, registry).handle(records(event(1, "young")))
    assert [letter.code for letter, _ in journal.batches[0].dead_letters] == ["unknown_tenant"]
    assert registry.asked == []


async def test_poison_that_no_registry_could_help_causes_no_reading() -> None:
    registry = MemoryRegistry("acme")
    await lane(MemoryJournal(), registry).handle(records(b"nonsense", None, event(1, tokens=-1)))
    assert registry.asked == []


async def test_records_that_waited_and_were_fetched_again_after_a_rebalance_are_taken_once() -> None:
    journal = MemoryJournal()
    waited = records(event(1), b"poison", event(2), event(3))
    await lane(journal).handle([*waited, *waited[1:3]])
    [batch] = journal.batches
    assert (batch.entry.first, batch.entry.last) == (waited[0].offset, waited[-1].offset)
    assert (batch.entry.accepted, batch.entry.duplicates, len(batch.dead_letters)) == (3, 0, 1)


async def test_many_records_are_cut_into_transactions_of_bounded_length() -> None:
    journal = MemoryJournal()
    await lane(journal, events_max=7).handle(records(*map(event, range(30))))
    assert [batch.entry.accepted for batch in journal.batches] == [7, 7, 7, 7, 2]
    assert [batch.entry.previous_last for batch in journal.batches] == [-1, 6, 13, 20, 27]


async def test_a_transaction_that_would_be_too_heavy_is_cut_until_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter_lane, "WEIGHT_MAX", 2_000)
    journal = MemoryJournal()
    heavy = [event(number, model=f"model-{number}-" + "m" * 100) for number in range(9)]
    await lane(journal).handle(records(*heavy, b"poison", b"p" * 1_500, None))
    assert sum(batch.entry.accepted for batch in journal.batches) == 9
    assert sum(batch.entry.rejected for batch in journal.batches) == 3
    chain = [(batch.entry.previous_last, batch.entry.last) for batch in journal.batches]
    assert [last for _, last in chain][:-1] == [previous for previous, _ in chain][1:]
    assert len(chain) > 4
    assert chain[-1][1] == 11


async def test_a_single_heavy_record_is_counted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter_lane, "WEIGHT_MAX", 10)
    journal = MemoryJournal()
    await lane(journal).handle(records(b"[" + b",".join(map(event, range(50))) + b"]"))
    assert [batch.entry.accepted for batch in journal.batches] == [50]


async def test_small_batches_are_gathered_after_a_commit_and_large_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(meter_lane.asyncio, "sleep", sleep)
    monkeypatch.setattr(meter_lane, "GATHER_BELOW_BYTES", 2 * len(event(1)))
    worker = lane(MemoryJournal(), pause_s=0.2, monotonic=lambda: 100.0)
    await worker.handle(records(event(1)))
    assert slept == []
    await worker.handle(records(event(2), first=1))
    await worker.handle(records(event(3), event(4), event(5), first=2))
    assert slept == [pytest.approx(0.2)]


async def test_a_commit_in_doubt_is_not_tried_again() -> None:
    journal = MemoryJournal()
    journal.fails = True
    with pytest.raises(RuntimeError, match="in doubt"):
        await lane(journal).handle(records(event(1)))
    assert journal.batches == []


async def test_a_forked_journal_stops_the_lane() -> None:
    journal = MemoryJournal()
    await lane(journal, events_max=1).handle(records(event(1), event(2), event(3)))
    entries = [batch.entry for batch in journal.batches]
    with pytest.raises(BrokenInvariantError, match="follows"):
        await lane(MemoryJournal(entries[0], entries[2])).open()
