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

FIND = 'SELECT time_us, text, "offset", "index" FROM texts WHERE meter = ? AND "offset" = ? AND "index" = ?'
_NEAREST = """
SELECT (SELECT time_us FROM texts WHERE meter = ?1 AND text = ?2 AND time_us <= ?3 ORDER BY time_us DESC LIMIT 1),
       (SELECT time_us FROM texts WHERE meter = ?1 AND text = ?2 AND time_us >= ?3 ORDER BY time_us LIMIT 1)
"""
_COUNT = "SELECT COUNT(*), COUNT(DISTINCT text) FROM texts WHERE meter = ? AND time_us >= ? AND time_us < ?"
_NEVER = -(1 << 62)


def apply_texts(db: sqlite3.Connection, periods: Periods, all_changes: Iterable[Changes]) -> None:
    """Put samples of unique meters in and take others out, and let the totals follow."""
    put, taken = [], []
    counted: set[tuple[StoredTotal, bytes]] = set()
    left: dict[tuple[StoredTotal, bytes], int] = {}
    for changes in all_changes:
        meter = changes.meter
        for row in changes.put:
            text = blake2b(row.value.encode(), digest_size=16).digest()
            time_us = row.time_us
            put.append((meter.row_id, row.offset, row.index, time_us, text))
            nearest: tuple[int, int] | None = None
            for total in periods.at(meter, time_us):
                total.events += 1
                if (total, text) in counted or total.is_new:
                    continue
                counted.add((total, text))
                if nearest is None:
                    nearest = _nearest(db, meter.row_id, text, time_us)
                total.quantity += nearest[0] < total.start_us and nearest[1] >= total.end_us
        for time_us, text, offset, index in changes.taken:
            taken.append((meter.row_id, offset, index))
            for total in periods.at(meter, time_us):
                total.events -= 1
                left[total, text] = time_us
    db.executemany('DELETE FROM texts WHERE meter = ? AND "offset" = ? AND "index" = ?', taken)
    db.executemany("INSERT INTO texts VALUES (?, ?, ?, ?, ?)", put)
    for (total, text), time_us in left.items():
        if (total, text) not in counted and not total.is_new:
            before, after = _nearest(db, total.meter.row_id, text, time_us)
            total.quantity -= before < total.start_us and after >= total.end_us
    for total in periods.totals.touched(frozenset({"unique"})):
        if total.is_new:
            bounds = (total.meter.row_id, total.start_us, total.end_us)
            total.events, total.quantity = db.execute(_COUNT, bounds).fetchone()
            total.is_new = False


def _nearest(db: sqlite3.Connection, meter: int, text: bytes, time_us: int) -> tuple[int, int]:
    before, after = db.execute(_NEAREST, (meter, text, time_us)).fetchone()
    return (_NEVER if before is None else before, -_NEVER if after is None else after)
