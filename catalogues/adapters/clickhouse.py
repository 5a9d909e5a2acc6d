"""Whether a meter has usage, asked of ClickHouse."""

from __future__ import annotations

from typing import Any


class ClickHouseMeteredUsage:
    """A `MeteredUsage` over rollups and samples."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def meters_with_usage(self, meter_ids: set[str]) -> set[str]:
        """Return those of the meters for which any usage was counted."""
        found = await self._client.query(
            "SELECT DISTINCT meter FROM usage_rollups WHERE meter IN {meters:Array(String)}"
            " UNION DISTINCT SELECT DISTINCT meter FROM usage_samples WHERE meter IN {meters:Array(String)}",
            parameters={"meters": sorted(meter_ids)},
        )
        return {row[0] for row in found.result_rows}
