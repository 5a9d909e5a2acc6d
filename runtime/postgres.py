"""Connections to PostgreSQL: one pool per process, rows as dictionaries, statements bounded in time."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from runtime.settings import Settings

Connection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]


def create_pool(settings: Settings, *, max_size: int = 8) -> Pool:
    """Return a closed pool (`async with` or `await pool.open()` opens it); a statement may take 60 s at most."""
    arguments: dict[str, Any] = {
        "row_factory": dict_row,
        "options": "-c statement_timeout=60000 -c idle_in_transaction_session_timeout=60000 -c timezone=UTC",
        "application_name": "meterbook",
        "connect_timeout": 3,
    }
    return AsyncConnectionPool(
        settings.postgres,
        connection_class=AsyncConnection[DictRow],
        kwargs=arguments,
        min_size=1,
        max_size=max_size,
        open=False,
        check=AsyncConnectionPool.check_connection,
    )
