"""Distinct texts. Owns how a period's count of them follows each sample without counting again.

Whether a text is new to a period is told by the nearest quarter hours in which it was seen before and after: if neither
is inside, it is. So one table serves hour, month, billing period and year alike, for no period begins inside a quarter
hour. Texts are kept as 16 bytes of BLAKE2b, as identities are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from hashlib import blake2b

from streams.adapters.sample_book.changes import Changes, Periods
from streams.adapters.sample_book.stored_totals import StoredTotal
from streams.domain.period_totals import SLOT_US

_NAMED = 'meter = ? AND time_us = ? AND "offset" = ? AND "index" = ?'
FIND = f'SELECT time_us, text, "offset", "index" FROM texts WHERE {_NAMED}'  # noqa: S608
_NEAREST = """
SELECT (SELECT slot FROM text_slots WHERE meter = ?1 AND text = ?2 AND slot <= ?3 ORDER BY slot DESC LIMIT 1),
       (SELECT slot FROM text_slots WHERE meter = ?1 AND text = ?2 AND slot >= ?3 ORDER BY slot LIMIT 1)
"""
_NEAREST_OF_ALL = """
SELECT (SELECT slot FROM text_slots WHERE meter = asked.meter AND text = asked.text AND slot <= asked.slot
        ORDER BY slot DESC LIMIT 1),
       (SELECT slot FROM text_slots WHERE meter = asked.meter AND text = asked.text AND slot >= asked.slot
        ORDER BY slot LIMIT 1)
FROM temp.asked ORDER BY asked.rowid
"""
_SEE = """
INSERT INTO text_slots VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET samples = samples + excluded.samples
"""
_DROP_UNSEEN = "DELETE FROM text_slots WHERE meter = ? AND text = ? AND slot = ? AND samples = 0"
# Many at once are asked for through a table in memory: a statement each would cost more than the search itself.
ASKED = "CREATE TEMP TABLE asked (meter INTEGER, text BLOB, slot INTEGER)"
_COUNT = "SELECT COUNT(*), COUNT(DISTINCT text) FROM texts WHERE meter = ? AND time_us >= ? AND time_us < ?"


# A text of a meter in a quarter hour.
_Seen = tuple[int, bytes, int]


def apply_texts(db: sqlite3.Connection, periods: Periods, all_changes: Iterable[Changes]) -> None:
    """Put samples of unique meters in and take others out, and let the totals follow."""
    put, taken = [], []
    more: dict[_Seen, int] = {}
    fewer: dict[_Seen, int] = {}
    totals: dict[tuple[int, int], list[StoredTotal]] = {}
    for changes in all_changes:
        meter = changes.meter
        row_id = meter.row_id
        for row in changes.put:
            time_us = row.time_us
            slot = time_us // SLOT_US
            text = blake2b(row.value.encode(), digest_size=16).digest()
            put.append((row_id, time_us, row.offset, row.index, text))
            found = totals.get((row_id, slot))
            if found is None:
                found = totals[row_id, slot] = periods.at(meter, time_us)
            for total in found:
                total.events += 1
            seen = (row_id, text, slot)
            more[seen] = more.get(seen, 0) + 1
        for time_us, text, offset, index in changes.taken:
            taken.append((row_id, time_us, offset, index))
            seen = (row_id, text, time_us // SLOT_US)
            fewer[seen] = fewer.get(seen, 0) - 1
            totals[row_id, seen[2]] = periods.at(meter, time_us)
            for total in totals[row_id, seen[2]]:
                total.events -= 1
    counted = _count_new(db, more, totals)
    db.executemany(f"DELETE FROM texts WHERE {_NAMED}", taken)  # noqa: S608
    db.executemany("INSERT INTO texts VALUES (?, ?, ?, ?, ?)", put)
    see_texts(db, more)
    see_texts(db, fewer)
    _count_lost(db, fewer, totals, counted)
    for total in periods.totals.touched(frozenset({"unique"})):
        if total.is_new:
            bounds = (total.meter.row_id, total.start_us, total.end_us)
            total.events, total.quantity = db.execute(_COUNT, bounds).fetchone()
            total.is_new = False


def see_texts(db: sqlite3.Connection, samples: Mapping[_Seen, int]) -> None:
    """Change in how many samples texts are seen; what is seen in none is dropped."""
    # In the order of their table: neighbours are found together.
    db.executemany(_SEE, [(*seen, number) for seen, number in sorted(samples.items())])
    db.executemany(_DROP_UNSEEN, [seen for seen, number in samples.items() if number < 0])


def _count_new(
    db: sqlite3.Connection, more: Iterable[_Seen], totals: Mapping[tuple[int, int], list[StoredTotal]]
) -> set[tuple[StoredTotal, bytes]]:
    """Add texts to those totals that do not hold them yet; returns all pairs that were looked at."""
    counted: set[tuple[StoredTotal, bytes]] = set()
    # Periods that are new themselves are counted as a whole, so nothing need be asked for them.
    wanted = sorted(seen for seen in more if not all(total.is_new for total in totals[seen[0], seen[2]]))
    db.executemany("INSERT INTO temp.asked VALUES (?, ?, ?)", wanted)
    nearest = db.execute(_NEAREST_OF_ALL).fetchall()
    db.execute("DELETE FROM temp.asked")
    for (row_id, text, slot), (before, after) in zip(wanted, nearest, strict=True):
        for total in totals[row_id, slot]:
            if not total.is_new and (total, text) not in counted:
                counted.add((total, text))
                total.quantity += _is_outside(total, before, after)
    return counted


def _count_lost(
    db: sqlite3.Connection,
    fewer: Iterable[_Seen],
    totals: Mapping[tuple[int, int], list[StoredTotal]],
    counted: set[tuple[StoredTotal, bytes]],
) -> None:
    """Take texts from those totals that do not hold them any more."""
    for row_id, text, slot in fewer:
        for total in totals[row_id, slot]:
            if not total.is_new and (total, text) not in counted:
                counted.add((total, text))
                before, after = db.execute(_NEAREST, (row_id, text, slot)).fetchone()
                total.quantity -= _is_outside(total, before, after)


def _is_outside(total: StoredTotal, before: int | None, after: int | None) -> bool:
    """Say whether the quarter hours nearest to one inside a period are both outside, or not there."""
    return (before is None or before * SLOT_US < total.start_us) and (after is None or after * SLOT_US >= total.end_us)
