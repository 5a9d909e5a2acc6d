"""Totals of live periods as they are stored. Owns what a total was before an `apply`, and so which rows changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field

from core.journal import PeriodRow
from streams.domain.period_totals import NOTHING, Held, Levels, Total, period_row, unique_total

# Enough for all that a worker touches within minutes; what is not here is read again.
_KEPT = 100_000
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
            total = self._kept[key] = self._read(meter, name) or StoredTotal(meter, name, start_us, end_us)
        if total.before is None:
            total.before = total.total()
            self._touched.append(total)
            if total.start_us != start_us or total.end_us != end_us:
                total.start_us, total.end_us, total.is_new = start_us, end_us, True
        return total

    def touched(self, aggregations: frozenset[str]) -> list[StoredTotal]:
        """Return the totals touched since the last `write` whose meters aggregate in one of these ways."""
        return [total for total in self._touched if total.meter.aggregation in aggregations]

    def write(self) -> list[PeriodRow]:
        """Store the touched totals and return rows of those that changed; one without samples is dropped."""
        self._store(self._touched)
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
        """Store some of the touched totals already, for others are read off them."""
        self._store(totals)

    def forget_kept(self) -> None:
        """Read everything again from now on."""
        self._kept = {}

    def _store(self, totals: Iterable[StoredTotal]) -> None:
        gone, stored = [], []
        for total in totals:
            if total.events:
                stored.append(_columns(total))
            else:
                gone.append((total.meter.row_id, total.name))
        self.db.executemany("DELETE FROM totals WHERE meter = ? AND name = ?", gone)
        self.db.executemany("INSERT OR REPLACE INTO totals VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", stored)

    def _read(self, meter: StoredMeter, name: str) -> StoredTotal | None:
        row = self.db.execute("SELECT * FROM totals WHERE meter = ? AND name = ?", (meter.row_id, name)).fetchone()
        if row is None:
            return None
        _, _, start_us, end_us, events, quantity, at_us, offset, index, carry, net, moment = row
        return StoredTotal(
            meter, name, start_us, end_us, events, int(quantity), at_us, (offset, index),
            int(carry), int(net), int(moment), is_new=False,
        )  # fmt: skip


def _columns(total: StoredTotal) -> tuple[str | int, ...]:
    bounds = (total.start_us, total.end_us)
    sums = (str(total.carry), str(total.net), str(total.moment))
    return (
        total.meter.row_id,
        total.name,
        *bounds,
        total.events,
        str(total.quantity),
        total.at_us,
        *total.place,
        *sums,
    )
