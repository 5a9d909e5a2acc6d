"""The chDB engine in this process. Owns its connections: sessions, settings of one request, results, inserts.

Measured on chDB 4.4 (engine 26.9): a connection is one ClickHouse session with its own settings and current
database, takes 0.2 ms to open, and connections of one data folder work side by side in threads. So each request has a
connection of its own unless it names a session.

A result leaves the engine through a pipe: `INTO OUTFILE '/dev/fd/N'` makes the engine itself write any format as its
server would, without holding it in memory, and the pipe holds the query back while a client reads slowly.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chdb.state.sqlitelike import Connection, StreamingInserter

from runtime.stack.clickhouse.exceptions import (
    SESSION_IS_LOCKED,
    SESSION_NOT_FOUND,
    ClickHouseError,
    from_engine,
)

# What chDB raises: its own RuntimeError, and ValueError or TypeError from the binding for what it cannot take.
ENGINE_ERRORS = (RuntimeError, ValueError, TypeError)
_NO_RESULT_FORMAT = "TabSeparated"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a statement did: rows and bytes read from storage, written, and sent as its result; nanoseconds taken."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    elapsed_ns: int = 0


@dataclass(slots=True)
class _Session:
    connection: Connection
    timeout_seconds: float
    database: str = "default"
    used_at: float = field(default_factory=time.monotonic)
    busy: bool = True


class Lease:
    """A connection for one request, with the request's database and settings applied; give it back with `release`."""

    def __init__(self, engine: Engine, connection: Connection, session: _Session | None) -> None:
        self._engine = engine
        self._connection = connection
        self._session = session
        self._restore: list[str] = []
        self._released = False
        self.marker = uuid.uuid4().hex

    def apply(self, database: str, settings: Mapping[str, str]) -> None:
        """Make the database current and set the settings, both for this request only."""
        self._query(f"USE {_quoted(database or (self._session.database if self._session else 'default'), '`')}")
        if self._session is not None:
            # A connection that was made read-only stays so; the front has seen to it that this statement only reads.
            settings = {name: value for name, value in settings.items() if name != "readonly"}
        if not settings:
            return
        if self._session is not None:
            self._restore = self._restoring(settings)
        # `readonly` comes last: once it is set, nothing else can be.
        ordered = sorted(settings.items(), key=lambda setting: setting[0] == "readonly")
        self._query("SET " + ", ".join(f"{_name(name)} = {_quoted(value)}" for name, value in ordered))

    def execute(self, sql: bytes, parameters: Mapping[str, str], format_name: str) -> tuple[bytes, Summary]:
        """Run a statement and return all of what it answers."""
        started = time.monotonic_ns()
        result = self._query(sql, parameters, format_name or _NO_RESULT_FORMAT)
        if self._session is not None and sql.lstrip()[:4].upper() in (b"USE ", b"USE\n", b"USE\t"):
            self._session.database = self._query("SELECT currentDatabase()").bytes().decode().rstrip("\n")
        return bytes(result.bytes() or b""), _summary(result, started)

    def write_result(
        self, head: bytes, tail: bytes, parameters: Mapping[str, str], format_name: str, pipe: int
    ) -> Summary:
        """Run a query and write its result to `pipe`, which is closed in the end; the text's own FORMAT wins."""
        started = time.monotonic_ns()
        # The marker is how `Engine.cancel` finds the query.
        outfile = f"\nINTO OUTFILE '/dev/fd/{pipe}' TRUNCATE COMPRESSION 'none' /* {self.marker} */\n".encode()
        clause = b"" if tail.strip()[:6].upper() == b"FORMAT" else f"FORMAT {format_name} ".encode()
        try:
            return _summary(self._query(head + outfile + clause + tail, parameters, format_name), started)
        finally:
            os.close(pipe)

    def begin_insert(self, head: bytes, parameters: Mapping[str, str], format_name: str) -> Insert:
        """Begin an insert whose data is appended piece by piece."""
        if parameters:
            self._query(
                "SET " + ", ".join(f"{_name('param_' + name)} = {_quoted(value)}" for name, value in parameters.items())
            )
        try:
            return Insert(self._connection.send_insert(head.decode(), format_name))
        except ENGINE_ERRORS as error:
            raise from_engine(error) from error

    def create_temporary_table(self, name: str, structure: str, format_name: str, data: bytes) -> None:
        """Hold data that came with a query as a temporary table of this connection."""
        self._query(f"CREATE OR REPLACE TEMPORARY TABLE {_quoted(name, '`')} ({structure}) ENGINE = Memory")
        self._restore.append(f"DROP TEMPORARY TABLE IF EXISTS {_quoted(name, '`')}")
        insert = self.begin_insert(f"INSERT INTO {_quoted(name, '`')}".encode(), {}, format_name)
        insert.append(data)
        insert.finish()

    def release(self) -> None:
        """Undo what was for this request only; the connection goes back to its session or is closed. Once is enough."""
        if self._released:
            return
        self._released = True
        if self._session is None:
            self._connection.close()
            return
        for statement in self._restore:
            # A setting may refuse to be set back (readonly); the session then lives on with it, as it asked for.
            with contextlib.suppress(ClickHouseError):
                self._query(statement)
        self._engine.give_back(self._session)

    def _restoring(self, settings: Mapping[str, str]) -> list[str]:
        names = ", ".join(_quoted(name) for name in settings)
        changed_now = f"SELECT name, value FROM system.settings WHERE changed AND name IN ({names})"  # noqa: S608 - quoted
        result = self._query(changed_now)
        changed = dict(line.split("\t", 1) for line in result.bytes().decode().splitlines())
        return [
            # TSV's escapes are those of a quoted string, but for the quote itself, which is escaped there too.
            f"SET {_name(name)} = '{changed[name]}'" if name in changed else f"SET {_name(name)} = DEFAULT"
            for name in settings
        ]

    def _query(
        self, sql: str | bytes, parameters: Mapping[str, str] | None = None, format_name: str = _NO_RESULT_FORMAT
    ) -> Any:
        text = sql.decode(errors="surrogateescape") if isinstance(sql, bytes) else sql
        try:
            return self._connection.query(text, format_name, params=dict(parameters or {}))
        except ENGINE_ERRORS as error:
            raise from_engine(error) from error


