"""Lanes: order within a partition, no hole, partitions beside each other, an orderly hand-over, and a loud end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.adapters import lanes as module
from streams.adapters.lanes import EXIT_IN_DOUBT, Batch, Lanes


@dataclass(frozen=True)
class Record:
    """A record with nothing but its place."""

    offset: int


class Reader:
    """The topic as a lane's reader sees it; tells where it was sent back to."""

    def __init__(self) -> None:
        self.committed_at: dict[int, int] = defaultdict(int)
        self.first_at: dict[int, int] = defaultdict(int)
        self.fetched: dict[int, int] = {}
        self.sent_back: list[tuple[int, int]] = []

    async def committed(self, partition: int) -> int:
        return self.committed_at[partition]

    async def first(self, partition: int) -> int:
        return self.first_at[partition]

    async def fetched_up_to(self, partition: int) -> int | None:
        return self.fetched.get(partition)

    async def read_from(self, partition: int, offset: int) -> None:
        self.sent_back.append((partition, offset))
        self.fetched[partition] = offset


class Tape:
    """A lane that writes down what happens to it; `gate` holds a batch in hand, `opened` the opening."""

    def __init__(self, partition: int, story: list[Any]) -> None:
        self.partition, self.story = partition, story
        self.gate, self.ready = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.ready.set()

    async def open(self) -> None:
        self.story.append((self.partition, "open"))
        await self.ready.wait()

    async def handle(self, records: list[Any]) -> None:
        self.story.append((self.partition, "begin", *records))
        await self.gate.wait()
        self.story.append((self.partition, "done", *records))

    async def close(self) -> None:
        self.story.append((self.partition, "close"))


class Stage:
    """Lanes of `Tape`s and what they wrote."""

    def __init__(self) -> None:
        self.story: list[Any] = []
        self.tapes: dict[int, list[Tape]] = {}
        self.prepare: Callable[[Tape], None] = lambda tape: None
        self.reader = Reader()
        self.lanes = Lanes(self._make, self.reader)
        self._end: dict[int, int] = defaultdict(int)

    def _make(self, partition: int) -> Tape:
        tape = Tape(partition, self.story)
        self.prepare(tape)
        self.tapes.setdefault(partition, []).append(tape)
        return tape

    def put(self, partition: int, *records: Any) -> None:
        """Hand over the next batch of a partition."""
        start = self._end[partition]
        self._end[partition] = start + len(records)
        self.lanes.put(partition, Batch(records, start, self._end[partition]))

    def fetch(self, start: int, end: int, *, holding: set[int] | None = None) -> None:
        """Hand over the batch of partition 0 that covers [start, end): a record at each offset, or where `holding`."""
        found = [Record(offset) for offset in range(start, end) if holding is None or offset in holding]
        self.lanes.put(0, Batch(found, start, end))

    def handled(self) -> list[int]:
        """Return the offsets that partition 0 handled."""
        return [record.offset for step in self.of(0, "done") for record in step[1:]]

    async def settle(self) -> None:
        """Let everything that can run, run."""
        for _ in range(50):
            await asyncio.sleep(0)

    def of(self, partition: int, *kinds: str) -> list[Any]:
        return [step[1:] for step in self.story if step[0] == partition and (not kinds or step[1] in kinds)]

    async def until(self, *step: Any) -> None:
        async with asyncio.timeout(5):
            while step not in self.story:
                await asyncio.sleep(0)


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_records_of_a_partition_are_handled_in_order_one_batch_at_a_time(stage: Stage) -> None:
    await stage.lanes.assign({0})
    for number in range(20):
        stage.put(0, number)
    await stage.until(0, "open")
    while not any(19 in step for step in stage.of(0, "done")):
        await asyncio.sleep(0)
    assert [record for step in stage.of(0, "done") for record in step[1:]] == list(range(20))
    kinds = [step[0] for step in stage.of(0, "begin", "done")]
    assert kinds == ["begin", "done"] * (len(kinds) // 2)


async def test_batches_that_wait_are_handled_together(stage: Stage) -> None:
    stage.prepare = lambda tape: tape.ready.clear()
    await stage.lanes.assign({0})
    for number in range(3):
        stage.put(0, number)
    stage.tapes[0][0].ready.set()
    await stage.until(0, "done", 0, 1, 2)
    assert [step[1:] for step in stage.of(0, "done")] == [(0, 1, 2)]


async def test_a_slow_partition_does_not_hold_the_others_up(stage: Stage) -> None:
    await stage.lanes.assign({0, 1})
    stage.tapes[0][0].gate.clear()
    stage.put(0, "slow")
    stage.put(1, "quick")
    await stage.until(1, "done", "quick")
    assert stage.of(0, "done") == []


async def test_only_a_lane_that_is_behind_says_that_it_is_full(stage: Stage) -> None:
    await stage.lanes.assign({0, 1})
    stage.tapes[0][0].gate.clear()
    stage.put(0, "in hand")
    await stage.until(0, "begin", "in hand")
    for number in range(4):
        assert not stage.lanes.is_full(0)
        stage.put(0, number)
    assert [stage.lanes.is_full(partition) for partition in (0, 1, 2)] == [True, False, False]
    stage.tapes[0][0].gate.set()
    await stage.until(0, "done", 0, 1, 2, 3)
    assert not stage.lanes.is_full(0)


async def test_before_a_rebalance_the_batch_in_hand_ends_and_no_other_begins(stage: Stage) -> None:
    await stage.lanes.assign({0})
    tape = stage.tapes[0][0]
    tape.gate.clear()
    stage.put(0, "a")
    await stage.until(0, "begin", "a")
    stage.put(0, "b")
    pausing = asyncio.create_task(stage.lanes.pause())
    await asyncio.sleep(0)
    assert not pausing.done()
    tape.gate.set()
    await pausing
    stage.put(0, "c")
    await stage.settle()
    assert stage.of(0, "begin", "done") == [("begin", "a"), ("done", "a")]
    # What waited keeps its place in a lane that stays: were it dropped, later records would leave a gap.
    await stage.lanes.assign({0})
    await stage.until(0, "done", "b", "c")
    assert len(stage.tapes[0]) == 1


async def test_a_partition_that_goes_is_closed_and_one_that_comes_back_opens_anew(stage: Stage) -> None:
    await stage.lanes.assign({0, 1})
    await stage.until(1, "open")
    await stage.lanes.pause()
    stage.put(1, "never")
    await stage.lanes.assign({0})
    assert stage.of(1) == [("open",), ("close",)]
    assert stage.of(0, "close") == []
    await stage.lanes.assign({0, 1})
    # What was dropped with the lane comes again, from the committed offset.
    stage.lanes.put(1, Batch(["again"], 0, 1))
    await stage.until(1, "done", "again")
    assert stage.of(1) == [("open",), ("close",), ("open",), ("begin", "again"), ("done", "again")]


async def test_a_lane_that_is_still_opening_closes_at_once(stage: Stage) -> None:
    stage.prepare = lambda tape: tape.ready.clear()
    await stage.lanes.assign({0})
    await stage.until(0, "open")
    await asyncio.wait_for(stage.lanes.close(), 5)
    assert stage.of(0) == [("open",), ("close",)]
    stage.put(0, "too late")
    assert stage.of(0) == [("open",), ("close",)]


async def test_a_lane_that_hangs_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.05)
    await stage.lanes.assign({0})
    stage.tapes[0][0].gate.clear()
    stage.put(0, "hangs")
    await stage.until(0, "begin", "hangs")
    await asyncio.wait_for(stage.lanes.close(), 5)
    assert stage.of(0) == [("open",), ("begin", "hangs"), ("close",)]


