"""Writes what the warehouse stores to ClickHouse. Rows replace by version, so writing them again is harmless."""

from __future__ import annotations

import asyncio
from datetime import UTC
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from core.event_time import to_microseconds
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse_async
from runtime.settings import Settings
from streams.domain.warehouse_rows import COLUMNS, Rows

CLICKHOUSE_DOWN = (ClickHouseError, OSError, TimeoutError)
PROGRESS_OF_PARTITION = """
SELECT max(next_offset), max(watermark) FROM pipeline_progress
WHERE stage = 'warehouse' AND source_partition = {partition:UInt16}
"""

# An insert takes well under a second, and writing it again is harmless.
_ANSWER_SECONDS = 20


class ClickHouseWarehouse:
    """One connection; connects when first used and again after an outage."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None
        self._turn = asyncio.Lock()

    async def insert(self, table: str, rows: Rows) -> None:
        """Insert rows of a table, in the order of `COLUMNS`."""
        if rows:
            client = await self._connected()
            await client.insert(table, rows, column_names=COLUMNS[table], settings=INSERT_SETTINGS)

    async def progress_of(self, partition: int) -> tuple[int, int]:
        """Return the source offset after the last stored one and the watermark (microseconds); (0, 0) if none is."""
        client = await self._connected()
        found = await client.query(PROGRESS_OF_PARTITION, parameters={"partition": partition})
        next_offset, watermark = found.result_rows[0]
        return next_offset, max(0, to_microseconds(watermark.replace(tzinfo=UTC)))

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()

    async def _connected(self) -> Any:
        async with self._turn:
            if self._client is None:
                self._client = await connect_clickhouse_async(self._settings, answer_seconds=_ANSWER_SECONDS)
        return self._client
