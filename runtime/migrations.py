"""Migrations for both stores: numbered SQL files, applied once, in order, with the checksum of each kept.

A file that was applied and then changed stops everything: a merged migration never changes. One small runner serves
PostgreSQL and ClickHouse because the rules must be the same for both (docs/decisions/0006).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol

import msgspec
import psycopg
from clickhouse_connect.driver.exceptions import ClickHouseError

from core.errors import ConflictError, UnavailableError
from runtime.clickhouse import connect_clickhouse
from runtime.settings import Settings

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_ADVISORY_LOCK = 7_410_221
CHECKSUMS = "checksums.json"
_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)
    |(?P<quoted>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`(?:[^`\\]|\\.|``)*`)
    |(?P<end>;)
    |(?P<text>[^;'"`/-]+|-(?!-)|/(?!\*))""",
    re.DOTALL | re.VERBOSE,
)


class MigrationChangedError(ConflictError):
    """A migration that was already applied has changed since."""

    code = "migration_changed"


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration file."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file's text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


class MigrationStore(Protocol):
    """Where migrations are applied and remembered."""

    def applied(self) -> dict[str, str]:
        """Return name -> checksum of what was applied before."""
        ...

    def apply(self, migration: Migration) -> None:
        """Run the migration and remember it."""
        ...


def read_migrations(store: str) -> list[Migration]:
    """Return the migrations of `store` ("postgres" or "clickhouse") in order; a badly named file is refused."""
    folder = resources.files("sql") / store / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    if not names:
        raise ConflictError(f"there are no {store} migrations: the installation is incomplete")
    for name in names:
        if not _NAME.fullmatch(name):
            raise ConflictError(f"{store} migration {name}: expected a name such as 0012_add_line_reference.sql")
    numbers = [name[:4] for name in names]
    if len(set(numbers)) != len(numbers):
        raise ConflictError(f"two {store} migrations share a number: {', '.join(names)}")
    migrations = [Migration(name, (folder / name).read_text()) for name in names]
    _check_merged(store, migrations, msgspec.json.decode((folder / CHECKSUMS).read_bytes(), type=dict[str, str]))
    return migrations


def _check_merged(store: str, migrations: list[Migration], merged: dict[str, str]) -> None:
    """Refuse a migration that is not, byte for byte, what was merged: what `checksums.json` beside it says."""
    for migration in migrations:
        line = f'"{migration.name}": "{migration.checksum}"'
        if migration.name not in merged:
            raise ConflictError(f"{store} migration {migration.name} is new: add {line} to {CHECKSUMS} beside it")
        if merged[migration.name] != migration.checksum:
            raise MigrationChangedError(
                f"{store} migration {migration.name} has changed since it was merged; write a new migration instead"
            )
    if gone := sorted(set(merged) - {migration.name for migration in migrations}):
        raise MigrationChangedError(f"{store} migrations were merged and are gone: {', '.join(gone)}")


def read_schema(store: str) -> str:
    """Return the present schema of `store` as SQL text."""
    return (resources.files("sql") / store / "schema.sql").read_text()


def split_statements(sql: str) -> list[str]:
    """Split SQL into statements at semicolons outside of quotes, comments dropped (ClickHouse takes one at a time).

    Raises `ConflictError` for a quote or comment that never ends: half a statement must not run.
    """
    statements, current, position = [], "", 0
    while position < len(sql):
        found = _TOKEN.match(sql, position)
        if found is None:
            line = sql.count("\n", 0, position) + 1
            raise ConflictError(f"line {line}: a quote or comment begins and does not end: {sql[position:][:40]!r}")
        position = found.end()
        if found.lastgroup == "comment":
            # A comment separates words as a blank does.
            current += " "
        elif found.lastgroup == "end":
            statements.append(current.strip())
            current = ""
        else:
            current += found.group()
    return [statement for statement in [*statements, current.strip()] if statement]


def apply_pending(store: MigrationStore, migrations: list[Migration]) -> list[str]:
    """Apply what is missing and return its names; raises `MigrationChangedError` before anything runs."""
    done = store.applied()
    known = {migration.name for migration in migrations}
    for migration in migrations:
        if migration.name in done and done[migration.name] != migration.checksum:
            raise MigrationChangedError(
                f"migration {migration.name} was applied with other content; write a new migration instead"
            )
    if missing := sorted(set(done) - known):
        raise ConflictError(f"the store has migrations this program does not know: {', '.join(missing)}")
    pending = [migration for migration in migrations if migration.name not in done]
    for migration in pending:
        store.apply(migration)
    return [migration.name for migration in pending]


class PostgresMigrations:
    """Migrations in PostgreSQL, each in a transaction of its own, under an advisory lock."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            "name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )

    def applied(self) -> dict[str, str]:
        """Return name -> checksum."""
        return dict(self._connection.execute("SELECT name, checksum FROM schema_migrations").fetchall())

    def apply(self, migration: Migration) -> None:
        """Run one migration and remember it, both or neither."""
        with self._connection.transaction():
            self._connection.execute(migration.sql.encode())
            self._connection.execute(
                "INSERT INTO schema_migrations (name, checksum) VALUES (%s, %s)", (migration.name, migration.checksum)
            )


class ClickHouseMigrations:
    """Migrations in ClickHouse. It has no transactions: statements must be safe to run again after a crash."""

    def __init__(self, client: Any) -> None:
        self._client = client
        client.command(
            "CREATE TABLE IF NOT EXISTS schema_migrations (name String, checksum String,"
            " applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = ReplacingMergeTree ORDER BY name"
        )

    def applied(self) -> dict[str, str]:
        """Return name -> checksum."""
        rows = self._client.query("SELECT name, checksum FROM schema_migrations FINAL").result_rows
        return dict(rows)

    def apply(self, migration: Migration) -> None:
        """Run one migration statement by statement, then remember it."""
        for statement in split_statements(migration.sql):
            self._client.command(statement.replace("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ", 1))
        self._client.insert(
            "schema_migrations", [[migration.name, migration.checksum]], column_names=["name", "checksum"]
        )


@contextmanager
def _locked(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_ADVISORY_LOCK,))
        yield connection


def migrate(settings: Settings) -> dict[str, list[str]]:
    """Bring both stores to the present schema; returns the names applied now, by store.

    Two callers at once take turns (an advisory lock in PostgreSQL guards both stores). Raises `ConflictError` before
    anything runs if a migration is not what it was, `UnavailableError` if a store does not answer.
    """
    pending = {store: read_migrations(store) for store in ("postgres", "clickhouse")}
    try:
        with _locked(settings.postgres) as connection, closing(connect_clickhouse(settings)) as client:
            return {
                "postgres": apply_pending(PostgresMigrations(connection), pending["postgres"]),
                "clickhouse": apply_pending(ClickHouseMigrations(client), pending["clickhouse"]),
            }
    except (psycopg.OperationalError, ClickHouseError) as error:
        raise UnavailableError(f"the stores cannot be migrated: {error}") from error
