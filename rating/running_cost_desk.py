"""Answers what a tenant's billing period costs so far, within milliseconds: from Redis, else from ClickHouse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from core.errors import UnavailableError
from rating.adapters.clickhouse import ClickHouseRating
from rating.adapters.redis_costs import RedisCosts
from runtime.redis import connect_redis
from runtime.settings import Settings


class RunningCostDesk:
    """Running costs as JSON documents."""

    def __init__(self, view: RedisCosts, store: ClickHouseRating) -> None:
        self._view, self._store = view, store

    async def cost(self, tenant_id: str, period: str) -> dict[str, Any]:
        """Return what a billing period (`2026-10`, or its first day) costs so far; no charges where there is no cost.

        Raises `UnavailableError` if neither store answers.
        """
        try:
            return (await self._view.read(tenant_id, period, self._store)).as_document()
        except (ClickHouseError, OSError, TimeoutError) as error:
            raise UnavailableError("running costs cannot be read now") from error


@asynccontextmanager
async def open_running_costs(settings: Settings) -> AsyncIterator[RunningCostDesk]:
    """Open the desk; stores that are away are waited for by requests."""
    view = RedisCosts(connect_redis(settings.redis, timeout_s=2, connect_timeout_s=2))
    store = ClickHouseRating(settings)
    try:
        yield RunningCostDesk(view, store)
    finally:
        await view.close()
        await store.close()
