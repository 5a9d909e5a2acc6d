"""What only a sample book on disk can suffer: kill -9, another live process, damage, a foreign file, growth."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import BrokenInvariantError
from streams.adapters import sqlite_samples
from streams.adapters.sample_book import forget
from streams.adapters.sqlite_samples import SqliteSamples
from tests.streams.sample_oracle import us
from tests.streams.test_samples_contract import PERIODS, SAMPLED, row_of, sample


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples-0.db"


PUT = sample("max", 5, "2026-10-03T10:00:00+00:00", 1)
MORE = sample("max", 9, "2026-10-03T10:00:00+00:00", 2)
DIES = """
import os, signal, sys
from pathlib import Path
from streams.adapters.sqlite_samples import SqliteSamples
from tests.streams.test_sqlite_samples import MORE, PERIODS, PUT
book = SqliteSamples(Path(sys.argv[1]))
book.apply([PUT], PERIODS)
book.commit(41)
book.apply([MORE], PERIODS)
print("applied", flush=True)
if sys.argv[2] == "hold":
    sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


def start_other(path: Path, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DIES, str(path), what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_kill_9_loses_no_commit_and_keeps_nothing_else(path: Path) -> None:
    with start_other(path, "die") as other:
        assert other.wait() == -signal.SIGKILL
    book = SqliteSamples(path)
    assert book.journal_offset == 41
    assert row_of(book.apply([MORE], PERIODS), "2026-10").events == 2
    book.close()


def test_a_book_held_by_another_process_is_left_alone(path: Path) -> None:
    with start_other(path, "hold") as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "applied\n"
        book = SqliteSamples(path)
        assert book.journal_offset == -1
        assert row_of(book.apply([MORE], PERIODS), "2026-10").events == 1
        book.commit(42)
        book.close()
        other.kill()
    book = SqliteSamples(path)
    assert book.journal_offset == 41
    book.close()


@pytest.mark.parametrize("damage", ["not a database", "cut short", "another form", "not a book", "another journal"])
def test_a_book_of_no_use_is_set_aside(path: Path, damage: str) -> None:
    book = SqliteSamples(path, journal="one")
    book.apply([PUT], PERIODS)
    book.commit(41)
    book.close()
    if damage == "not a database":
        path.write_bytes(os.urandom(20_000))
    elif damage == "cut short":
        os.truncate(path, 5_000)
    elif damage != "another journal":
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99" if damage == "another form" else "DROP TABLE facts")
        db.close()
    book = SqliteSamples(path, journal="two" if damage == "another journal" else "one")
    assert book.journal_offset == -1
    assert row_of(book.apply([MORE], PERIODS), "2026-10").events == 1
    book.close()
    assert path.with_name("samples-0.db.unusable").exists()


def test_damage_found_while_working_ends_the_work_and_the_next_begins_anew(path: Path) -> None:
    book = SqliteSamples(path)
    book.apply([sample("max", 5, "2026-10-03T10:00:00+00:00", offset) for offset in range(3_000)], PERIODS)
    book.commit(41)
    book.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(3 * 4_096)
        file.write(b"\xff" * (size - 3 * 4_096))
    book = SqliteSamples(path)
    with pytest.raises(BrokenInvariantError, match="was damaged"):
        book.apply([MORE], PERIODS)
    book = SqliteSamples(path)
    assert book.journal_offset == -1
    book.close()


def test_forgetting_makes_the_book_smaller(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget, "SAMPLES_AT_ONCE", 10)
    book = SqliteSamples(path)
    rows = [
        sample(meter, f"u{number}" if meter == "unique" else number, us("2025-10-03T10:00:00+00:00") + number, number)
        for meter in SAMPLED
        for number in range(30)
    ]
    book.apply(rows, PERIODS)
    for _ in range(30):
        book.forget_before(us("2026-10-01T00:00:00+00:00"))
    book.commit(0)
    book.close()
    with sqlite3.connect(path) as db:
        left = {table: db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in TABLES}
    db.close()
    # One level is carried over.
    assert left == {"texts": 0, "text_slots": 0, "numbers": 0, "levels": 1, "totals": 0}


TABLES = ("texts", "text_slots", "numbers", "levels", "totals")


def test_a_private_book_needs_no_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep: Callable[[Path], int | None] = lambda _: None  # noqa: E731
    monkeypatch.setattr(sqlite_samples, "_try_lock", keep)
    book = SqliteSamples(path)
    assert row_of(book.apply([PUT], PERIODS), "2026-10").events == 1
    book.commit(3)
    assert book.journal_offset == 3
    book.close()
    assert not path.exists()
