"""Counted usage in ClickHouse. Owns the queries behind every answer about usage; FINAL, so that a row counts once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from core.errors import UnavailableError
from core.event_time import to_microseconds
from metering.domain.carried_levels import Change
from metering.domain.usage_query import UsageQuery
from metering.ports import Found
from runtime.clickhouse import connect_clickhouse_async
from runtime.settings import Settings

# The one place that bounds what is read to a tenant, its meter and the allowed values of dimensions.
_OF_TENANT = """
  tenant = {tenant:String} AND meter = {meter:String}
  AND arrayAll((name, allowed) -> has(allowed, dimensions[name]), {names:Array(String)}, {allowed:Array(Array(String))})
"""
_GROUP = "arrayMap(name -> toString(dimensions[name]), {group_by:Array(String)})"
_PAGE = """
HAVING (start, values) > ({after_start:UInt32}, {after_group:Array(String)})
ORDER BY start, values LIMIT {limit:UInt32}
"""
USAGE_ADDED_UP = f"""
SELECT roundDown(toUInt32(window_start), {{starts:Array(UInt32)}}) AS start, {_GROUP} AS values,
       sum(quantity) AS total, sum(events) AS counted
FROM usage_rollups FINAL
WHERE {_OF_TENANT}
  AND window_start >= toDateTime({{from:UInt32}}, 'UTC') AND window_start < toDateTime({{to:UInt32}}, 'UTC')
GROUP BY start, values
{_PAGE.replace("HAVING", "HAVING (total != 0 OR counted != 0) AND")}
"""  # noqa: S608 - made of this file's own texts; what varies is bound
# Times are compared as microseconds, for a DateTime64 bound to a parameter would be read in the server's zone.
_SAMPLES = f"""
FROM usage_samples FINAL
WHERE {_OF_TENANT} AND removed = 0
"""
_IN_SPAN = """
  AND time >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC') AND time < fromUnixTimestamp64Micro({to_us:Int64}, 'UTC')
"""
_VALUES = {
    "unique": "toDecimal128(uniqExact(text), 12)",
    "max": "max(quantity)",
    "min": "min(quantity)",
    "latest": "argMax(quantity, (time, source_offset, source_index))",
}
USAGE_SAMPLED = {
    aggregation: f"""
SELECT roundDown(toUInt32(toUnixTimestamp(time)), {{starts:Array(UInt32)}}) AS start, {_GROUP} AS values,
       {value} AS total, count() AS counted
{_SAMPLES}{_IN_SPAN}
GROUP BY start, values
{_PAGE}
"""
    for aggregation, value in _VALUES.items()
}
# A series' level before the span is one more change at instant 0; within, each event changes it from what it was.
LEVEL_CHANGES = f"""
WITH levels AS (
    SELECT dimensions, toInt64(0) AS at, toUInt64(0) AS place, toInt32(0) AS position,
           argMax(quantity, (time, source_offset, source_index)) AS level
    {_SAMPLES} AND time < fromUnixTimestamp64Micro({{from_us:Int64}}, 'UTC')
    GROUP BY dimensions
    UNION ALL
    SELECT dimensions, toUnixTimestamp64Micro(time) AS at, source_offset AS place, source_index AS position,
           quantity AS level
    {_SAMPLES}{_IN_SPAN}
),
changes AS (
    SELECT dimensions, at,
           toInt256(toDecimal256(level, 12) * toDecimal256('1000000000000', 0)) AS scaled,
           scaled - lagInFrame(scaled, 1, toInt256(0)) OVER (
               PARTITION BY dimensions ORDER BY at, place, position
               ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
           ) AS change
    FROM levels
)
SELECT roundDown(toUInt32(intDiv(at, 1000000)), arrayPushFront({{starts:Array(UInt32)}}, 0)) AS start,
       {_GROUP} AS values, toString(sum(change)), toString(sum(change * at)), countIf(at > 0)
FROM changes
GROUP BY start, values
ORDER BY start, values LIMIT {{limit:UInt32}}
"""  # noqa: S608 - made of this file's own texts; what varies is bound
_DOWN = (ClickHouseError, OSError, TimeoutError)


class ClickHouseUsageStore:
    """A `UsageStore`; connects when first used and again after an outage."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None

    async def added_up(self, query: UsageQuery, starts: Sequence[int], limit: int) -> list[Found]:
        """Return sums of an additive meter by window and group."""
        return [_found(row) for row in await self._rows(USAGE_ADDED_UP, query, starts, limit)]

    async def sampled(self, query: UsageQuery, starts: Sequence[int], limit: int) -> list[Found]:
        """Return what a unique, max, min or latest meter holds by window and group."""
        rows = await self._rows(USAGE_SAMPLED[query.meter.aggregation], query, starts, limit)
        return [_found(row) for row in rows]

    async def level_changes(self, query: UsageQuery, starts: Sequence[int], until_us: int, limit: int) -> list[Change]:
        """Return how the levels of a time-weighted meter changed, by stretch and group."""
        rows = await self._rows(LEVEL_CHANGES, query, starts, limit, to_us=until_us)
        return [Change(row[0], tuple(row[1]), int(row[2]), int(row[3]), row[4]) for row in rows]

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()

    async def _rows(
        self, text: str, query: UsageQuery, starts: Sequence[int], limit: int, **more: int
    ) -> list[tuple[Any, ...]]:
        after = query.after
        parameters = {
            "tenant": query.tenant,
            "meter": query.meter.meter_id,
            "names": [name for name, _ in query.filters],
            "allowed": [list(allowed) for _, allowed in query.filters],
            "group_by": list(query.group_by),
            "starts": list(starts),
            "from": _seconds(query.span.start),
            "to": _seconds(query.span.end),
            "from_us": to_microseconds(query.span.start),
            "to_us": to_microseconds(query.span.end),
            "after_start": after.start if after else 0,
            "after_group": list(after.group) if after else [],
            "limit": limit,
            **more,
        }
        try:
            if self._client is None:
                self._client = await connect_clickhouse_async(self._settings)
            found = await self._client.query(text, parameters=parameters)
        except _DOWN as error:
            raise UnavailableError("usage cannot be read now") from error
        return list(found.result_rows)


def _found(row: tuple[Any, ...]) -> Found:
    start, group, quantity, events = row
    return start, tuple(group), quantity, events


def _seconds(instant: datetime) -> int:
    return int(instant.timestamp())
