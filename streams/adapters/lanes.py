"""One lane per assigned partition: batches of a partition are handled in order and without a hole, partitions beside
each other.

While one partition waits for its transaction or its store, others use the processor. A lane that fails ends the
process: its state is then in doubt, and the log is the only thing to start from (crash-only).

Between the fetch and a lane a batch can be dropped: Faust clears its buffers when a rebalance begins, and what it
fetched meanwhile it throws away. So a lane takes a batch only if it begins where the one before it ended, drops what it
had already, and has the reader go back when something is missing (docs/decisions/0028).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog
from prometheus_client import Counter

log = structlog.get_logger()
READ_AGAIN = Counter("meterbook_reads_repeated_total", "Times a hole in what was read was gone back to", ["partition"])
EXPIRED = Counter("meterbook_records_expired_total", "Offsets the topic gave up before they were read", ["partition"])
EXIT_IN_DOUBT = 70
_QUEUED_BATCHES = 4
# Less than the ten seconds that operators give a process to end.
_CLOSE_SECONDS = 4.0


class Batch:
    """Consecutive records of one partition, and the range of offsets [start, end) they are all committed records of."""

    __slots__ = ("end", "records", "start")

    def __init__(self, records: Sequence[Any], start: int, end: int) -> None:
        self.records, self.start, self.end = records, start, end


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


class Reading(Protocol):
    """Port: where the group's work on a partition stands, and from where its records come."""

    async def committed(self, partition: int) -> int:
        """Return the offset the group goes on from: the committed one, or the topic's first if there is none."""
        ...

    async def first(self, partition: int) -> int:
        """Return the first offset that the topic still has."""
        ...

    async def fetched_up_to(self, partition: int) -> int | None:
        """Return the end of the newest batch that was handed out, None if the partition is not read now."""
        ...

    async def read_from(self, partition: int, offset: int) -> None:
        """Let the next batch begin at an offset."""
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
    def __init__(self, make_lane: Callable[[int], Lane], partition: int, reading: Reading) -> None:
        self._make_lane, self._partition, self._reading = make_lane, partition, reading
        self._lane: Lane | None = make_lane(partition)
        # None among them: the partition was assigned again, and may have been another worker's meanwhile.
        self._batches: asyncio.Queue[Batch | None] = asyncio.Queue()
        self._may_begin, self._idle = asyncio.Event(), asyncio.Event()
        self._may_begin.set()
        self._idle.set()
        # Where the next batch begins; -1 until it is known. And where it was when the reader was seen ahead of it.
        self._next_offset, self._left_behind_at = -1, -1
        self._task = asyncio.create_task(self._run(), name=f"lane-{partition}")
        self._task.add_done_callback(end_process_if_failed)

    def put(self, batch: Batch) -> None:
        self._batches.put_nowait(batch)

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
        """Go on after `pause`, if the partition was nobody else's in between; begin anew if it was."""
        self._batches.put_nowait(None)
        self._may_begin.set()

    async def close(self) -> None:
        """Let the batch in hand finish, drop what waits (it will be read again), and give the partition up."""
        await self.pause()
        if not self._idle.is_set():
            log.error("lane.close_timed_out", partition=self._partition)
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=1)
        await self._give_up()

    async def look_back(self) -> None:
        """Have the reader go back if it is ahead of a lane that has nothing to do; by the second look in a row.

        At the first a batch may still be on its way.
        """
        fetched = await self._reading.fetched_up_to(self._partition)
        has_nothing_to_do = self._idle.is_set() and self._batches.empty() and self._next_offset >= 0
        if fetched is None or fetched <= self._next_offset or not has_nothing_to_do:
            self._left_behind_at = -1
        elif self._left_behind_at != self._next_offset:
            self._left_behind_at = self._next_offset
        else:
            self._left_behind_at = -1
            await self._read_again(fetched)

    async def _run(self) -> None:
        while True:
            lane = self._lane = self._lane or self._make_lane(self._partition)
            await lane.open()
            # After opening, which ends what a previous owner had begun.
            self._next_offset = await self._reading.committed(self._partition)
            while (records := await self._next()) is not None:
                if records:
                    await lane.handle(records)
                self._idle.set()
            log.info("lane.begun_anew", partition=self._partition, next_offset=self._next_offset)
            self._next_offset = -1
            await self._give_up()
            self._idle.set()

    async def _give_up(self) -> None:
        lane, self._lane = self._lane, None
        if lane is None:
            return
        try:
            await asyncio.wait_for(lane.close(), _CLOSE_SECONDS)
        except Exception as error:
            # Nothing is open between batches, so nothing is lost by a partition that was not given up in order.
            log.warning("lane.not_closed", partition=self._partition, error=repr(error))

    async def _next(self) -> list[Any] | None:
        """Return what follows of all that waits, as soon as there is something and it may begin.

        None if somebody else owned the partition meanwhile: what this lane knows is then of yesterday.
        """
        waiting = [await self._batches.get()]
        while not self._may_begin.is_set():
            await self._may_begin.wait()
        self._idle.clear()
        while not self._batches.empty():
            waiting.append(self._batches.get_nowait())
        batches = [batch for batch in waiting if batch is not None]
        if len(batches) < len(waiting) and await self._reading.committed(self._partition) > self._next_offset:
            return None
        return await self._following(batches)

    async def _following(self, batches: list[Batch]) -> list[Any]:
        """Return the records that follow without a hole; has the reader go back if there is one."""
        records: list[Any] = []
        ahead = None
        for batch in batches:
            if batch.end <= self._next_offset:
                continue
            if batch.start > self._next_offset and not await self._has_expired(batch.start):
                ahead = batch
                continue
            if batch.start >= self._next_offset:
                records += batch.records
            else:
                records += [record for record in batch.records if record.offset >= self._next_offset]
            self._next_offset = batch.end
        if ahead is not None and ahead.end > self._next_offset:
            await self._read_again(ahead.start)
        return records

    async def _has_expired(self, start: int) -> bool:
        """Tell whether a hole up to `start` is because the topic gave up what was there; then goes on behind it."""
        first = await self._reading.first(self._partition)
        if first <= self._next_offset:
            return False
        EXPIRED.labels(self._partition).inc(first - self._next_offset)
        log.critical("records.expired_unread", partition=self._partition, first=self._next_offset, end=first)
        self._next_offset = first
        return start <= first

    async def _read_again(self, reached: int | None) -> None:
        READ_AGAIN.labels(self._partition).inc()
        log.warning("reading.went_back", partition=self._partition, to=self._next_offset, reached=reached)
        await self._reading.read_from(self._partition, self._next_offset)


