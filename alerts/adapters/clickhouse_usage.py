"""Usage by the hour from ClickHouse's rollups, and the event time up to which they are complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from alerts.ports import HourlyUsage
from runtime.clickhouse import connect_clickhouse_async
from runtime.settings import Settings

HOURLY_USAGE = """
SELECT tenant, toStartOfHour(window_start) AS hour, sum(quantity) AS quantity, sum(events) AS events
FROM usage_rollups FINAL
WHERE meter = {meter:String}
  AND window_start >= toDateTime({start:UInt32}, 'UTC') AND window_start < toDateTime({end:UInt32}, 'UTC')
  AND cityHash64(tenant) % {parts:UInt32} = {part:UInt32}
GROUP BY tenant, hour HAVING events > 0 ORDER BY tenant, hour
"""
# Every partition that has reported of late says how far it is; the slowest decides. One that has never stored usage
# has no watermark and holds nobody up.
WATERMARK = """
SELECT min(newest) FROM (
    SELECT source_partition, max(watermark) AS newest FROM pipeline_progress
    WHERE stage = 'warehouse' GROUP BY source_partition HAVING newest > toDateTime64(0, 6, 'UTC')
) HAVING count() > 0
"""


class ClickHouseUsage:
    """Implements `alerts.ports.UsageHistory`; connects when first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None

    async def watermark(self) -> datetime | None:
        """Return the event time up to which every partition's usage is stored; None while nothing is."""
        rows = (await (await self._connected()).query(WATERMARK)).result_rows
        return _in_utc(rows[0][0]) if rows else None

    async def hourly(
        self, meter: str, start: datetime, end: datetime, *, part: int, parts: int
    ) -> Mapping[str, Sequence[HourlyUsage]]:
        """Return by tenant the hours of `[start, end)` that have usage, oldest first."""
        found = await (await self._connected()).query(
            HOURLY_USAGE,
            parameters={
                "meter": meter,
                "start": int(start.timestamp()),
                "end": int(end.timestamp()),
                "part": part,
                "parts": parts,
            },
        )
        hours: dict[str, list[HourlyUsage]] = {}
        for tenant, hour, quantity, events in found.result_rows:
            hours.setdefault(tenant, []).append(HourlyUsage(_in_utc(hour), quantity, events))
        return hours

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()

    async def _connected(self) -> Any:
        if self._client is None:
            self._client = await connect_clickhouse_async(self._settings)
        return self._client


def _in_utc(instant: datetime) -> datetime:
    # Without a zone where the server's is UTC: the columns are.
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
