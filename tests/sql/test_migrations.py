"""The migration runner: once, in order, never changed, one caller at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConflictError, UnavailableError
from runtime import migrations
from runtime.migrations import (
    Migration,
    MigrationChangedError,
    PostgresMigrations,
    apply_pending,
    migrate,
    read_migrations,
    split_statements,
)
from runtime.settings import Settings, load_settings

STORES = ("postgres", "clickhouse")


class MemoryStore:
    """A store that remembers what it ran."""

    def __init__(self, *applied: Migration) -> None:
        self.done = {migration.name: migration.checksum for migration in applied}
        self.ran: list[str] = []

    def applied(self) -> dict[str, str]:
        return dict(self.done)

    def apply(self, migration: Migration) -> None:
        self.ran.append(migration.name)
        self.done[migration.name] = migration.checksum


FIRST, SECOND = Migration("0001_first.sql", "CREATE TABLE a (x int)"), Migration("0002_second.sql", "SELECT 2")


def test_what_is_missing_is_applied_in_order_and_never_again() -> None:
    store = MemoryStore(FIRST)
    assert apply_pending(store, [FIRST, SECOND]) == ["0002_second.sql"]
    assert apply_pending(store, [FIRST, SECOND]) == []
    assert store.ran == ["0002_second.sql"]


def test_a_changed_migration_is_refused_before_anything_runs() -> None:
    store = MemoryStore(FIRST)
    with pytest.raises(MigrationChangedError, match="0001_first") as refused:
        apply_pending(store, [Migration(FIRST.name, FIRST.sql + " "), SECOND])
    assert refused.value.code == "migration_changed"
    assert store.ran == []


def test_a_store_that_is_ahead_of_the_program_is_refused() -> None:
    store = MemoryStore(FIRST, SECOND)
    with pytest.raises(ConflictError, match="0002_second"):
        apply_pending(store, [FIRST])
    assert store.ran == []


# Migration files on disk


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation of which the test writes the migrations."""
    found = tmp_path / "postgres" / "migrations"
    found.mkdir(parents=True)
    monkeypatch.setattr(migrations.resources, "files", lambda _: tmp_path)
    return found


def write(folder: Path, files: dict[str, str], checksums: dict[str, str] | None = None) -> None:
    for name, sql in files.items():
        (folder / name).write_text(sql)
    if checksums is None:
        checksums = {name: sha256(sql.encode()).hexdigest() for name, sql in files.items()}
    (folder / "checksums.json").write_text(json.dumps(checksums))


def test_files_are_read_in_order_of_their_numbers(folder: Path) -> None:
    write(folder, {"0002_b.sql": "2", "0010_c.sql": "10", "0001_a.sql": "1"})
    assert [migration.sql for migration in read_migrations("postgres")] == ["1", "2", "10"]


@pytest.mark.parametrize("name", ["1_a.sql", "0001-a.sql", "0001_A.sql", "0001_a b.sql", "first.sql", "00001_a.sql"])
def test_a_badly_named_file_is_refused(folder: Path, name: str) -> None:
    write(folder, {name: "1"})
    with pytest.raises(ConflictError, match="expected a name such as"):
        read_migrations("postgres")


def test_two_files_of_one_number_are_refused(folder: Path) -> None:
    write(folder, {"0001_a.sql": "1", "0001_b.sql": "2"})
    with pytest.raises(ConflictError, match="share a number"):
        read_migrations("postgres")


def test_an_installation_without_migrations_is_refused(folder: Path) -> None:
    write(folder, {})
    with pytest.raises(ConflictError, match="incomplete"):
        read_migrations("postgres")


def test_a_merged_file_that_changed_is_refused(folder: Path) -> None:
    write(folder, {"0001_a.sql": "1"}, {"0001_a.sql": sha256(b"before").hexdigest()})
    with pytest.raises(MigrationChangedError, match="has changed since it was merged"):
        read_migrations("postgres")


def test_a_merged_file_that_is_gone_is_refused(folder: Path) -> None:
    write(folder, {"0001_a.sql": "1"}, {"0001_a.sql": sha256(b"1").hexdigest(), "0002_b.sql": "0"})
    with pytest.raises(MigrationChangedError, match="gone: 0002_b"):
        read_migrations("postgres")


def test_a_new_file_is_refused_with_the_line_to_add(folder: Path) -> None:
    write(folder, {"0001_a.sql": "1"}, {})
    with pytest.raises(ConflictError, match=f'"0001_a.sql": "{sha256(b"1").hexdigest()}"'):
        read_migrations("postgres")


