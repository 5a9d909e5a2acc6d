"""Lanes: order within a partition, partitions beside each other, an orderly hand-over, and a loud end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from streams.adapters import lanes as module
from streams.adapters.lanes import EXIT_IN_DOUBT, Lanes


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
        self.lanes = Lanes(self._make)

    def _make(self, partition: int) -> Tape:
        tape = Tape(partition, self.story)
        self.prepare(tape)
        self.tapes.setdefault(partition, []).append(tape)
        return tape

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
        stage.lanes.put(0, [number])
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
        stage.lanes.put(0, [number])
    stage.tapes[0][0].ready.set()
    await stage.until(0, "done", 0, 1, 2)
    assert [step[1:] for step in stage.of(0, "done")] == [(0, 1, 2)]


async def test_a_slow_partition_does_not_hold_the_others_up(stage: Stage) -> None:
    await stage.lanes.assign({0, 1})
    stage.tapes[0][0].gate.clear()
    stage.lanes.put(0, ["slow"])
    stage.lanes.put(1, ["quick"])
    await stage.until(1, "done", "quick")
    assert stage.of(0, "done") == []


async def test_only_a_lane_that_is_behind_says_that_it_is_full(stage: Stage) -> None:
    await stage.lanes.assign({0, 1})
    stage.tapes[0][0].gate.clear()
    stage.lanes.put(0, ["in hand"])
    await stage.until(0, "begin", "in hand")
    for number in range(4):
        assert not stage.lanes.is_full(0)
        stage.lanes.put(0, [number])
    assert [stage.lanes.is_full(partition) for partition in (0, 1, 2)] == [True, False, False]
    stage.tapes[0][0].gate.set()
    await stage.until(0, "done", 0, 1, 2, 3)
    assert not stage.lanes.is_full(0)


async def test_before_a_rebalance_the_batch_in_hand_ends_and_no_other_begins(stage: Stage) -> None:
    await stage.lanes.assign({0})
    tape = stage.tapes[0][0]
    tape.gate.clear()
    stage.lanes.put(0, ["a"])
    await stage.until(0, "begin", "a")
    stage.lanes.put(0, ["b"])
    pausing = asyncio.create_task(stage.lanes.pause())
    await asyncio.sleep(0)
    assert not pausing.done()
    tape.gate.set()
    await pausing
    stage.lanes.put(0, ["c"])
    for _ in range(50):
        await asyncio.sleep(0)
    assert stage.of(0, "begin", "done") == [("begin", "a"), ("done", "a")]
    # What waited keeps its place in a lane that stays: were it dropped, later records would leave a gap.
    await stage.lanes.assign({0})
    await stage.until(0, "done", "b", "c")
    assert len(stage.tapes[0]) == 1


async def test_a_partition_that_goes_is_closed_and_one_that_comes_back_opens_anew(stage: Stage) -> None:
    await stage.lanes.assign({0, 1})
    await stage.until(1, "open")
    await stage.lanes.pause()
    stage.lanes.put(1, ["never"])
    await stage.lanes.assign({0})
    assert stage.of(1) == [("open",), ("close",)]
    assert stage.of(0, "close") == []
    await stage.lanes.assign({0, 1})
    stage.lanes.put(1, ["again"])
    await stage.until(1, "done", "again")
    assert stage.of(1) == [("open",), ("close",), ("open",), ("begin", "again"), ("done", "again")]


async def test_a_lane_that_is_still_opening_closes_at_once(stage: Stage) -> None:
    stage.prepare = lambda tape: tape.ready.clear()
    await stage.lanes.assign({0})
    await stage.until(0, "open")
    await asyncio.wait_for(stage.lanes.close(), 5)
    assert stage.of(0) == [("open",), ("close",)]
    stage.lanes.put(0, ["too late"])
    assert stage.of(0) == [("open",), ("close",)]


async def test_a_lane_that_hangs_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.05)
    await stage.lanes.assign({0})
    stage.tapes[0][0].gate.clear()
    stage.lanes.put(0, ["hangs"])
    await stage.until(0, "begin", "hangs")
    await asyncio.wait_for(stage.lanes.close(), 5)
    assert stage.of(0) == [("open",), ("begin", "hangs"), ("close",)]


_FAILING = """
import asyncio, sys
from streams.adapters.lanes import Lanes

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
    lanes = Lanes(lambda partition: Good() if partition else Failing())
    await lanes.assign({0, 1})
    lanes.put(1, [1])
    lanes.put(0, [1])
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
