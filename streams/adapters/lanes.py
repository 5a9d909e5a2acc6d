"""One lane per assigned partition: batches of a partition are handled in order, partitions beside each other.

While one partition waits for its transaction or its store, others use the processor. A lane that fails ends the
process: its state is then in doubt, and the log is the only thing to start from (crash-only).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import structlog

log = structlog.get_logger()
EXIT_IN_DOUBT = 70
_QUEUED_BATCHES = 4
# Less than the ten seconds that operators give a process to end.
_CLOSE_SECONDS = 4.0


class Lane(Protocol):
    """What happens to the records of one partition."""

    async def open(self) -> None:
        """Take the partition over; runs before the first records."""
        ...

    async def handle(self, records: list[Any]) -> None:
        """Handle records in offset order; returns when their effects are safe."""
        ...

    async def close(self) -> None:
        """Give the partition up."""
        ...


def end_process_if_failed(task: asyncio.Task[None]) -> None:
    """End the process with `EXIT_IN_DOUBT` if the task ended by an error; for `Task.add_done_callback`."""
    if task.cancelled() or (error := task.exception()) is None:
        return
    log.critical("lane.failed", lane=task.get_name(), error=repr(error))
    traceback.print_exception(error, file=sys.stderr)
    sys.stderr.flush()
    # Not sys.exit: nothing may run any more, above all no second attempt at a commit in doubt.
    os._exit(EXIT_IN_DOUBT)


class _RunningLane:
    def __init__(self, lane: Lane, partition: int) -> None:
        self._lane = lane
        self._partition = partition
        self._batches: asyncio.Queue[list[Any]] = asyncio.Queue()
        self._may_begin, self._idle = asyncio.Event(), asyncio.Event()
        self._may_begin.set()
        self._idle.set()
        self._task = asyncio.create_task(self._run(), name=f"lane-{partition}")
        self._task.add_done_callback(end_process_if_failed)

    def put(self, records: list[Any]) -> None:
        self._batches.put_nowait(records)

    @property
    def is_full(self) -> bool:
        """Whether enough waits that no more should be fetched."""
        return self._batches.qsize() >= _QUEUED_BATCHES

    async def pause(self) -> None:
        """Let the batch in hand finish and begin no other; what waits keeps its place."""
        self._may_begin.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), _CLOSE_SECONDS)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._may_begin.set()

    async def close(self) -> None:
        """Let the batch in hand finish, drop what waits (it will be read again), and give the partition up."""
        await self.pause()
        if not self._idle.is_set():
            log.error("lane.close_timed_out", partition=self._partition)
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=1)
        try:
            await asyncio.wait_for(self._lane.close(), _CLOSE_SECONDS)
        except Exception as error:
            # Nothing is open between batches, so nothing is lost by a partition that was not given up in order.
            log.warning("lane.not_closed", partition=self._partition, error=repr(error))

    async def _run(self) -> None:
        await self._lane.open()
        while True:
            records = await self._next()
            await self._lane.handle(records)
            self._idle.set()

    async def _next(self) -> list[Any]:
        """Return all that waits, as soon as there is something and it may begin."""
        records = await self._batches.get()
        while not self._may_begin.is_set():
            await self._may_begin.wait()
        self._idle.clear()
        while not self._batches.empty():
            records = records + self._batches.get_nowait()
        return records


class Lanes:
    """Routes batches to the lanes of the partitions that are assigned now."""

    def __init__(self, make_lane: Callable[[int], Lane]) -> None:
        self._make_lane = make_lane
        self._running: dict[int, _RunningLane] = {}
        self._closed = False

    def put(self, partition: int, records: list[Any]) -> None:
        """Hand a batch to its partition's lane, opening it first if needed."""
        if not self._closed:
            self._lane(partition).put(records)

    def is_full(self, partition: int) -> bool:
        """Say whether a partition's lane is behind, so that nothing more should be fetched for it.

        Only for it: a partition that waits for its store must not hold up the others.
        """
        running = self._running.get(partition)
        return running is not None and running.is_full

    async def pause(self) -> None:
        """Before a rebalance: let every batch in hand finish, begin no other until `assign`.

        A batch that were still in hand when another worker takes its partition over would find itself fenced, and end
        this process for no reason.
        """
        await asyncio.gather(*(running.pause() for running in self._running.values()))

    async def assign(self, partitions: set[int]) -> None:
        """Open lanes for the partitions that are ours now and close the others; those kept keep their state.

        Keeping is safe: had another worker owned a partition in between, it would have fenced our producer, and our
        next transaction would fail.
        """
        gone = [partition for partition in self._running if partition not in partitions]
        await asyncio.gather(*(self._running.pop(partition).close() for partition in gone))
        for partition in sorted(partitions):
            self._lane(partition).resume()

    async def close(self) -> None:
        """Close all lanes; batches that come later are dropped."""
        self._closed = True
        await self.assign(set())

    def _lane(self, partition: int) -> _RunningLane:
        running = self._running.get(partition)
        if running is None:
            running = self._running[partition] = _RunningLane(self._make_lane(partition), partition)
        return running
