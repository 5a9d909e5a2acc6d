"""The sample book on SQLite: one file per source partition, rebuilt from the journal whenever it is lost.

What was applied since the last `commit` is one open transaction, so a process that dies leaves the book as the journal
offset in it says. A file that cannot be read, or belongs to another journal, is set aside; one that another live
process still holds is left alone, and a private file takes its place that ends with this process.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import structlog

from core.errors import BrokenInvariantError
from core.journal import PeriodRow, SampleRow
from streams.adapters.sample_book import numbers, texts
from streams.adapters.sample_book.changes import Changes, Periods
from streams.adapters.sample_book.forget import forget_samples, move_horizons
from streams.adapters.sample_book.levels import TIME_WEIGHTED, StoredLevels
from streams.adapters.sample_book.stored_totals import StoredMeter, StoredTotals
from streams.domain.period_totals import NUMBERS, PeriodNames
from streams.ports import PeriodsOf

log = structlog.get_logger()
# Another number means tables of another form: the book is thrown away and rebuilt.
FORM = 3
CACHE_KIB = 32 * 1_024
# Beyond this the write-ahead log is put into the file; the only time that the disk is waited for.
_LOG_PAGES_MAX = 8_192
_FORGET_EVERY_US = 86_400_000_000
_METERS_KEPT = 100_000
_SCHEMA = (resources.files("streams.adapters.sample_book") / "schema.sql").read_text()
_UNIQUE = frozenset({"unique"})
_NO_PLACE = (-1, -1)
# SQLite's words for a file that holds nonsense. A full disk, say, is none of them.
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT)


class SqliteSamples:
    """Samples of one source partition on disk (`streams.ports.SampleBook`).

    A row that takes a sample out finds it by its time, too: it is the same sample again (`core.journal.SampleRow`).
    `journal` names the journal the book follows (say, the cluster's id): a file of another is of no use. The directory
    of `path` must exist.
    """

    def __init__(self, path: Path, *, journal: str = "") -> None:
        self._path = path
        self._journal = journal
        self._lock = _try_lock(path)
        if self._lock is None:
            log.warning("samples.held_by_another_process", path=str(path))
        self._start()

    def _start(self) -> None:
        self._db = self._open()
        facts: dict[str, int] = dict(self._db.execute("SELECT name, value FROM facts"))
        self.journal_offset = facts["journal_offset"]
        self._newest_place = (facts["offset"], facts["index"])
        self._forgotten_us = facts["forgotten_us"]
        self._to_forget: list[StoredMeter] = []
        self._totals = StoredTotals(self._db)
        self._levels = StoredLevels(self._db)
        self._meters: dict[tuple[str, str], StoredMeter] = {}

    def apply(self, samples: Sequence[SampleRow], periods: PeriodsOf) -> list[PeriodRow]:
        """Take samples in or out and return the totals that changed, sorted by tenant, meter and period.

        If the file turns out to be damaged, it is set aside and `BrokenInvariantError` ends the work: whoever comes
        next begins with an empty book. After any error the book is closed, as its last commit left it.
        """
        if not samples:
            return []
        try:
            return self._apply(samples, periods)
        except BaseException as error:
            self._close_after(error)
            if _is_damage(error):
                raise BrokenInvariantError(f"the sample book {self._path} was damaged: {error}") from error
            raise

    def commit(self, journal_offset: int) -> None:
        """Make what was applied durable, as reaching to `journal_offset`."""
        self._begin()
        self._set_facts(journal_offset=journal_offset, offset=self._newest_place[0], index=self._newest_place[1])
        self._db.execute("COMMIT")
        self.journal_offset = journal_offset

    def forget_before(self, time_us: int) -> None:
        """Drop samples of periods that are over by `time_us` and overlap none that is not; levels are carried over.

        Some at each call, and it moves on by days, so calling it often costs nothing. A period whose samples are
        dropped is not live any more: no row of it is returned.
        """
        if time_us >= self._forgotten_us + _FORGET_EVERY_US:
            self._begin()
            self._set_facts(forgotten_us=time_us)
            self._forgotten_us = time_us
            move_horizons(self._db, time_us)
            self._totals.forget_kept()
            self._meters = {}
            self._to_forget = [self._read_meter(row) for row in self._db.execute("SELECT * FROM meters").fetchall()]
        if self._to_forget:
            self._begin()
            forget_samples(self._db, self._to_forget)
            self._levels.forget_kept()

    def reset(self) -> None:
        """Throw everything away: what the book holds is of another journal."""
        self._db.close()
        if self._lock is not None:
            _set_aside(self._path, _UnusableError("it belongs to another journal"))
        self._start()

    def close(self) -> None:
        """Close the book; what was applied since the last commit is forgotten."""
        self._db.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _apply(self, samples: Sequence[SampleRow], periods: PeriodsOf) -> list[PeriodRow]:
        self._begin()
        all_changes = [
            self._changes(self._meter(tenant, meter, periods), rows)
            for (tenant, meter), rows in _last_by_name(samples).items()
        ]
        found = Periods(PeriodNames(periods), self._totals)
        texts.apply_texts(self._db, found, _of(all_changes, _UNIQUE))
        numbers.apply_numbers(self._db, found, _of(all_changes, NUMBERS))
        rows = self._levels.apply(found, _of(all_changes, TIME_WEIGHTED))
        rows += self._totals.write()
        self._newest_place = max(self._newest_place, max((row.offset, row.index) for row in samples))
        if len(self._meters) > _METERS_KEPT:
            self._totals.forget_kept()
            self._meters = {}
        return sorted(rows, key=lambda row: (row.tenant, row.meter, row.period))

    def _changes(self, meter: StoredMeter, rows: dict[tuple[int, int], SampleRow]) -> Changes:
        """Return what is new of the rows, and what they take out."""
        changes = Changes(meter)
        is_level = meter.aggregation == "time_weighted"
        for place, row in rows.items():
            # Places ascend, so nearly all samples are past every one that the book has ever seen.
            stored = None if place > self._newest_place else self._find(meter, row)
            if row.removed:
                if stored is not None:
                    changes.taken.append(stored)
            elif stored is None and (is_level or row.time_us >= meter.horizon_us):
                changes.put.append(row)
        return changes

    def _find(self, meter: StoredMeter, row: SampleRow) -> Any:
        if meter.aggregation == "time_weighted":
            return self._levels.find(meter, row)
        query = texts.FIND if meter.aggregation == "unique" else numbers.FIND
        return self._db.execute(query, (meter.row_id, row.time_us, row.offset, row.index)).fetchone()

    def _meter(self, tenant: str, meter: str, periods: PeriodsOf) -> StoredMeter:
        known = self._meters.get((tenant, meter))
        if known is None:
            find = "SELECT * FROM meters WHERE tenant = ? AND meter = ?"
            row = self._db.execute(find, (tenant, meter)).fetchone()
            if row is None:
                add = "INSERT INTO meters (tenant, meter, aggregation) VALUES (?, ?, ?)"
                self._db.execute(add, (tenant, meter, periods.aggregation(meter)))
                row = self._db.execute(find, (tenant, meter)).fetchone()
            known = self._meters[tenant, meter] = self._read_meter(row)
        return known

    def _read_meter(self, row: Sequence[Any]) -> StoredMeter:
        row_id, tenant, meter, aggregation, horizon_us, level = row
        newest_us = self._levels.newest_us(row_id) if aggregation == "time_weighted" else None
        return StoredMeter(row_id, tenant, meter, aggregation, horizon_us, int(level), newest_us)

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN")

    def _set_facts(self, **facts: int) -> None:
        self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def _open(self) -> sqlite3.Connection:
        if self._lock is None:
            # An empty name is SQLite's private file, which ends with the connection.
            return self._set_up(sqlite3.connect("", isolation_level=None, check_same_thread=False))
        try:
            return self._set_up(self._connect())
        except (sqlite3.DatabaseError, _UnusableError) as error:
            if not (_is_damage(error) or _code(error) == sqlite3.SQLITE_ERROR or isinstance(error, _UnusableError)):
                raise
            _set_aside(self._path, error)
            return self._set_up(self._connect())

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)

    def _set_up(self, db: sqlite3.Connection) -> sqlite3.Connection:
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            # Survives kill -9 as it is, and a power cut without harm to the file: the journal has the rest.
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES_MAX}")
            db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            db.execute("PRAGMA temp_store = MEMORY")
            db.execute(texts.ASKED)
            if db.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0] == 0:
                db.executescript(f"BEGIN; {_SCHEMA}; PRAGMA user_version = {FORM}; COMMIT")
                facts: list[tuple[str, int | str]] = [
                    ("journal_offset", -1),
                    ("offset", _NO_PLACE[0]),
                    ("index", _NO_PLACE[1]),
                    ("forgotten_us", 0),
                    ("journal", self._journal),
                ]
                db.execute("BEGIN")
                db.executemany("INSERT INTO facts VALUES (?, ?)", facts)
                db.execute("COMMIT")
            form = db.execute("PRAGMA user_version").fetchone()[0]
            if form != FORM:
                raise _UnusableError(f"form {form} is not the known {FORM}")
            journal = db.execute("SELECT value FROM facts WHERE name = 'journal'").fetchone()
            if journal != (self._journal,):
                raise _UnusableError(f"it belongs to the journal {journal}")
        except BaseException:
            db.close()
            raise
        return db

    def _close_after(self, error: BaseException) -> None:
        self._db.close()
        if self._lock is not None and _is_damage(error):
            _set_aside(self._path, error)
        self.close()


class _UnusableError(Exception):
    """The file is a good book of another form or journal."""


def _code(error: BaseException) -> int | None:
    # The low byte; the rest says more exactly what happened. What never reached SQLite has none.
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _is_damage(error: BaseException) -> bool:
    return _code(error) in _DAMAGED


def _try_lock(path: Path) -> int | None:
    """Return a file descriptor that holds the book for this process while it is open, None if another holds it."""
    descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _set_aside(path: Path, why: BaseException) -> None:
    """Rename a file that is of no use, for a person to look at; an older one of that name is replaced."""
    log.error("samples.set_aside", path=str(path), error=str(why))
    for suffix in ("", "-wal", "-shm"):
        found = path.with_name(path.name + suffix)
        if found.exists():
            found.replace(path.with_name(f"{path.name}.unusable{suffix}"))


def _last_by_name(samples: Sequence[SampleRow]) -> dict[tuple[str, str], dict[tuple[int, int], SampleRow]]:
    """Return the last row of each sample by tenant and meter: what holds once all rows are applied in order."""
    found: dict[tuple[str, str], dict[tuple[int, int], SampleRow]] = {}
    for row in samples:
        key = (row.tenant, row.meter)
        named = found.get(key)
        if named is None:
            named = found[key] = {}
        named[row.offset, row.index] = row
    return found


def _of(all_changes: list[Changes], aggregations: frozenset[str]) -> list[Changes]:
    return [
        changes
        for changes in all_changes
        if changes.meter.aggregation in aggregations and (changes.put or changes.taken)
    ]
