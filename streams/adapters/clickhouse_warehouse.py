"""Writes rollups, accepted events and progress to ClickHouse. Rows replace by version, so writing again is harmless."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse_async
from runtime.settings import Settings
from streams.domain.warehouse_rows import EVENT_COLUMNS, ROLLUP_COLUMNS

CLICKHOUSE_DOWN = (ClickHouseError, OSError, TimeoutError)
PROGRESS_COLUMNS = (
    "at", "stage", "source_partition", "next_offset", "end_offset", "events", "duplicates", "rejected", "freshness_ms",
)  # fmt: skip


class ClickHouseWarehouse:
    """One connection; connects when first used and again after an outage."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None
        self._turn = asyncio.Lock()

    async def insert_rollups(self, rows: list[list[Any]]) -> None:
        """Insert rows of `usage_rollups`."""
        await self._insert("usage_rollups", rows, ROLLUP_COLUMNS)

    async def insert_events(self, rows: list[list[Any]]) -> None:
        """Insert rows of `usage_events`."""
        await self._insert("usage_events", rows, EVENT_COLUMNS)

    async def insert_progress(self, rows: list[list[Any]]) -> None:
        """Insert rows of `pipeline_progress`; the first column is milliseconds since 1970 UTC."""
        stamped = [[datetime.fromtimestamp(row[0] / 1_000, UTC), *row[1:]] for row in rows]
        await self._insert("pipeline_progress", stamped, PROGRESS_COLUMNS)

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()

    async def _insert(self, table: str, rows: list[list[Any]], columns: tuple[str, ...]) -> None:
        if not rows:
            return
        async with self._turn:
            if self._client is None:
                self._client = await connect_clickhouse_async(self._settings)
        await self._client.insert(table, rows, column_names=columns, settings=INSERT_SETTINGS)