@pytest.mark.parametrize("store", STORES)
def test_the_migrations_of_this_program_are_as_they_were_merged(store: str) -> None:
    found = read_migrations(store)
    assert [int(migration.name[:4]) for migration in found] == list(range(1, len(found) + 1))


# Splitting into statements

PLAIN = st.text("abc xyz()=-/*\n\t_0123", min_size=1, max_size=12).filter(
    lambda text: (
        "--" not in text and "/*" not in text and not text.endswith(("-", "/")) and not text.startswith(("-", "*"))
    )
)
QUOTED = st.tuples(st.sampled_from("'\"`"), st.text("ab;-/*\n '\"`\\", max_size=10)).map(
    lambda pair: pair[0] + pair[1].replace("\\", "\\\\").replace(pair[0], pair[0] * 2) + pair[0]
)
COMMENT = st.text("ab;'\"`- ", max_size=10).flatmap(lambda text: st.sampled_from([f"--{text}\n", f"/*{text}*/"]))


@given(
    st.lists(st.lists(st.one_of(PLAIN, QUOTED, COMMENT.map(lambda text: ("comment", text))), max_size=6), max_size=5)
)
def test_statements_end_at_semicolons_that_are_neither_quoted_nor_commented(pieces: list[list[Any]]) -> None:
    # Parts are separated by a blank, so that the end of one and the start of the next do not make a comment.
    sql = " ;".join(" ".join(piece if isinstance(piece, str) else piece[1] for piece in part) for part in pieces)
    wanted = ["".join(piece for piece in part if isinstance(piece, str)) for part in pieces]
    found = split_statements(sql)
    assert [_without_blanks(text) for text in found] == [_without_blanks(text) for text in wanted if text.strip()]


@pytest.mark.parametrize("sql", ["SELECT 'a", 'SELECT "a;', "SELECT `a", "SELECT 1 /* ;", "SELECT 'it''s"])
def test_a_quote_or_comment_that_never_ends_is_refused(sql: str) -> None:
    with pytest.raises(ConflictError, match="line 2: a quote or comment"):
        split_statements(f"SELECT 1;\n{sql}")


def test_a_semicolon_in_text_stays_and_comments_go() -> None:
    sql = "SELECT 'a;''b\\';c' -- not; this\n, 1 - 1, 4 / 2; /* nor;\n this */ SELECT \"x;y\";;"
    assert [_without_blanks(text) for text in split_statements(sql)] == [
        _without_blanks("SELECT 'a;''b\\';c' , 1 - 1, 4 / 2"),
        _without_blanks('SELECT "x;y"'),
    ]


def _without_blanks(text: str) -> str:
    return "".join(text.split())


# On the real stores


@pytest.mark.integration
def test_running_again_applies_nothing(settings: Settings) -> None:
    assert migrate(settings) == {"postgres": [], "clickhouse": []}


@pytest.mark.integration
def test_a_failing_migration_leaves_nothing_and_is_not_remembered(
    fresh_postgres: Callable[[], psycopg.Connection[Any]],
) -> None:
    connection = fresh_postgres()
    broken = Migration("0002_broken.sql", "CREATE TABLE b (x int); SELECT 1 / 0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        apply_pending(PostgresMigrations(connection), [FIRST, broken])
    tables = {name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert tables == {"schema_migrations", "a"}
    assert PostgresMigrations(connection).applied() == {FIRST.name: FIRST.checksum}


@pytest.mark.integration
def test_two_migrators_at_once_take_turns(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, overlaps = threading.Semaphore(1), []
    plain = migrations.apply_pending

    def watched(*arguments: Any) -> list[str]:
        if not inside.acquire(blocking=False):
            overlaps.append(arguments)
            return []
        try:
            return plain(*arguments)
        finally:
            inside.release()

    monkeypatch.setattr(migrations, "apply_pending", watched)
    with ThreadPoolExecutor(4) as pool:
        done = [started.result() for started in [pool.submit(migrate, settings) for _ in range(8)]]
    assert done == [{"postgres": [], "clickhouse": []}] * 8
    assert overlaps == []


@pytest.mark.integration
@pytest.mark.parametrize("engine", STORES)
def test_a_store_that_is_away_is_told(settings: Settings, engine: str) -> None:
    urls = {f"{name}_url": getattr(settings, name) for name in STORES}
    away = {"postgres": "postgresql://meterbook@127.0.0.1:1/meterbook", "clickhouse": "http://127.0.0.1:1/meterbook"}
    with pytest.raises(UnavailableError, match="cannot be migrated"):
        migrate(load_settings(home=settings.home, **{**urls, f"{engine}_url": away[engine]}))
