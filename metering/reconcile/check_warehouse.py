"""ClickHouse's rollups and samples = its distinct raw events, measured again; per tenant, meter, dimensions and hour.

Nothing stands still while this looks, so a figure is only believed of a cell that is *settled*: up to the progress that
was read before both sides, everything is stored, and beyond it the cell has nothing. A difference is a gap only if it
is seen again, the same, after the warehouse has got past all that was visible the first time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

from core.meters import Meter, Registry
from metering.reconcile.domain.gap import Cell, Gap, Key, Side, cells_of, find_gaps
from metering.reconcile.ports import Warehouse

_CONFIRMATIONS = 2
_LOOKS = 100

Pause = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class WarehouseCheck:
    """Confirmed gaps, cells that were moving, and how many figures were compared."""

    gaps: list[Gap] = field(default_factory=list)
    unsettled: set[Cell] = field(default_factory=set)
    checked: int = 0


async def check_warehouse(
    cells: Collection[Cell],
    registry: Registry,
    partition_of: Callable[[str], int],
    warehouse: Warehouse,
    *,
    meters: Collection[str] | None = None,
    pause: Pause = asyncio.sleep,
    pause_seconds: float = 0.3,
) -> WarehouseCheck:
    """Compare cells for all meters (or some); raises `UnavailableError`."""
    wanted = [meter for meter in registry.meters if meters is None or meter.meter_id in meters]
    check = await _compare(cells, wanted, partition_of, warehouse)
    result = WarehouseCheck(unsettled=check.unsettled, checked=check.checked)
    suspects = check.gaps
    for _ in range(_CONFIRMATIONS):
        if not suspects:
            break
        if not await _wait_past(suspects, warehouse, pause, pause_seconds):
            result.unsettled |= cells_of(suspects)
            return result
        again = await _compare(cells_of(suspects), wanted, partition_of, warehouse)
        # What changed meanwhile was moving after all: it is looked at another time.
        steady = [gap for gap in suspects if gap in again.gaps]
        result.unsettled |= again.unsettled | (cells_of(again.gaps) - cells_of(steady))
        suspects = steady
    result.gaps = suspects
    return result


async def _compare(
    cells: Collection[Cell], meters: list[Meter], partition_of: Callable[[str], int], warehouse: Warehouse
) -> WarehouseCheck:
    if not cells:
        return WarehouseCheck()
    progress = await warehouse.progress()
    names = {meter.meter_id: meter for meter in meters}
    rollups = _only(await warehouse.stored_rollups(cells), names)
    samples = _only(await warehouse.stored_samples(cells, names), names)
    measured: dict[Key, Side] = {}
    for meter in meters:
        measured |= await warehouse.measured(meter, cells)
    unsettled = await warehouse.unsettled(cells, progress)
    partitions = {cell.tenant: partition_of(cell.tenant) for cell in cells}
    additive = {key: side for key, side in measured.items() if names[key.meter].is_additive}
    sampled = {key: side for key, side in measured.items() if not names[key.meter].is_additive}
    gaps = find_gaps("rollups", additive, rollups, partitions) + find_gaps("samples", sampled, samples, partitions)
    gaps = [gap for gap in gaps if not cells_of([gap]) & unsettled]
    if gaps:
        gaps = await _without_backfilling(gaps, names, warehouse)
    return WarehouseCheck(gaps, unsettled, len({*additive, *rollups}) + len({*sampled, *samples}))


async def _without_backfilling(gaps: list[Gap], meters: Mapping[str, Meter], warehouse: Warehouse) -> list[Gap]:
    """Leave out meters that are being counted in hindsight just now: between not at all and as if always there."""
    moving = await warehouse.later_activated()
    kept = [gap for gap in gaps if gap.subject.meter not in moving]
    for meter in sorted({gap.subject.meter for gap in gaps} & moving):
        own = [gap for gap in gaps if gap.subject.meter == meter]
        most = await warehouse.measured(meters[meter], cells_of(own), as_if_always=True)
        for gap in own:
            (cell,) = cells_of([gap])
            limit = most.get(Key(cell, meter, gap.subject.dimensions))
            if limit is None or not (gap.events > 0 and gap.found.events <= limit.events):
                kept.append(gap)
    return kept


async def _wait_past(suspects: list[Gap], warehouse: Warehouse, pause: Pause, pause_seconds: float) -> bool:
    """Wait until the warehouse has stored in full what is visible now, so that nothing of it is still on its way."""
    visible = await warehouse.newest_sources({gap.subject.tenant for gap in suspects})
    for _ in range(_LOOKS):
        await pause(pause_seconds)
        progress = await warehouse.progress()
        if all(progress.get(partition, 0) > offset for partition, offset in visible.items()):
            return True
    return False


def _only(figures: Mapping[Key, Side], meters: Mapping[str, Meter]) -> dict[Key, Side]:
    return {key: side for key, side in figures.items() if key.meter in meters}
