"""Connections to PostgreSQL: an answer that does not come is given up, and the next caller gets one that works."""

from __future__ import annotations

import pytest
from psycopg import OperationalError

from runtime import postgres
from runtime.postgres import create_pool
from runtime.settings import Settings


@pytest.mark.integration
async def test_an_answer_that_does_not_come_is_given_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_ANSWER_SECONDS", 0.5)
    async with create_pool(settings, max_size=1) as pool:
        with pytest.raises(OperationalError, match="has not answered"):
            async with pool.connection() as connection:
                await connection.execute("SELECT pg_sleep(60)")
        async with pool.connection() as connection:
            row = await (await connection.execute("SELECT 1 AS one")).fetchone()
    assert row == {"one": 1}
