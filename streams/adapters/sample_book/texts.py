"""Distinct texts. Owns how a period's count of them follows each sample without counting again.

Whether a text is new to a period is told by its nearest samples before and after: if neither is inside, it is. So one
index serves hour, month, billing period and year alike. Texts are kept as 16 bytes of BLAKE2b, as identities are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from hashlib import blake2b

from streams.adapters.sample_book.changes import Changes, Periods
from streams.adapters.sample_book.stored_totals import StoredTotal
from streams.domain.period_totals import SLOT_US

_NAMED = 'meter = ? AND time_us = ? AND "offset" = ? AND "index" = ?'
FIND = f'SELECT time_us, text, "offset", "index" FROM texts WHERE {_NAMED}'  # noqa: S608
_NEAREST = """
SELECT (SELECT time_us FROM texts WHERE meter = ?1 AND text = ?2 AND time_us <= ?3 ORDER BY time_us DESC LIMIT 1),
       (SELECT time_us FROM texts WHERE meter = ?1 AND text = ?2 AND time_us >= ?3 ORDER BY time_us LIMIT 1)
"""
_NEAREST_OF_ALL = """
SELECT (SELECT time_us FROM texts WHERE meter = asked.meter AND text = asked.text AND time_us <= asked.time_us
        ORDER BY time_us DESC LIMIT 1),
       (SELECT time_us FROM texts WHERE meter = asked.meter AND text = asked.text AND time_us >= asked.time_us
        ORDER BY time_us LIMIT 1)
FROM temp.asked ORDER BY asked.rowid
"""
# Many at once are asked for through a table in memory: a statement each would cost more than the search itself.
ASKED = "CREATE TEMP TABLE asked (meter INTEGER, text BLOB, time_us INTEGER)"
_COUNT = "SELECT COUNT(*), COUNT(DISTINCT text) FROM texts WHERE meter = ? AND time_us >= ? AND time_us < ?"


def apply_texts(db: sqlite3.Connection, periods: Periods, all_changes: Iterable[Changes]) -> None:
    """Put samples of unique meters in and take others out, and let the totals follow."""
    put, taken = [], []
    asked: dict[tuple[int, int, bytes], tuple[int, list[StoredTotal]]] = {}
    left: dict[tuple[StoredTotal, bytes], int] = {}
    for changes in all_changes:
        meter = changes.meter
        row_id = meter.row_id
        for row in changes.put:
            text = blake2b(row.value.encode(), digest_size=16).digest()
            time_us = row.time_us
            put.append((row_id, time_us, row.offset, row.index, text))
            totals = periods.at(meter, time_us)
            for total in totals:
                total.events += 1
            asked[row_id, time_us // SLOT_US, text] = (time_us, totals)
        for time_us, text, offset, index in changes.taken:
            taken.append((row_id, time_us, offset, index))
            for total in periods.at(meter, time_us):
                total.events -= 1
                left[total, text] = time_us
    counted = _count_new(db, asked)
    db.executemany(f"DELETE FROM texts WHERE {_NAMED}", taken)  # noqa: S608
    db.executemany("INSERT INTO texts VALUES (?, ?, ?, ?, ?)", put)
    for (total, text), time_us in left.items():
        if (total, text) not in counted and not total.is_new:
            before, after = db.execute(_NEAREST, (total.meter.row_id, text, time_us)).fetchone()
            total.quantity -= _is_outside(total, before, after)
    for total in periods.totals.touched(frozenset({"unique"})):
        if total.is_new:
            bounds = (total.meter.row_id, total.start_us, total.end_us)
            total.events, total.quantity = db.execute(_COUNT, bounds).fetchone()
            total.is_new = False


def _count_new(
    db: sqlite3.Connection, asked: dict[tuple[int, int, bytes], tuple[int, list[StoredTotal]]]
) -> set[tuple[StoredTotal, bytes]]:
    """Add the texts to those totals that do not hold them yet; returns all pairs that were looked at."""
    counted: set[tuple[StoredTotal, bytes]] = set()
    # Periods that are new themselves are counted as a whole, so nothing need be asked for them.
    wanted = [
        (row_id, text, time_us, totals)
        for (row_id, _, text), (time_us, totals) in asked.items()
        if not all(total.is_new for total in totals)
    ]
    db.executemany("INSERT INTO temp.asked VALUES (?, ?, ?)", [one[:3] for one in wanted])
    nearest = db.execute(_NEAREST_OF_ALL).fetchall()
    db.execute("DELETE FROM temp.asked")
    for (_, text, _, totals), (before, after) in zip(wanted, nearest, strict=True):
        for total in totals:
            if not total.is_new and (total, text) not in counted:
                counted.add((total, text))
                total.quantity += _is_outside(total, before, after)
    return counted


def _is_outside(total: StoredTotal, before: int | None, after: int | None) -> bool:
    """Say whether the samples nearest to an instant inside a period are both outside, or not there."""
    return (before is None or before < total.start_us) and (after is None or after >= total.end_us)