async def test_a_batch_that_does_not_follow_sends_the_reader_back_and_nothing_is_handled_out_of_turn(
    stage: Stage,
) -> None:
    await stage.lanes.assign({0})
    stage.fetch(0, 3)
    await stage.until(0, "done", *map(Record, range(3)))
    stage.fetch(5, 8)  # of 3 and 4 nothing was heard
    await stage.settle()
    assert stage.reader.sent_back == [(0, 3)]
    stage.fetch(3, 8)
    await stage.settle()
    assert stage.handled() == list(range(8))


async def test_offsets_without_records_are_no_hole(stage: Stage) -> None:
    await stage.lanes.assign({0})
    stage.fetch(0, 5, holding={0, 2})  # transactions end at 1, 3 and 4
    stage.fetch(5, 9, holding={7})
    await stage.settle()
    assert stage.handled() == [0, 2, 7]
    assert stage.reader.sent_back == []


async def test_what_comes_again_is_handled_once(stage: Stage) -> None:
    await stage.lanes.assign({0})
    stage.fetch(0, 4)
    stage.fetch(0, 4)
    stage.fetch(2, 6)
    await stage.settle()
    assert stage.handled() == list(range(6))


async def test_a_lane_begins_at_the_committed_offset_and_misses_what_was_dropped_before_its_first_batch(
    stage: Stage,
) -> None:
    stage.reader.committed_at[0] = 10
    await stage.lanes.assign({0})
    stage.fetch(12, 14)
    await stage.settle()
    assert stage.reader.sent_back == [(0, 10)]
    stage.fetch(8, 14)
    await stage.settle()
    assert stage.handled() == [10, 11, 12, 13]


async def test_what_was_dropped_last_is_noticed_by_the_second_look(stage: Stage) -> None:
    await stage.lanes.assign({0})
    stage.fetch(0, 3)
    await stage.settle()
    stage.reader.fetched[0] = 6  # 3 to 5 were dropped, and nothing comes behind them
    await stage.lanes.look_back()
    assert stage.reader.sent_back == []  # they may be on their way
    await stage.lanes.look_back()
    assert stage.reader.sent_back == [(0, 3)]
    await stage.lanes.look_back()
    await stage.lanes.look_back()
    assert stage.reader.sent_back == [(0, 3)]


