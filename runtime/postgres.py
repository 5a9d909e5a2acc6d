"""Connections to PostgreSQL: one pool per process, rows as dictionaries, statements bounded in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from psycopg import AsyncConnection, OperationalError
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from core.plain_json import write_plain_json
from runtime.settings import Settings

Connection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]
# Longer than the server lets a statement take: whoever is silent for so long will not answer any more.
_ANSWER_SECONDS = 75.0
# A server, or the network before it, that says nothing at all is noticed after this; psycopg then takes up to ten
# seconds more to let go of the connection.
_SILENT_SECONDS = 3


class _BoundedConnection(AsyncConnection[DictRow]):
    """Gives an answer up that does not come.

    The server's own bound on statements cannot be heard through a network that went silent, and TCP's keepalives do not
    notice what still answers them.
    """

    async def wait(self, *args: Any, **kwargs: Any) -> Any:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await super().wait(*args, **kwargs)
        except TimeoutError:
            raise OperationalError(f"PostgreSQL has not answered for {_ANSWER_SECONDS:.0f} s") from None


def create_pool(settings: Settings, *, max_size: int = 8) -> Pool:
    """Return a closed pool (`async with` or `await pool.open()` opens it); a statement may take 60 s at most."""
    arguments: dict[str, Any] = {
        "row_factory": dict_row,
        "options": "-c statement_timeout=60000 -c idle_in_transaction_session_timeout=60000 -c timezone=UTC",
        "application_name": "meterbook",
        "connect_timeout": 3,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    return AsyncConnectionPool(
        settings.postgres,
        connection_class=_BoundedConnection,
        kwargs=arguments,
        min_size=1,
        max_size=max_size,
        open=False,
        check=_check,
    )


class _OneConnection:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[Connection]:
        yield self._connection


def join(connection: Connection) -> Pool:
    """Return what stands for a pool where verbs of several stages are to be one transaction.

    Whoever asks it for a connection gets the caller's, and transactions begun there are savepoints of the caller's.
    """
    return cast(Pool, _OneConnection(connection))


def plain_jsonb(document: Any) -> Jsonb:
    """Return a document to be stored as JSON, written as `core.plain_json` does: for those there are very many of."""
    return Jsonb(document, dumps=write_plain_json)


async def _check(connection: Connection) -> None:
    """Raise if the connection is broken, or silent: without a bound of its own the check would wait for ever."""
    async with asyncio.timeout(_SILENT_SECONDS):
        await AsyncConnectionPool.check_connection(connection)
