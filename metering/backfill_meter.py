"""Lets a meter that was added later count what came before it, from the raw events in the warehouse.

Each source partition tells from which offset on it counts the meter. What lies before is measured anew, without what
was corrected, and put on that very partition as records that the meter worker counts once. All of a partition's are one
transaction, so a run that dies half-way leaves nothing behind, and one that is repeated changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from core.errors import ConflictError, UnavailableError
from core.meters import Meter
from core.period import format_instant
from metering.domain.meter_parts import Measured, Part, RawEvent, cut_parts, measure

_LOOK_AGAIN_SECONDS = 0.2


class MeterNotCountedError(ConflictError):
    """The meter is not counted yet everywhere; usage has to come first, and to reach the warehouse."""

    code = "meter_not_counted"


class WarehouseBehindError(UnavailableError):
    """The warehouse has not stored yet what was corrected; nothing was sent, so try again."""

    code = "warehouse_behind"


class OverlappingCorrectionsError(ConflictError):
    """Events were corrected while the meter was being filled, and it does not know."""

    code = "overlapping_corrections"


@dataclass(frozen=True, slots=True)
class Filled:
    """What one partition's share came to: events that feed the meter, and those it would have refused, by code.

    `before` is the source offset from which the meter was counted already, `seen` the one up to which corrections were
    heeded, `last_offset` where the last of `parts` records stands (None if there were none).
    """

    partition: int
    before: int
    seen: int
    events: int
    refused: dict[str, int]
    parts: int
    last_offset: int | None


class RawEvents(Protocol):
    """Accepted events and activations, as the warehouse has them; blocking."""

    def activations(self, meter: Meter) -> dict[int, int | None]:
        """Return, for each partition with events of the meter's type, the offset it is counted from (None: not yet)."""
        ...

    def stored_up_to(self, partition: int) -> int:
        """Return the source offset before which everything is stored."""
        ...

    def events_before(self, meter: Meter, partition: int, before: int, seen: int) -> Iterator[RawEvent]:
        """Yield the events of the meter's type that stand before an offset, by tenant.

        Without those that corrections before the offset `seen` took out.
        """
        ...

    def corrections_between(self, meter: Meter, partition: int, before: int, first: int, last: int) -> list[str]:
        """Return corrections at offsets [first, last) of the meter's events that stand before `before`."""
        ...


class PartSender(Protocol):
    """Where the records go."""

    async def end_offset(self, partition: int) -> int:
        """Return the partition's end."""
        ...

    async def has_record(self, partition: int, first: int, end: int) -> bool:
        """Tell whether there is a record, and not only markers of transactions, from `first` to before `end`."""
        ...

    async def send(self, meter_id: str, partition: int, parts: Iterator[Part]) -> tuple[int, int | None]:
        """Put the records on the partition, all or none; returns how many, and the last one's offset.

        The iterator is read to its end, in another thread, before anything is sent.
        """
        ...


async def backfill_meter(
    meter: Meter, *, raw: RawEvents, sender: PartSender, now: datetime, max_bytes: int, patience_seconds: float = 30
) -> list[Filled]:
    """Fill the meter's past on every partition that has any; doing so again changes nothing.

    Raises `MeterNotCountedError` before anything is sent if a partition does not count the meter yet, and
    `WarehouseBehindError` if the warehouse does not come to where a partition ends within `patience_seconds`.
    """
    activations = await asyncio.to_thread(raw.activations, meter)
    waiting = [str(partition) for partition, first in sorted(activations.items()) if first is None]
    if waiting:
        raise MeterNotCountedError(
            f"partitions {', '.join(waiting)} do not count {meter.meter_id} yet: they begin with the next usage there"
        )
    starts = {partition: first for partition, first in sorted(activations.items()) if first}
    filled = []
    for partition, before in starts.items():
        seen = await _wait_for_warehouse(partition, raw, sender, patience_seconds)
        filled.append(await _fill(meter, partition, before, seen, raw, sender, now, max_bytes))
    return filled


async def missed_corrections(meter: Meter, filled: Iterable[Filled], *, raw: RawEvents) -> Sequence[str]:
    """Return corrections that came between the reading of the events and the last record.

    What they took out is still counted by this meter: the worker did not know yet that it counts the event. To be
    called when the warehouse has stored the last record.
    """
    missed: list[str] = []
    for share in filled:
        if share.last_offset is not None:
            missed += await asyncio.to_thread(
                raw.corrections_between, meter, share.partition, share.before, share.seen, share.last_offset
            )
    return missed


async def _wait_for_warehouse(partition: int, raw: RawEvents, sender: PartSender, patience_seconds: float) -> int:
    """Return the offset up to which everything is stored, once that is all there was when this began.

    So whoever corrects an event and then fills a meter finds the correction heeded.
    """
    end, loop = await sender.end_offset(partition), asyncio.get_running_loop()
    deadline = loop.time() + patience_seconds
    while True:
        stored = await asyncio.to_thread(raw.stored_up_to, partition)
        if stored >= end or not await sender.has_record(partition, stored, end):
            return stored
        if loop.time() >= deadline:
            raise WarehouseBehindError(f"partition {partition} is stored up to {stored} of {end}: try again")
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)


async def _fill(
    meter: Meter,
    partition: int,
    before: int,
    seen: int,
    raw: RawEvents,
    sender: PartSender,
    now: datetime,
    max_bytes: int,
) -> Filled:
    measured = Measured()
    measures = measure(raw.events_before(meter, partition, before, seen), meter, measured)
    parts = cut_parts(measures, meter.meter_id, partition, before, time=format_instant(now), max_bytes=max_bytes)
    count, last = await sender.send(meter.meter_id, partition, parts)
    return Filled(partition, before, seen, measured.events, dict(measured.refused), count, last)