class Insert:
    """An insert that is under way; nothing is stored before `finish` unless it grows past the engine's block size."""

    def __init__(self, inserter: StreamingInserter) -> None:
        self._inserter = inserter
        self._started = time.monotonic_ns()

    def append(self, data: bytes) -> None:
        """Give the engine the next piece of data."""
        try:
            self._inserter.append(data)
        except ENGINE_ERRORS as error:
            self.cancel()
            raise from_engine(error) from error

    def finish(self) -> Summary:
        """Store the rows."""
        try:
            result = self._inserter.finish()
        except ENGINE_ERRORS as error:
            raise from_engine(error) from error
        elapsed = time.monotonic_ns() - self._started
        return Summary(written_rows=result.rows_written, written_bytes=result.bytes_written, elapsed_ns=elapsed)

    def cancel(self) -> None:
        """Give it up; rows that are not stored yet are dropped."""
        with contextlib.suppress(*ENGINE_ERRORS):
            self._inserter.cancel()


class Engine:
    """The engine over one data folder, which no other process may open at the same time."""

    def __init__(self, path: Path | str, database: str) -> None:
        self._path = str(path)
        # The engine lives as long as one connection does.
        self._root = Connection(self._path)
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}
        self.database = database
        self._root.query(f"CREATE DATABASE IF NOT EXISTS {_quoted(database, '`')}")
        said = self._root.query("SELECT version(), timezone(), hostName()", "TSV").bytes().decode()
        self.version, self.timezone, self.display_name = said.rstrip("\n").split("\t")

    def lease(self, session_id: str, timeout_seconds: float, must_exist: bool) -> Lease:
        """A connection for one request; of the session of that name unless it is "".

        Raises `ClickHouseError` when another request is using the session, or when it must exist and does not.
        """
        self._close_idle_sessions()
        if not session_id:
            return Lease(self, Connection(self._path), None)
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None:
                if must_exist:
                    raise ClickHouseError(SESSION_NOT_FOUND, f"Session {session_id} not found")
                session = self._sessions[session_id] = _Session(Connection(self._path), timeout_seconds)
            elif session.busy:
                raise ClickHouseError(SESSION_IS_LOCKED, f"Session {session_id} is locked by a concurrent client")
            session.busy = True
            session.timeout_seconds = timeout_seconds
        return Lease(self, session.connection, session)

    def give_back(self, session: _Session) -> None:
        """Let the next request of the session have its connection."""
        with self._lock:
            session.used_at = time.monotonic()
            session.busy = False

    def cancel(self, marker: str) -> None:
        """Stop the query of the lease that has this marker, if it is running."""
        self._kill(f"position(query, {_quoted(marker)}) > 0 AND query_id != queryID()")

    def stop_queries(self) -> None:
        """Stop all queries that run."""
        self._kill("query_id != queryID()")

    def close(self) -> None:
        """Close every session and flush the engine's files; no query may be running."""
        with self._lock:
            for session in self._sessions.values():
                session.connection.close()
            self._sessions.clear()
        self._root.close()

    def _kill(self, condition: str) -> None:
        connection = Connection(self._path)
        with contextlib.suppress(*ENGINE_ERRORS):
            connection.query(f"KILL QUERY WHERE {condition} ASYNC")
        connection.close()

    def _close_idle_sessions(self) -> None:
        now = time.monotonic()
        with self._lock:
            idle = [
                name
                for name, session in self._sessions.items()
                if not session.busy and now - session.used_at > session.timeout_seconds
            ]
            for name in idle:
                self._sessions.pop(name).connection.close()


def _summary(result: Any, started_ns: int) -> Summary:
    return Summary(
        read_rows=result.storage_rows_read(),
        read_bytes=result.storage_bytes_read(),
        written_rows=result.rows_written(),
        written_bytes=result.bytes_written(),
        result_rows=result.rows_read(),
        elapsed_ns=time.monotonic_ns() - started_ns,
    )


def _quoted(text: str, quote: str = "'") -> str:
    escaped = text.replace("\\", "\\\\").replace(quote, "\\" + quote)
    return f"{quote}{escaped}{quote}"


def _name(name: str) -> str:
    """A setting's name as it may stand in SQL; one that is no name is left to the engine to refuse, but quoted."""
    return name if name.replace("_", "a").replace(".", "a").isalnum() else _quoted(name, "`")
