"""Fixtures of the bank desk: the folder's PostgreSQL without stand-ins, and books with tenants and invoices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from runtime.migrations import migrate
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings, load_settings
from tests.payments.bank.scene import Scene


@pytest.fixture(scope="module")
def settings(stack: Any) -> Settings:
    found = load_settings(home=stack.home)
    migrate(found)
    return found


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Pool]:
    async with create_pool(settings) as pool:
        yield pool


@pytest.fixture
async def scene(pool: Pool) -> AsyncIterator[Scene]:
    scene = Scene(pool, datetime(2026, 11, 2, 9, tzinfo=UTC))
    yield scene
    await scene.check_books()
