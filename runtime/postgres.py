"""Connections to PostgreSQL: one pool per process, rows as dictionaries, statements bounded in time."""

from __future__ import annotations

import asyncio
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from runtime.settings import Settings

Connection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]
# A server, or the network before it, that says nothing at all is noticed after this; psycopg then takes up to ten
# seconds more to let go of the connection.
_SILENT_SECONDS = 3


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
        connection_class=AsyncConnection[DictRow],
        kwargs=arguments,
        min_size=1,
        max_size=max_size,
        open=False,
        check=_check,
    )


async def _check(connection: Connection) -> None:
    """Raise if the connection is broken, or silent: without a bound of its own the check would wait for ever."""
    async with asyncio.timeout(_SILENT_SECONDS):
        await AsyncConnectionPool.check_connection(connection)
