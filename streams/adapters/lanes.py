"""One lane per assigned partition: batches of a partition are handled in order, partitions beside each other.

While one partition waits for its transaction or its store, others use the processor. A lane that fails ends the
process: its state is then in doubt, and the log is the only thing to start from (crash-only).
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import structlog

log = structlog.get_logger()
EXIT_IN_DOUBT = 70
_QUEUED_BATCHES = 4
_CLOSE_SECONDS = 10.0


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


class _RunningLane:
    def __init__(self, lane: Lane, partition: int) -> None:
        self._lane = lane
        self._partition = partition
        self._batches: asyncio.Queue[list[Any] | None] = asyncio.Queue(_QUEUED_BATCHES)
        self._task = asyncio.create_task(self._run(), name=f"lane-{partition}")

    async def put(self, records: list[Any]) -> None:
        await self._batches.put(records)

    async def close(self) -> None:
        """Let the batch in hand finish, drop what waits (it will be read again), and give the partition up."""
        while not self._batches.empty():
            self._batches.get_nowait()
        self._batches.put_nowait(None)
        try:
            await asyncio.wait_for(self._task, _CLOSE_SECONDS)
        except TimeoutError:
            log.error("lane.close_timed_out", partition=self._partition)

    async def _run(self) -> None:
        try:
            await self._lane.open()
            while (records := await self._batches.get()) is not None:
                while not self._batches.empty():
                    more = self._batches.get_nowait()
                    if more is None:
                        self._batches.put_nowait(None)
                        break
                    records = records + more
                await self._lane.handle(records)
            await self._lane.close()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            log.critical("lane.failed", partition=self._partition, error=repr(error))
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()
            # Not sys.exit: nothing may run any more, above all no second attempt at a commit in doubt.
            os._exit(EXIT_IN_DOUBT)


class Lanes:
    """Routes batches to the lanes of the partitions that are assigned now."""

    def __init__(self, make_lane: Callable[[int], Lane]) -> None:
        self._make_lane = make_lane
        self._running: dict[int, _RunningLane] = {}
        self._closed = False

    async def put(self, partition: int, records: list[Any]) -> None:
        """Hand a batch to its partition's lane, opening it first if needed; waits while the lane is full."""
        if self._closed:
            return
        await self._lane(partition).put(records)

    async def assign(self, partitions: set[int]) -> None:
        """Open lanes for the partitions that are ours now and close the others; those kept keep their state.

        Keeping is safe: had another worker owned a partition in between, it would have fenced our producer, and our
        next transaction would fail.
        """
        gone = [partition for partition in self._running if partition not in partitions]
        await asyncio.gather(*(self._running.pop(partition).close() for partition in gone))
        for partition in sorted(partitions):
            self._lane(partition)

    async def close(self) -> None:
        """Close all lanes; batches that come later are dropped."""
        self._closed = True
        await self.assign(set())

    def _lane(self, partition: int) -> _RunningLane:
        running = self._running.get(partition)
        if running is None:
            running = self._running[partition] = _RunningLane(self._make_lane(partition), partition)
        return running
