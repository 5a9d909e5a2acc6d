"""Fixtures of alerts: stand-ins for Slack and mail, and the real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from runtime.kafka_topics import create_topics
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings, load_settings
from tests.standins.process import Standins


@pytest.fixture
async def settings(migrated: Any, standins: Standins) -> Settings:
    found = load_settings(
        home=migrated.home,
        slack_webhook_url=standins.slack_url,
        smtp_url=standins.smtp_url,
        alert_email_to="ops@acme.invalid,finance@acme.invalid",
    )
    await create_topics(found)
    return found


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Pool]:
    async with create_pool(settings) as pool:
        # Deliveries of other tests would be delivered here too.
        async with pool.connection() as connection:
            await connection.execute("DELETE FROM alert_deliveries")
            await connection.execute("DELETE FROM webhook_deliveries")
            await connection.execute("DELETE FROM webhook_endpoints")
            await connection.execute("DELETE FROM alert_rules")
        yield pool