class Lanes:
    """Routes batches to the lanes of the partitions that are assigned now."""

    def __init__(self, make_lane: Callable[[int], Lane], reading: Reading) -> None:
        self._make_lane, self._reading = make_lane, reading
        self._running: dict[int, _RunningLane] = {}
        self._closed = False

    def put(self, partition: int, batch: Batch) -> None:
        """Hand a batch to its partition's lane; dropped if the partition is not assigned now."""
        if partition in self._running:
            self._running[partition].put(batch)

    def is_full(self, partition: int) -> bool:
        """Say whether a partition's lane is behind, so that nothing more should be fetched for it.

        Only for it: a partition that waits for its store must not hold up the others.
        """
        running = self._running.get(partition)
        return running is not None and running.is_full

    async def look_back(self) -> None:
        """Have the reader go back where it is ahead of a lane that has nothing to do; to be called now and then."""
        await asyncio.gather(*(running.look_back() for running in self._running.values()))

    async def pause(self) -> None:
        """Before a rebalance: let every batch in hand finish, begin no other until `assign`.

        A batch that were still in hand when another worker takes its partition over would find itself fenced, and end
        this process for no reason.
        """
        await asyncio.gather(*(running.pause() for running in self._running.values()))

    async def assign(self, partitions: set[int]) -> None:
        """Open lanes for the partitions that are ours now and close the others; those kept keep their state.

        Unless somebody else went on with them in between: those begin anew.
        """
        gone = [partition for partition in self._running if partition not in partitions]
        await asyncio.gather(*(self._running.pop(partition).close() for partition in gone))
        for partition in sorted(partitions):
            if partition in self._running:
                self._running[partition].resume()
            elif not self._closed:
                self._running[partition] = _RunningLane(self._make_lane, partition, self._reading)

    async def close(self) -> None:
        """Close all lanes; batches that come later are dropped."""
        self._closed = True
        await self.assign(set())
