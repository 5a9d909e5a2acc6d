"""Levels of time-weighted meters. Owns the steps: by how much each sample moves its series' level.

A sample that comes, or goes, out of order changes its own step and that of its successor, and nothing else. Summed by
time, the changed steps say how every stored period changes (`streams.domain.period_totals.Levels`).
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec

from core.errors import BrokenInvariantError
from core.journal import PRESENT, PeriodRow, SampleRow
from streams.adapters.sample_book.changes import Changes, Periods
from streams.adapters.sample_book.stored_totals import StoredMeter, StoredTotal, pack, unpack
from streams.domain.period_totals import Levels, Total, period_row, present_total

TIME_WEIGHTED = frozenset({"time_weighted"})
_NAMED = 'meter = ? AND time_us = ? AND "offset" = ? AND "index" = ?'
_FIND = f'SELECT time_us, "offset", "index", value, series FROM levels WHERE {_NAMED}'  # noqa: S608
_ORDER = 'time_us, "offset", "index"'
_NEWEST = 'SELECT time_us, "offset", "index", value FROM levels WHERE series = ?'
_DESCENDING = 'ORDER BY time_us DESC, "offset" DESC, "index" DESC LIMIT 1'
_BEFORE = f"{_NEWEST} AND ({_ORDER}) < (?, ?, ?) {_DESCENDING}"
_AFTER = f"{_NEWEST} AND ({_ORDER}) > (?, ?, ?) ORDER BY {_ORDER} LIMIT 1"
_STEPS = "SELECT time_us, step FROM levels WHERE meter = ? AND time_us >= ? AND time_us < ?"
_DROP = f"DELETE FROM levels WHERE {_NAMED}"  # noqa: S608
_SET_STEP = f"UPDATE levels SET step = ? WHERE {_NAMED}"  # noqa: S608
_NEXT_TOTAL = """
SELECT name, start_us, end_us FROM totals WHERE meter = ? AND end_us > ? AND start_us >= ? ORDER BY end_us LIMIT 1
"""
_END = 1 << 62
_SERIES_KEPT = 200_000

# (time, offset, index, value) of a sample.
_Sample = tuple[int, int, int, int]


@dataclass(eq=False, slots=True)
class _Series:
    """One meter's dimension values; `base` is the level before its oldest stored sample, `newest` the newest one."""

    row_id: int
    base: int
    newest: _Sample | None


class Stored(NamedTuple):
    """A sample that is in the book."""

    series: _Series
    sample: _Sample


