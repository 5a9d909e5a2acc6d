"""The totals of one source partition in a local SQLite file, so that a restart reads only the journal's tail.

A cache of the journal, never the truth: it says up to which journal offset it reaches and what that record was, so that
one left over from another cluster, or older than what the journal still has, is thrown away. Commits are not synced to
disk: after a power cut SQLite comes back to an earlier commit, and the journal leads on from there.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path

import msgspec

from core.errors import UnavailableError
from core.thresholds import Threshold
from streams.domain.quota_totals import HOUR_LENGTH, Mark, PeriodKey, PeriodState, decode_state, encode_state

_FORMAT = 1
_SCHEMA = f"""
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS progress (
    format INTEGER PRIMARY KEY, journal_offset INTEGER NOT NULL, received_ms INTEGER NOT NULL, digest BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS periods (
    tenant TEXT, meter TEXT, period TEXT, body BLOB NOT NULL, is_archived INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, meter, period)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hours (
    period TEXT, tenant TEXT, meter TEXT, body BLOB NOT NULL, PRIMARY KEY (period, tenant, meter)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS periods_to_archive ON periods (is_archived) WHERE is_archived = 0;
CREATE TABLE IF NOT EXISTS announced (
    tenant TEXT, meter TEXT, period TEXT, mark BLOB, PRIMARY KEY (tenant, meter, period, mark)
) WITHOUT ROWID;
PRAGMA user_version = {_FORMAT};
"""
_PAGE = 5_000
_PERIODS_PAGE = f"""
SELECT tenant, meter, period, body FROM periods WHERE (tenant, meter, period) > (?, ?, ?)
ORDER BY tenant, meter, period LIMIT {_PAGE}"""  # noqa: S608 - a constant
_HOURS_PAGE = f"""
SELECT period, tenant, meter, body FROM hours WHERE (period, tenant, meter) < (?, ?, ?)
ORDER BY period DESC, tenant DESC, meter DESC LIMIT {_PAGE}"""  # noqa: S608 - a constant


class BookInUseError(UnavailableError):
    """Another process has the book open."""

    code = "book_in_use"


def digest_of(raw: bytes) -> bytes:
    """Return what the book remembers of a journal record."""
    return hashlib.blake2b(raw, digest_size=16).digest()


class QuotaBook:
    """Implements `streams.domain.quota_totals.TotalsBook`; what was put is durable with `commit`."""

    def __init__(self, path: Path) -> None:
        """Open the file, or a new one in place of one that cannot be read; raises `BookInUseError`."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                self._db.close()
                raise BookInUseError(f"{path} is open in another process") from error
            raise
        except sqlite3.DatabaseError:
            self._db.close()
            _remove(self._path)
            self._open()

    @classmethod
    async def open(cls, path: Path, *, wait_s: float = 10.0) -> QuotaBook:
        """Open the file as soon as its owner gives it up.

        An owner that does not (a process that hangs) keeps what it has under no name, and a new book begins.
        """
        until = time.monotonic() + wait_s
        while True:
            try:
                return cls(path)
            except BookInUseError:
                if time.monotonic() >= until:
                    _remove(path)
            await asyncio.sleep(0.1)

    @property
    def progress(self) -> tuple[int, int, bytes] | None:
        """The journal offset the book reaches to, that record's received time and digest; None if it is empty."""
        found = self._db.execute("SELECT journal_offset, received_ms, digest FROM progress").fetchone()
        return None if found is None else (found[0], found[1], found[2])

    def find(self, key: PeriodKey) -> PeriodState | None:
        """Return a period's state."""
        table = "hours" if len(key[2]) == HOUR_LENGTH else "periods"
        found = self._db.execute(
            f"SELECT body FROM {table} WHERE tenant = ? AND meter = ? AND period = ?",  # noqa: S608 - two constants
            key,
        ).fetchone()
        return None if found is None else decode_state(key, found[0])

    def put(self, states: Mapping[PeriodKey, PeriodState]) -> None:
        """Keep the states."""
        rows = [(*key, encode_state(state)) for key, state in states.items()]
        self._db.executemany(
            "INSERT OR REPLACE INTO hours (tenant, meter, period, body) VALUES (?, ?, ?, ?)",
            (row for row in rows if len(row[2]) == HOUR_LENGTH),
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO periods (tenant, meter, period, body) VALUES (?, ?, ?, ?)",
            (row for row in rows if len(row[2]) != HOUR_LENGTH),
        )

    def newest(self) -> Iterable[PeriodKey]:
        """Return the newest month and billing period of each tenant and meter."""
        return self._db.execute(
            "SELECT tenant, meter, max(period) FROM periods WHERE length(period) IN (7, 10)"
            " GROUP BY tenant, meter, length(period)"
        ).fetchall()

    def periods(self, *, hours: bool) -> Iterator[tuple[PeriodKey, PeriodState]]:
        """Yield all hours, newest first, or all other periods; what is put meanwhile may or may not be among them."""
        # In pages by primary key: a cursor left open while rows change would see some twice.
        statement, last = (_HOURS_PAGE, ("~", "", "")) if hours else (_PERIODS_PAGE, ("", "", ""))
        while True:
            rows = self._db.execute(statement, last).fetchall()
            for *names, body in rows:
                key = (names[1], names[2], names[0]) if hours else (names[0], names[1], names[2])
                yield key, decode_state(key, body)
            if len(rows) < _PAGE:
                return
            last = rows[-1][:3]

    def announced(self) -> list[Mark]:
        """Return the crossings that were announced."""
        return [_read_mark((row[0], row[1], row[2]), row[3]) for row in self._db.execute("SELECT * FROM announced")]

    def add_announced(self, marks: Iterable[Mark]) -> None:
        """Remember crossings as announced."""
        self._db.executemany(
            "INSERT OR IGNORE INTO announced VALUES (?, ?, ?, ?)", ((*mark[0], _write_mark(mark)) for mark in marks)
        )

    def commit(self, journal_offset: int, received_ms: int, digest: bytes) -> None:
        """Make everything put so far durable, as reaching to that journal record."""
        self._db.execute(
            "INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?)", (_FORMAT, journal_offset, received_ms, digest)
        )
        self._db.commit()

    def forget_hours_before(self, period: str) -> None:
        """Drop hours that no rolling window reaches any more."""
        self._db.execute("DELETE FROM hours WHERE period < ?", (period,))

    def to_archive(self, limit: int) -> list[tuple[PeriodKey, bytes]]:
        """Return up to `limit` periods, without hours, that changed since they were last archived."""
        rows = self._db.execute(
            "SELECT tenant, meter, period, body FROM periods WHERE is_archived = 0 LIMIT ?", (limit,)
        ).fetchall()
        return [((tenant, meter, period), body) for tenant, meter, period, body in rows]

    def mark_archived(self, rows: Iterable[tuple[PeriodKey, bytes]]) -> None:
        """Remember periods as archived, unless they changed again."""
        self._db.executemany(
            "UPDATE periods SET is_archived = 1 WHERE tenant = ? AND meter = ? AND period = ? AND body = ?",
            ((*key, body) for key, body in rows),
        )

    def clear(self) -> None:
        """Forget everything."""
        self._db.close()
        _remove(self._path)
        self._open()

    def close(self) -> None:
        """Close the file; what was put since the last commit is forgotten."""
        self._db.rollback()
        self._db.close()

    def _open(self) -> None:
        self._db = sqlite3.connect(self._path, timeout=0.05)
        known = self._db.execute("PRAGMA user_version").fetchone()[0]
        if known not in (0, _FORMAT):
            raise sqlite3.DatabaseError(f"format {known}")
        self._db.executescript(_SCHEMA)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _write_mark(mark: Mark) -> bytes:
    _, threshold, limit, arming = mark
    text = None if limit is None else f"{limit.normalize():f}"
    return msgspec.json.encode([threshold.kind, f"{threshold.value.normalize():f}", text, arming])


def _read_mark(key: PeriodKey, raw: bytes) -> Mark:
    kind, value, limit, arming = msgspec.json.decode(raw)
    return (key, Threshold(kind, Decimal(value)), None if limit is None else Decimal(limit), arming)
