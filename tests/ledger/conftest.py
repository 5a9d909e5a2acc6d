"""A ledger of each kind, and tenants to post for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from itertools import count

import pytest

from ledger.adapters.memory import MemoryLedger
from ledger.adapters.postgres import PostgresLedger
from ledger.ports import Ledger
from runtime.postgres import create_pool
from runtime.settings import Settings

NOW = datetime(2026, 11, 4, 10, 0, tzinfo=UTC)
OpenLedger = Callable[[], AbstractAsyncContextManager[Ledger]]
_numbers = count()


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.integration)])
def engines(request: pytest.FixtureRequest) -> Settings | None:
    return request.getfixturevalue("settings") if request.param == "real" else None


@pytest.fixture
async def open_ledger(engines: Settings | None, tenant: str) -> AsyncIterator[OpenLedger]:
    """Opens the ledger in a transaction of its own each time."""
    if engines is None:
        one = MemoryLedger()

        @asynccontextmanager
        async def in_memory() -> AsyncIterator[Ledger]:
            yield one

        yield in_memory
        return
    async with create_pool(engines, max_size=8) as pool:
        async with pool.connection() as connection:
            await connection.execute(
                "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
                " VALUES (%s, 'Acme', 'a@acme.example', 'US', 'USD', %s)",
                (tenant, NOW),
            )

        @asynccontextmanager
        async def in_postgres() -> AsyncIterator[Ledger]:
            async with pool.connection() as connection, connection.transaction():
                yield PostgresLedger(connection)

        yield in_postgres


@pytest.fixture
def tenant() -> str:
    return f"ledger-{next(_numbers)}"
