"""Totals of live periods as they are stored. Owns what a total was before an `apply`, and so which rows changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field

from core.journal import PeriodRow
from streams.domain.period_totals import NOTHING, Held, Levels, Total, period_row, unique_total

# Enough for all that a worker touches within minutes; what is not here is read again.
_KEPT = 100_000
HOUR_US = 3_600_000_000
# Another calendar moves the end of a period of the same name by no more: some days of another anchor, and the zone.
_MOVED_US = 5 * 24 * HOUR_US
_FIND = "SELECT * FROM totals WHERE meter = ? AND end_us = ? AND name = ?"
_FIND_AROUND = "SELECT * FROM totals WHERE meter = ? AND end_us > ? AND end_us < ? AND name = ?"
_DROP = "DELETE FROM totals WHERE meter = ? AND end_us = ? AND name = ?"
_BIAS = 1 << 95
_BYTES = 12


def pack(value: int) -> bytes:
    """Return a scaled integer as bytes that sort like it; a negative one, too."""
    return (value + _BIAS).to_bytes(_BYTES, "big")


def unpack(raw: bytes) -> int:
    """Read what `pack` wrote."""
    return int.from_bytes(raw, "big") - _BIAS


@dataclass(eq=False, slots=True)
class StoredMeter:
    """One tenant's meter. No period that begins before `horizon_us` is live; `level` is what its newest samples leave.

    `newest_us` is the time of the newest sample of a time-weighted meter, None if there is none.
    """

    row_id: int
    tenant: str
    meter: str
    aggregation: str
    horizon_us: int
    level: int
    newest_us: int | None = None


@dataclass(eq=False, slots=True)
class StoredTotal:
    """A live period's total.

    `quantity` counts distinct texts or is the best sample's value, `place` that sample's place. `is_new`: nothing is
    known of it yet, so it is read off the samples once they are stored. `is_stale`: its best or newest sample is gone.
    """

    meter: StoredMeter
    name: str
    start_us: int
    end_us: int
    events: int = 0
    quantity: int = 0
    at_us: int = 0
    place: tuple[int, int] = (0, 0)
    carry: int = 0
    net: int = 0
    moment: int = 0
    is_new: bool = True
    is_stale: bool = False
    before: Total | None = None

    def best(self) -> Held:
        """Return the sample that a maximum, minimum or latest stands on."""
        return Held(self.at_us, *self.place, self.quantity)

    def set_best(self, sample: Held) -> None:
        """Let the total stand on a sample."""
        self.at_us, self.place, self.quantity = sample.time_us, (sample.offset, sample.index), sample.value

    def total(self) -> Total:
        """Return what the journal is told."""
        if not self.events:
            return NOTHING
        if self.meter.aggregation == "unique":
            return unique_total(self.quantity, self.events)
        if self.meter.aggregation == "time_weighted":
            return Levels(self.start_us, self.carry, self.net, self.moment, self.at_us, self.events).total()
        return Total(self.quantity, self.events, 0, self.at_us)


@dataclass(slots=True)
class StoredTotals:
    """The totals of a book, with those kept in memory that were touched lately."""

    db: sqlite3.Connection
    _kept: dict[tuple[int, str], StoredTotal] = field(default_factory=dict)
    _touched: list[StoredTotal] = field(default_factory=list)

    def touch(self, meter: StoredMeter, name: str, start_us: int, end_us: int) -> StoredTotal:
        """Return a total that is about to change; other bounds than before (another calendar) make it a new one."""
        key = (meter.row_id, name)
        total = self._kept.get(key)
        if total is None:
            total = self._kept[key] = self._read(meter, name, start_us, end_us)
        if total.before is None:
            total.before = total.total()
            self._touched.append(total)
            if total.start_us != start_us or total.end_us != end_us:
                self.db.execute(_DROP, _key(total))
                total.start_us, total.end_us, total.is_new = start_us, end_us, True
        return total

    def touched(self, aggregations: frozenset[str]) -> list[StoredTotal]:
        """Return the totals touched since the last `write` whose meters aggregate in one of these ways."""
        return [total for total in self._touched if total.meter.aggregation in aggregations]

    def write(self) -> list[PeriodRow]:
        """Store the touched totals and return rows of those that changed; one without samples is dropped."""
        self.store(self._touched)
        rows = []
        for total in self._touched:
            now = total.total()
            if now != total.before:
                rows.append(period_row(total.meter.tenant, total.meter.meter, total.name, now))
            if not total.events:
                del self._kept[total.meter.row_id, total.name]
            total.before = None
        self._touched = []
        if len(self._kept) > _KEPT:
            self._kept = {}
        return rows

    def store(self, totals: Iterable[StoredTotal]) -> None:
        """Store touched totals; before `write` does, where others are read off them."""
        gone, stored = [], []
        for total in totals:
            if total.events:
                stored.append(_columns(total))
            else:
                gone.append(_key(total))
        self.db.executemany(_DROP, gone)
        # In the order of their table, so that neighbours are written together.
        self.db.executemany("INSERT OR REPLACE INTO totals VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", sorted(stored))

    def forget_kept(self) -> None:
        """Read everything again from now on."""
        self._kept = {}

    def _read(self, meter: StoredMeter, name: str, start_us: int, end_us: int) -> StoredTotal:
        row = self.db.execute(_FIND, (meter.row_id, end_us, name)).fetchone()
        if row is None and end_us - start_us > HOUR_US:
            around = (meter.row_id, end_us - _MOVED_US, end_us + _MOVED_US, name)
            row = self.db.execute(_FIND_AROUND, around).fetchone()
        if row is None:
            return StoredTotal(meter, name, start_us, end_us)
        _, end_us, _, start_us, events, quantity, at_us, offset, index, carry, net, moment = row
        return StoredTotal(
            meter, name, start_us, end_us, events, int(quantity), at_us, (offset, index),
            int(carry), int(net), int(moment), is_new=False,
        )  # fmt: skip


def _key(total: StoredTotal) -> tuple[int, int, str]:
    return (total.meter.row_id, total.end_us, total.name)


def _columns(total: StoredTotal) -> tuple[str | int, ...]:
    best = (str(total.quantity), total.at_us, *total.place)
    return (*_key(total), total.start_us, total.events, *best, str(total.carry), str(total.net), str(total.moment))
