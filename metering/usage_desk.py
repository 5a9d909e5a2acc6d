"""Questions about usage on the real engine, for the command and (as `api.ports.UsageBook`) the API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from core.clock import Clock, SystemClock
from core.meters import Registry
from metering.adapters.clickhouse_usage import ClickHouseUsageStore
from metering.domain.usage_query import read_query
from metering.ports import UsageStore
from metering.query_usage import query_usage
from metering.summarize_usage import summarize_usage
from metering.usage_documents import page_document, summary_document
from runtime.settings import Settings


class UsageDesk:
    """Answers as documents."""

    def __init__(self, store: UsageStore, clock: Clock) -> None:
        self._store, self._clock = store, clock

    async def query(self, registry: Registry, **asked: Any) -> dict[str, Any]:
        """Return a page of one meter's usage; what may be asked is `metering.domain.usage_query.read_query`'s."""
        now = self._clock.now()
        query = read_query(registry, now=now, **asked)
        return page_document(await query_usage(query, store=self._store, now=now))

    async def summarize(self, registry: Registry, *, tenant: str, period: str | None) -> dict[str, Any]:
        """Return the totals of all meters in a period."""
        summary = await summarize_usage(
            registry, tenant=tenant, period=period, store=self._store, now=self._clock.now()
        )
        return summary_document(summary, tenant)


@asynccontextmanager
async def open_usage_desk(settings: Settings) -> AsyncIterator[UsageDesk]:
    """Open the desk on the settings' ClickHouse; connects when first asked."""
    store = ClickHouseUsageStore(settings)
    try:
        yield UsageDesk(store, SystemClock())
    finally:
        await store.close()
