"""Maximum, minimum and latest. Owns how a period finds its next best sample when the best was taken out.

A long period is the best of its hours, which have totals of their own; only what its first and last hour share with
its neighbours is looked for among the samples.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from core.errors import BrokenInvariantError
from streams.adapters.sample_book.changes import Changes, Periods
from streams.adapters.sample_book.stored_totals import HOUR_US, StoredTotal, pack, unpack
from streams.domain.period_totals import NUMBERS, Held, better

_NAMED = 'meter = ? AND time_us = ? AND "offset" = ? AND "index" = ?'
FIND = f'SELECT time_us, "offset", "index" FROM numbers WHERE {_NAMED}'  # noqa: S608
_INSIDE = "FROM numbers WHERE meter = ? AND time_us >= ? AND time_us < ?"
_BEST = {
    "max": f'SELECT time_us, "offset", "index", value {_INSIDE} ORDER BY value DESC, 1, 2, 3 LIMIT 1',
    "min": f'SELECT time_us, "offset", "index", value {_INSIDE} ORDER BY value, 1, 2, 3 LIMIT 1',
    "latest": f'SELECT time_us, "offset", "index", value {_INSIDE} ORDER BY 1 DESC, 2 DESC, 3 DESC LIMIT 1',
}
_HOURS = f"""
SELECT at_us, "offset", "index", quantity FROM totals
WHERE meter = ? AND end_us > ? AND end_us <= ? AND end_us - start_us = {HOUR_US}
"""  # noqa: S608


def apply_numbers(db: sqlite3.Connection, periods: Periods, all_changes: Iterable[Changes]) -> None:
    """Put samples of maximum, minimum and latest meters in and take others out, and let the totals follow."""
    put, taken = [], []
    for changes in all_changes:
        meter = changes.meter
        aggregation = meter.aggregation
        for row in changes.put:
            sample = Held(row.time_us, row.offset, row.index, int(row.value))
            put.append((meter.row_id, row.time_us, row.offset, row.index, pack(sample.value)))
            for total in periods.at(meter, row.time_us):
                best = better(aggregation, total.best(), sample) if total.events else sample
                total.events += 1
                if best is sample:
                    total.set_best(sample)
        for time_us, offset, index in changes.taken:
            taken.append((meter.row_id, time_us, offset, index))
            for total in periods.at(meter, time_us):
                total.events -= 1
                total.is_stale = total.is_stale or total.place == (offset, index)
    db.executemany(f"DELETE FROM numbers WHERE {_NAMED}", taken)  # noqa: S608
    put.sort()
    db.executemany("INSERT INTO numbers VALUES (?, ?, ?, ?, ?)", put)
    _read_off_samples(db, periods)


def _read_off_samples(db: sqlite3.Connection, periods: Periods) -> None:
    touched = periods.totals.touched(NUMBERS)
    hours = [total for total in touched if total.end_us - total.start_us == HOUR_US]
    longer = [total for total in touched if total.end_us - total.start_us != HOUR_US]
    for group in (hours, longer):
        for total in group:
            if total.is_new:
                bounds = (total.meter.row_id, total.start_us, total.end_us)
                total.events = db.execute(f"SELECT COUNT(*) {_INSIDE}", bounds).fetchone()[0]
            if (total.is_new or total.is_stale) and total.events:
                total.set_best(_best(db, total))
            total.is_new = total.is_stale = False
        # Longer periods are read off the hours.
        if group is hours and longer:
            periods.totals.store(hours)


def _best(db: sqlite3.Connection, total: StoredTotal) -> Held:
    best: Held | None = None
    for sample in _candidates(db, total):
        best = sample if best is None else better(total.meter.aggregation, best, sample)
    if best is None:
        raise BrokenInvariantError(f"a period with {total.events} samples has no best one: {total.name}")
    return best


def _candidates(db: sqlite3.Connection, total: StoredTotal) -> Iterator[Held]:
    meter, start_us, end_us = total.meter.row_id, total.start_us, total.end_us
    first_us, last_us = -(-start_us // HOUR_US) * HOUR_US, end_us // HOUR_US * HOUR_US
    stretches = [(start_us, end_us)]
    if end_us - start_us != HOUR_US:
        stretches = [(start_us, first_us), (last_us, end_us)]
        for time_us, offset, index, quantity in db.execute(_HOURS, (meter, first_us, last_us)):
            yield Held(time_us, offset, index, int(quantity))
    for stretch in stretches:
        if stretch[0] < stretch[1]:
            for time_us, offset, index, value in db.execute(_BEST[total.meter.aggregation], (meter, *stretch)):
                yield Held(time_us, offset, index, unpack(value))