@dataclass(slots=True)
class StoredLevels:
    """The levels of a book, with the newest sample of each series that was touched lately."""

    db: sqlite3.Connection
    _series: dict[tuple[int, tuple[str, ...]], _Series] = field(default_factory=dict)
    _pending: list[tuple[Any, ...]] = field(default_factory=list)

    def apply(self, periods: Periods, all_changes: Iterable[Changes]) -> list[PeriodRow]:
        """Put samples in and take others out, let the totals follow; returns the rows of changed present levels."""
        rows: list[PeriodRow] = []
        for changes in all_changes:
            meter = changes.meter
            before = _present(meter)
            steps: dict[int, int] = defaultdict(int)
            for taken in changes.taken:
                self._take(periods, meter, taken, steps)
            for row in sorted(changes.put, key=lambda row: (row.time_us, row.offset, row.index)):
                self._put(periods, meter, row, steps)
            self._store_pending()
            self._follow(periods, meter, steps)
            now = _present(meter)
            self.db.execute("UPDATE meters SET level = ? WHERE id = ?", (str(meter.level), meter.row_id))
            if now != before:
                rows.append(period_row(meter.tenant, meter.meter, PRESENT, now))
        if len(self._series) > _SERIES_KEPT:
            self._series = {}
        return rows

    def find(self, meter: StoredMeter, row: SampleRow) -> Stored | None:
        """Return the stored sample that a row names, None if there is none."""
        found = self.db.execute(_FIND, (meter.row_id, row.time_us, row.offset, row.index)).fetchone()
        series = self._series_of(meter, row.dimensions)
        return Stored(series, _sample(found)) if found and found[4] == series.row_id else None

    def newest_us(self, meter: int) -> int | None:
        """Return the time of a meter's newest sample, None if there is none."""
        newest: int | None = self.db.execute("SELECT MAX(time_us) FROM levels WHERE meter = ?", (meter,)).fetchone()[0]
        return newest

    def forget_kept(self) -> None:
        """Read everything again from now on."""
        self._series = {}

    def _put(self, periods: Periods, meter: StoredMeter, row: SampleRow, steps: dict[int, int]) -> None:
        series = self._series_of(meter, row.dimensions)
        time_us, value = row.time_us, int(row.value)
        place = (time_us, row.offset, row.index)
        newest = series.newest
        if newest is None or place > newest[:3]:
            step = value - (series.base if newest is None else newest[3])
            series.newest = (*place, value)
        else:
            self._store_pending()
            step = value - self._level_before(series, place)
            after = self._neighbour(_AFTER, series, place)
            if after is None:
                raise BrokenInvariantError("a sample before its series' newest has no successor")
            self.db.execute(_SET_STEP, (pack(after[3] - value), meter.row_id, *after[:3]))
            steps[after[0]] -= step
        self._pending.append((meter.row_id, *place, pack(value), series.row_id, pack(step)))
        steps[time_us] += step
        if meter.newest_us is None or time_us > meter.newest_us:
            meter.newest_us = time_us
        for total in periods.at(meter, time_us):
            total.events += 1
            total.at_us = max(total.at_us, time_us)

    def _take(self, periods: Periods, meter: StoredMeter, taken: Stored, steps: dict[int, int]) -> None:
        series, (time_us, offset, index, value) = taken
        place = (time_us, offset, index)
        self.db.execute(_DROP, (meter.row_id, *place))
        level = self._level_before(series, place)
        step = value - level
        steps[time_us] -= step
        after = self._neighbour(_AFTER, series, place)
        if after is None:
            series.newest = self._neighbour(_BEFORE, series, place)
        else:
            self.db.execute(_SET_STEP, (pack(after[3] - level), meter.row_id, *after[:3]))
            steps[after[0]] += step
        if time_us == meter.newest_us:
            meter.newest_us = self.newest_us(meter.row_id)
        for total in periods.at(meter, time_us):
            total.events -= 1
            total.is_stale = total.is_stale or time_us == total.at_us

    def _follow(self, periods: Periods, meter: StoredMeter, steps: dict[int, int]) -> None:
        """Let the meter's level and its totals follow the steps that changed."""
        times = sorted(steps)
        if not times:
            return
        meter.level += sum(steps.values())
        sums = [0, *accumulate(steps[at] for at in times)]
        moments = [0, *accumulate(steps[at] * at for at in times)]
        later = "SELECT name, start_us, end_us FROM totals WHERE meter = ? AND end_us > ?"
        for name, start_us, end_us in self.db.execute(later, (meter.row_id, times[0])).fetchall():
            total = periods.totals.touch(meter, name, start_us, end_us)
            if total.is_new:
                continue
            first, last = bisect_left(times, total.start_us), bisect_left(times, total.end_us)
            inside = sums[last] - sums[first]
            total.carry += sums[first]
            total.net += inside
            total.moment += moments[last] - moments[first] - inside * total.start_us
        touched = [total for total in periods.totals.touched(TIME_WEIGHTED) if total.meter is meter]
        next_one: StoredTotal | None = None
        for total in sorted(touched, key=lambda total: total.start_us, reverse=True):
            if total.is_new:
                self._read_off_samples(periods, total, next_one)
                next_one = total
            elif total.is_stale and total.events:
                newest = "SELECT MAX(time_us) FROM levels WHERE meter = ? AND time_us >= ? AND time_us < ?"
                bounds = (meter.row_id, total.start_us, total.end_us)
                total.at_us = self.db.execute(newest, bounds).fetchone()[0]
            total.is_new = total.is_stale = False

    def _read_off_samples(self, periods: Periods, total: StoredTotal, next_one: StoredTotal | None) -> None:
        """Add a new total up; what it carries in is known from the next period, or else from the present level."""
        meter = total.meter
        following = self._following(periods, total, next_one)
        level, until_us = (following.carry, following.start_us) if following else (meter.level, _END)
        levels = Levels(total.start_us, level)
        times = []
        for time_us, step in self._steps(meter, total.start_us, max(total.end_us, until_us)):
            by = unpack(step)
            if time_us < until_us:
                levels.carry -= by
            if time_us < total.end_us:
                levels.step(time_us, by)
                times.append(time_us)
        total.carry, total.net, total.moment = levels.carry, levels.net, levels.moment
        total.events, total.at_us = len(times), max(times, default=0)

    def _following(self, periods: Periods, total: StoredTotal, next_one: StoredTotal | None) -> StoredTotal | None:
        bounds = (total.meter.row_id, total.start_us, total.start_us)
        row = self.db.execute(_NEXT_TOTAL, bounds).fetchone()
        stored = periods.totals.touch(total.meter, *row) if row else None
        known = [found for found in (stored, next_one) if found is not None and not found.is_new]
        return min(known, key=lambda found: found.start_us, default=None)

    def _steps(self, meter: StoredMeter, start_us: int, end_us: int) -> Iterator[tuple[int, bytes]]:
        yield from self.db.execute(_STEPS, (meter.row_id, start_us, end_us))

    def _series_of(self, meter: StoredMeter, dimensions: tuple[str, ...]) -> _Series:
        key = (meter.row_id, dimensions)
        series = self._series.get(key)
        if series is None:
            name = (meter.row_id, msgspec.json.encode(dimensions).decode())
            find = "SELECT id, base FROM series WHERE meter = ? AND dimensions = ?"
            row = self.db.execute(find, name).fetchone()
            if row is None:
                row = (self.db.execute("INSERT INTO series (meter, dimensions) VALUES (?, ?)", name).lastrowid, "0")
            series = self._series[key] = _Series(row[0], int(row[1]), None)
            newest = self.db.execute(f"{_NEWEST} {_DESCENDING}", (row[0],)).fetchone()
            series.newest = _sample(newest) if newest else None
        return series

    def _level_before(self, series: _Series, place: tuple[int, int, int]) -> int:
        before = self._neighbour(_BEFORE, series, place)
        return series.base if before is None else before[3]

    def _neighbour(self, query: str, series: _Series, place: tuple[int, int, int]) -> _Sample | None:
        found = self.db.execute(query, (series.row_id, *place)).fetchone()
        return _sample(found) if found else None

    def _store_pending(self) -> None:
        if self._pending:
            self.db.executemany("INSERT INTO levels VALUES (?, ?, ?, ?, ?, ?, ?)", self._pending)
            self._pending = []


def _present(meter: StoredMeter) -> Total:
    return present_total(meter.level, meter.newest_us, meter.horizon_us)


def _sample(row: Sequence[Any]) -> _Sample:
    return (row[0], row[1], row[2], unpack(row[3]))
