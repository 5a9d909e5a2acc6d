"""Forgetting. Owns which samples of a book no live period needs any more.

A meter's horizon is the end of its newest period that is over and overlaps none that is not: before it no period is
live, and all samples that lie there go. Of a time-weighted series the last sample before the horizon stays, and the
level that held before it, so that it can be taken out, too.
"""

from __future__ import annotations

import sqlite3
from collections import Counter

from streams.adapters.sample_book.stored_totals import StoredMeter, unpack
from streams.adapters.sample_book.texts import see_texts
from streams.domain.period_totals import SLOT_US

# So few that a micro-batch does not wait for them.
SAMPLES_AT_ONCE = 20_000
_MOVE = """
UPDATE meters SET horizon_us = MAX(horizon_us, COALESCE((
    SELECT MAX(end_us) FROM totals WHERE totals.meter = meters.id AND end_us <= MIN(?1, COALESCE((
        SELECT MIN(start_us) FROM totals WHERE totals.meter = meters.id AND end_us > ?1), ?1))), 0))
"""
_DROP_TOTALS = """
DELETE FROM totals WHERE start_us < (SELECT horizon_us FROM meters WHERE meters.id = totals.meter)
"""
_OLD_LEVELS = """
SELECT time_us, "offset", "index", series, value FROM levels AS old
WHERE meter = ?1 AND time_us < ?2 AND EXISTS (
    SELECT 1 FROM levels AS later WHERE later.series = old.series AND later.time_us < ?2
    AND (later.time_us, later."offset", later."index") > (old.time_us, old."offset", old."index"))
ORDER BY time_us, "offset", "index" LIMIT ?3
"""
_OLD_TEXTS = f"""
SELECT meter, text, time_us / {SLOT_US}, time_us, "offset", "index" FROM texts WHERE meter = ? AND time_us < ? LIMIT ?
"""  # noqa: S608
_DROP_TEXT = 'DELETE FROM texts WHERE meter = ? AND time_us = ? AND "offset" = ? AND "index" = ?'
_DROP_NUMBERS = """
DELETE FROM numbers WHERE (meter, time_us, "offset", "index") IN (
    SELECT meter, time_us, "offset", "index" FROM numbers WHERE meter = ? AND time_us < ? LIMIT ?)
"""
_DROP_LEVEL = 'DELETE FROM levels WHERE meter = ? AND time_us = ? AND "offset" = ? AND "index" = ?'


def move_horizons(db: sqlite3.Connection, time_us: int) -> None:
    """Move every meter's horizon on and drop the totals of what lies before it."""
    db.execute(_MOVE, (time_us,))
    db.execute(_DROP_TOTALS)


def forget_samples(db: sqlite3.Connection, meters: list[StoredMeter]) -> None:
    """Drop some samples before their meters' horizons; takes meters off the list that have no more."""
    left = SAMPLES_AT_ONCE
    while meters and left > 0:
        meter = meters[-1]
        if meter.aggregation == "time_weighted":
            dropped = _forget_levels(db, meter, left)
        elif meter.aggregation == "unique":
            dropped = _forget_texts(db, meter, left)
        else:
            dropped = db.execute(_DROP_NUMBERS, (meter.row_id, meter.horizon_us, left)).rowcount
        if dropped < left:
            meters.pop()
        left -= dropped + 1


def _forget_texts(db: sqlite3.Connection, meter: StoredMeter, at_most: int) -> int:
    old = db.execute(_OLD_TEXTS, (meter.row_id, meter.horizon_us, at_most)).fetchall()
    seen = Counter((row_id, text, slot) for row_id, text, slot, *_ in old)
    see_texts(db, {text: -samples for text, samples in seen.items()})
    db.executemany(_DROP_TEXT, [(meter.row_id, *place) for _, _, _, *place in old])
    return len(old)


def _forget_levels(db: sqlite3.Connection, meter: StoredMeter, at_most: int) -> int:
    old = db.execute(_OLD_LEVELS, (meter.row_id, meter.horizon_us, at_most)).fetchall()
    bases = {series: str(unpack(value)) for _, _, _, series, value in old}  # in order, so the newest stays
    db.executemany("UPDATE series SET base = ? WHERE id = ?", [(base, series) for series, base in bases.items()])
    db.executemany(_DROP_LEVEL, [(meter.row_id, *place) for *place, _, _ in old])
    return len(old)
