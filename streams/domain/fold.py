"""Folds a micro-batch's sums into the open windows. Owns what a late window is, and the sums by quarter hour.

`core.native.reader.fold` is the same in C and takes its place where it was built.
"""

from __future__ import annotations

from collections.abc import Callable

from core import native
from core.journal import LateRow, WindowRow
from streams.domain.cells import Cell, WindowKey, add_to_cell

SLOT_MINUTES = 15

# (tenant, meter, quarter hour since 1970 UTC) -> [quantity x 10^12, events]
Slots = dict[tuple[str, str, int], list[int]]
Folded = tuple[list[WindowRow], list[LateRow], Slots]


def fold_in_python(
    measured: dict[WindowKey, list[int]],
    cells: dict[WindowKey, Cell],
    closed_before: dict[str, int],
    segment: int,
    received_ms: int,
) -> Folded:
    """Add sums to `cells`; a cell that is missing is opened as `segment`.

    Returns every changed window, absolute; what came to windows that start at or before their meter's `closed_before`
    (seconds since 1970 UTC); and the sums by quarter hour, of which there are far fewer: periods never end inside one.
    """
    windows, late = [], []
    slots: Slots = {}
    for key, (quantity, events) in measured.items():
        tenant, meter, dimensions, start = key
        is_late = start <= closed_before[meter]
        cell = add_to_cell(cells, key, segment, quantity, events, received_ms)
        windows.append(WindowRow(tenant, meter, dimensions, start, cell.segment, str(cell.quantity), cell.events))
        if is_late:
            late.append(LateRow(tenant, meter, dimensions, start, str(quantity), events))
        slot_key = (tenant, meter, start // (60 * SLOT_MINUTES))
        slot = slots.get(slot_key)
        if slot is None:
            slots[slot_key] = [quantity, events]
        else:
            slot[0] += quantity
            slot[1] += events
    return windows, late, slots


def _fold_in_c(
    measured: dict[WindowKey, list[int]],
    cells: dict[WindowKey, Cell],
    closed_before: dict[str, int],
    segment: int,
    received_ms: int,
) -> Folded:
    folded: Folded = native.reader.fold(measured, cells, closed_before, segment, received_ms, Cell, WindowRow, LateRow)
    return folded


Fold = Callable[[dict[WindowKey, list[int]], dict[WindowKey, Cell], dict[str, int], int, int], Folded]
fold: Fold = fold_in_python if native.reader is None else _fold_in_c
