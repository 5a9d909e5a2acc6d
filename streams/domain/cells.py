"""Running totals of additive meters: minute windows and live periods, in segments. Owns when a total leaves memory.

A total that was untouched for long leaves memory; touched again, it opens a new segment, named by the source offset
that opened it. A window's or period's value is the sum over its segments, so what left memory is never needed again.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

import msgspec

WindowKey = tuple[str, str, tuple[str, ...], int]
PeriodKey = tuple[str, str, str]
MINUTE_US = 60_000_000
DAY_MS = 86_400_000
WINDOW_KEPT_MS = 2 * 3_600_000
HOUR_KEPT_MS = 2 * DAY_MS
PERIOD_KEPT_MS = 40 * DAY_MS
_EVICT_EVERY_MS = 60_000
_HOUR_LENGTH = len("2026-10-31T07")

_K = TypeVar("_K", bound=Hashable)


class Cell(msgspec.Struct, gc=False):
    """A running total: quantity x 10^12, events, the segment's name, and when it was last touched (received ms)."""

    segment: int
    quantity: int
    events: int
    touched_ms: int


class _Frozen(msgspec.Struct, array_like=True):
    # Quantities as text: msgpack's integers end at 64 bit.
    windows: list[tuple[str, str, tuple[str, ...], int, int, str, int, int]]
    periods: list[tuple[str, str, str, int, str, int, int]]
    evicted_ms: int


class Cells:
    """The windows and periods of one source partition."""

    def __init__(self) -> None:
        self.windows: dict[WindowKey, Cell] = {}
        self.periods: dict[PeriodKey, Cell] = {}
        self._evicted_ms = 0

    def add_period(self, key: PeriodKey, segment: int, quantity: int, events: int, received_ms: int) -> Cell:
        """Add to a period's segment, opened if there is none."""
        return add_to_cell(self.periods, key, segment, quantity, events, received_ms)

    def evict(self, received_ms: int) -> None:
        """Let totals leave memory that were not touched for long; cheap to call after every micro-batch."""
        if received_ms - self._evicted_ms < _EVICT_EVERY_MS:
            return
        self._evicted_ms = received_ms
        windows_ms = received_ms - WINDOW_KEPT_MS
        _drop(self.windows, [key for key, cell in self.windows.items() if cell.touched_ms < windows_ms])
        hours_ms, others_ms = received_ms - HOUR_KEPT_MS, received_ms - PERIOD_KEPT_MS
        _drop(
            self.periods,
            [
                key
                for key, cell in self.periods.items()
                if cell.touched_ms < (hours_ms if len(key[2]) == _HOUR_LENGTH else others_ms)
            ],
        )

    def freeze(self) -> bytes:
        """Return everything as bytes, for a checkpoint."""
        frozen = _Frozen(
            [
                (*key, cell.segment, str(cell.quantity), cell.events, cell.touched_ms)
                for key, cell in self.windows.items()
            ],
            [
                (*key, cell.segment, str(cell.quantity), cell.events, cell.touched_ms)
                for key, cell in self.periods.items()
            ],
            self._evicted_ms,
        )
        return msgspec.msgpack.encode(frozen)

    @classmethod
    def thaw(cls, raw: bytes) -> Cells:
        """Read back what `freeze` wrote."""
        frozen = msgspec.msgpack.decode(raw, type=_Frozen)
        cells = cls()
        for tenant, meter, dimensions, start, segment, quantity, events, touched_ms in frozen.windows:
            cells.windows[tenant, meter, dimensions, start] = Cell(segment, int(quantity), events, touched_ms)
        for tenant, meter, period, segment, quantity, events, touched_ms in frozen.periods:
            cells.periods[tenant, meter, period] = Cell(segment, int(quantity), events, touched_ms)
        cells._evicted_ms = frozen.evicted_ms
        return cells


def add_to_cell(cells: dict[_K, Cell], key: _K, segment: int, quantity: int, events: int, received_ms: int) -> Cell:
    """Add to the segment under a key, opened if there is none."""
    cell = cells.get(key)
    if cell is None:
        cell = cells[key] = Cell(segment, quantity, events, received_ms)
    else:
        cell.quantity += quantity
        cell.events += events
        cell.touched_ms = received_ms
    return cell


def _drop(cells: dict[_K, Cell], keys: list[_K]) -> None:
    for key in keys:
        del cells[key]