async def test_a_lane_that_is_busy_is_not_taken_for_one_that_was_left_behind(stage: Stage) -> None:
    await stage.lanes.assign({0})
    stage.tapes[0][0].gate.clear()
    stage.fetch(0, 3)
    stage.fetch(3, 6)
    await stage.until(0, "begin", *map(Record, range(6)))
    stage.fetch(6, 9)
    stage.reader.fetched[0] = 9
    for _ in range(4):
        await stage.lanes.look_back()
    assert stage.reader.sent_back == []


async def test_a_partition_that_was_anothers_meanwhile_begins_anew(stage: Stage) -> None:
    await stage.lanes.assign({0})
    stage.fetch(0, 3)
    await stage.settle()
    await stage.lanes.pause()
    stage.fetch(3, 5)  # still of the old assignment
    stage.reader.committed_at[0] = 7
    await stage.lanes.assign({0})
    await stage.settle()
    stage.fetch(7, 9)
    await stage.settle()
    assert [step[0] for step in stage.of(0)] == ["open", "begin", "done", "close", "open", "begin", "done"]
    assert stage.handled() == [0, 1, 2, 7, 8]


async def test_what_the_topic_gave_up_unread_is_told_and_not_waited_for(stage: Stage) -> None:
    before = module.EXPIRED.labels(0)._value.get()
    stage.reader.committed_at[0], stage.reader.first_at[0] = 10, 20
    await stage.lanes.assign({0})
    stage.fetch(20, 22)
    await stage.settle()
    assert stage.handled() == [20, 21]
    assert stage.reader.sent_back == []
    assert module.EXPIRED.labels(0)._value.get() - before == 10


@given(
    losses=st.lists(st.booleans(), max_size=40),
    cuts=st.lists(st.integers(1, 7), min_size=1, max_size=40),
    gaps=st.sets(st.integers(0, 59)),
    rebalances=st.sets(st.integers(0, 39)),
)
def test_whatever_is_dropped_on_its_way_every_record_is_handled_once_and_in_order(
    losses: list[bool], cuts: list[int], gaps: set[int], rebalances: set[int]
) -> None:
    end, holding = 60, set(range(60)) - gaps

    async def run() -> None:
        stage = Stage()
        await stage.lanes.assign({0})
        position, turn = 0, 0
        while len(stage.handled()) < len(holding):
            start, position = position, min(end, position + cuts[turn % len(cuts)])
            stage.reader.fetched[0] = position
            if turn >= len(losses) or not losses[turn]:
                stage.fetch(start, position, holding=holding)
            await stage.settle()
            if turn in rebalances:
                await stage.lanes.pause()
                handled = stage.handled()
                stage.reader.committed_at[0] = position = handled[-1] + 1 if handled else 0
                await stage.lanes.assign({0})
                await stage.settle()
            if stage.reader.sent_back:
                position = stage.reader.sent_back.pop()[1]
            elif position == end:
                await stage.lanes.look_back()
                await stage.lanes.look_back()
                await stage.settle()
                position = stage.reader.sent_back.pop()[1] if stage.reader.sent_back else end
            turn += 1
            assert turn < 1_000
        assert stage.handled() == sorted(holding)
        await stage.lanes.close()

    asyncio.run(run())


_FAILING = """
import asyncio, sys
from streams.adapters.lanes import Batch, Lanes

class Reader:
    async def committed(self, partition):
        return 0

class Failing:
    async def open(self):
        if sys.argv[1] == "open": raise ValueError("cannot open")
    async def handle(self, records):
        raise ValueError("cannot handle")
    async def close(self):
        print("closed")

class Good(Failing):
    async def open(self): pass
    async def handle(self, records):
        await asyncio.sleep(0.2)
        print("went on")

async def main():
    lanes = Lanes(lambda partition: Good() if partition else Failing(), Reader())
    await lanes.assign({0, 1})
    lanes.put(1, Batch([1], 0, 1))
    lanes.put(0, Batch([1], 0, 1))
    await asyncio.sleep(10)
    print("survived")

asyncio.run(main())
"""


@pytest.mark.parametrize("where", ["open", "handle"])
def test_a_lane_that_fails_ends_the_process_with_its_reason_and_nothing_runs_after(where: str) -> None:
    ended = subprocess.run([sys.executable, "-c", _FAILING, where], capture_output=True, text=True, timeout=60)
    assert ended.returncode == EXIT_IN_DOUBT == 70
    assert f"ValueError: cannot {where}" in ended.stderr
    assert "lane.failed" in ended.stdout + ended.stderr
    assert not {"went on", "survived", "closed"} & set(ended.stdout.splitlines())
