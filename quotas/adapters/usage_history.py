"""Usage of the past in ClickHouse, on whole minutes, of meters whose totals add up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from core.errors import UnavailableError
from runtime.clickhouse import connect_clickhouse_async
from runtime.settings import Settings

# FINAL, because access depends on it: a rollup row counts once, in its newest version.
# The piece of a row is how many cuts are at or before its window.
_BY_PIECE = """
SELECT arrayCount(cut -> cut <= toUnixTimestamp(window_start), {cuts:Array(UInt32)}) AS piece, sum(quantity)
FROM usage_rollups FINAL
WHERE tenant = {tenant:String} AND meter = {meter:String}
  AND window_start >= toDateTime(arrayMin({cuts:Array(UInt32)}), 'UTC')
  AND window_start < toDateTime(arrayMax({cuts:Array(UInt32)}), 'UTC')
GROUP BY piece
"""
_KEPT_SECONDS = 30.0
_KEPT = 10_000


class ClickHouseHistory:
    """Implements `quotas.ports.UsageHistory`; connects when first used. What is past changes seldom: kept a while."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None
        self._turn = asyncio.Lock()
        self._kept: dict[tuple[str, str, tuple[datetime, ...]], tuple[float, list[Decimal]]] = {}

    async def between(self, tenant: str, meter: str, cuts: Sequence[datetime]) -> list[Decimal]:
        """Return the usage between neighbouring instants."""
        key = (tenant, meter, tuple(cuts))
        kept = self._kept.get(key)
        if kept is not None and time.monotonic() - kept[0] < _KEPT_SECONDS:
            return kept[1]
        found = await self._query(tenant, meter, cuts)
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[key] = (time.monotonic(), found)
        return found

    async def _query(self, tenant: str, meter: str, cuts: Sequence[datetime]) -> list[Decimal]:
        starts = [int(cut.timestamp()) for cut in cuts]
        try:
            client = await self._connected()
            given = {"tenant": tenant, "meter": meter, "cuts": starts}
            rows = (await client.query(_BY_PIECE, parameters=given)).result_rows
        except (ClickHouseError, OSError, TimeoutError) as error:
            self._client = None
            raise UnavailableError("usage of the past cannot be read now") from error
        by_piece = {int(piece): Decimal(quantity) for piece, quantity in rows}
        return [by_piece.get(number, Decimal(0)) for number, _ in enumerate(pairwise(cuts), start=1)]

    async def _connected(self) -> Any:
        async with self._turn:
            if self._client is None:
                self._client = await connect_clickhouse_async(self._settings)
            return self._client

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()
