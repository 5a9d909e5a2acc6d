"""What ClickHouse stores, and what its raw events come to when they are measured again."""
# ruff: noqa: S608 - every text goes through `quoted`, everything else is a number

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from core.errors import UnavailableError
from core.event_time import to_microseconds
from core.meters import Meter
from core.period import Period
from core.quantity import SCALE
from metering.reconcile.domain.gap import NOTHING, Cell, Key, Side
from metering.reconcile.domain.measure_sql import at_or_after, in_cells, measure_queries, quoted
from metering.reconcile.domain.raw_measure import measure
from metering.reconcile.ports import PeriodTotal
from runtime.clickhouse import connect_clickhouse_async
from runtime.settings import Settings

# So many rows of one meter and cells are measured one by one here; more are an error, not a guess.
OTHERS_MAX = 200_000
_CELLS_PER_QUERY = 200
_PROGRESS = (
    "SELECT source_partition, max(next_offset) FROM pipeline_progress"
    " WHERE stage = 'warehouse' GROUP BY source_partition"
)


class ClickHouseViews:
    """Implements `Warehouse`; connects when first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None
        self._turn = asyncio.Lock()

    async def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            await self._client.close()

    async def progress(self) -> dict[int, int]:
        """Return up to where everything is stored: the greatest that was ever reported, for rows are not taken back."""
        return dict(await self._rows(_PROGRESS))

    async def newest_sources(self, tenants: Collection[str]) -> dict[int, int]:
        """Return the greatest visible source offset by partition."""
        if not tenants:
            return {}
        return dict(
            await self._rows(
                "SELECT source_partition, max(source_offset) FROM usage_events"
                f" WHERE tenant IN ({_list(tenants)}) GROUP BY source_partition"
            )
        )

    async def unsettled(self, cells: Collection[Cell], progress: Mapping[int, int]) -> set[Cell]:
        """Return the cells that are still moving."""
        moving = at_or_after(progress, 0)
        found: set[Cell] = set()
        for part in _parts(cells):
            rows = await self._rows(
                "SELECT DISTINCT tenant, toUnixTimestamp(toStartOfHour(time)) FROM usage_events"
                f" WHERE {in_cells(part, 'time')} AND {moving}"
            )
            found |= {Cell(*row) for row in rows}
            # A correction changes other hours than its own.
            tenants = {cell.tenant for cell in part}
            correcting = await self._rows(
                f"SELECT DISTINCT tenant FROM usage_corrections WHERE tenant IN ({_list(tenants)}) AND {moving}"
            )
            found |= {cell for cell in part if (cell.tenant,) in correcting}
        return found

    async def stored_rollups(self, cells: Collection[Cell]) -> dict[Key, Side]:
        """Return what the rollups say, cells that add up to nothing left out."""
        figures: dict[Key, Side] = {}
        for part in _parts(cells):
            rows = await self._rows(
                "SELECT tenant, toUnixTimestamp(toStartOfHour(window_start)) AS hour, meter, dimensions,"
                " sum(quantity), sum(events) FROM usage_rollups FINAL"
                f" WHERE {in_cells(part, 'window_start')} GROUP BY tenant, hour, meter, dimensions"
            )
            for tenant, hour, meter, dimensions, quantity, events in rows:
                figures[Key(Cell(tenant, hour), meter, tuple(dimensions.values()))] = Side(quantity, events)
        return {key: side for key, side in figures.items() if side != NOTHING}

    async def stored_samples(self, cells: Collection[Cell], meters: Mapping[str, Meter]) -> dict[Key, Side]:
        """Return what the samples say."""
        figures: dict[Key, Side] = {}
        unique = [name for name, meter in meters.items() if meter.aggregation == "unique"]
        is_text = f"meter IN ({_list(unique)})" if unique else "0"
        for part in _parts(cells):
            rows = await self._rows(
                "SELECT tenant, toUnixTimestamp(toStartOfHour(time)) AS hour, meter, dimensions,"
                f" sum(if({is_text}, toDecimal128(CRC32(text), 12), quantity)), count() FROM usage_samples FINAL"
                f" WHERE removed = 0 AND {in_cells(part, 'time')} GROUP BY tenant, hour, meter, dimensions"
            )
            for tenant, hour, meter, dimensions, quantity, events in rows:
                figures[Key(Cell(tenant, hour), meter, tuple(dimensions.values()))] = Side(quantity, events)
        return figures

    async def measured(self, meter: Meter, cells: Collection[Cell], *, as_if_always: bool = False) -> dict[Key, Side]:
        """Return what the raw events come to."""
        firsts = None if as_if_always else await self._first_offsets(meter.meter_id)
        sums: dict[Key, list[Any]] = defaultdict(lambda: [Decimal(0), 0])
        for part in _parts(cells):
            queries = measure_queries(meter, part, firsts, OTHERS_MAX)
            for tenant, hour, dimensions, quantity, events in await self._rows(queries.sums):
                sums[Key(Cell(tenant, hour), meter.meter_id, tuple(dimensions))] = [quantity, events]
            others = await self._rows(queries.others)
            if len(others) >= OTHERS_MAX:
                raise UnavailableError(f"meter {meter.meter_id}: too many events of an unusual form to be compared")
            for tenant, hour, data in others:
                found = measure(meter, data)
                if found is not None:
                    total = sums[Key(Cell(tenant, hour), meter.meter_id, found[0])]
                    total[0] += found[1]
                    total[1] += 1
        # Zeros of additive meters vanish here as they do among the rollups; a sample is there whatever it says.
        return {key: Side(*total) for key, total in sums.items()}

    async def later_activated(self) -> set[str]:
        """Return the meters that some partition does not count from its beginning."""
        rows = await self._rows("SELECT DISTINCT meter FROM meter_activations FINAL WHERE first_offset > 0")
        return {meter for (meter,) in rows}

    async def cells_between(self, span: Period, tenants: Collection[str] | None) -> list[Cell]:
        """Return every cell of a span."""
        found: set[Cell] = set()
        for table, column in (("usage_events", "time"), ("usage_rollups", "window_start"), ("usage_samples", "time")):
            rows = await self._rows(
                f"SELECT DISTINCT tenant, toUnixTimestamp(toStartOfHour({column})) FROM {table}"
                f" WHERE {_within(span, column)}" + (f" AND tenant IN ({_list(tenants)})" if tenants else "")
            )
            found |= {Cell(*row) for row in rows}
        return sorted(found)

    async def sample_cells(self, span: Period, count: int, seed: int) -> list[Cell]:
        """Return some cells with rollups, by a hash of theirs with the seed."""
        rows = await self._rows(
            "SELECT tenant, toUnixTimestamp(toStartOfHour(window_start)) AS hour FROM usage_rollups"
            f" WHERE {_within(span, 'window_start')} GROUP BY tenant, hour"
            f" ORDER BY sipHash64(tenant, hour, {int(seed)}) LIMIT {int(count)}"
        )
        return [Cell(*row) for row in rows]

    async def newest_versions(self, since: datetime) -> dict[int, int]:
        """Return the newest journal offset by partition."""
        newest: dict[int, int] = {}
        for table, column in (("usage_rollups", "window_start"), ("usage_samples", "time")):
            rows = await self._rows(
                f"SELECT source_partition, max(version) FROM {table}"
                f" WHERE {column} >= toDateTime({int(since.timestamp())}, 'UTC') GROUP BY source_partition"
            )
            for partition, version in rows:
                newest[partition] = max(version, newest.get(partition, -1))
        return newest

    async def period_totals(self, tenants: Collection[str], meter: Meter, period: Period) -> dict[str, PeriodTotal]:
        """Return tenants' totals of a period."""
        if not tenants:
            return {}
        where = f"tenant IN ({_list(tenants)}) AND meter = {quoted(meter.meter_id)}"
        if meter.aggregation == "time_weighted":
            return await self._areas(where, period)
        if meter.is_additive:
            rows = await self._rows(
                "SELECT tenant, max(version), sum(quantity), sum(events) FROM usage_rollups FINAL"
                f" WHERE {where} AND {_within(period, 'window_start')} GROUP BY tenant"
            )
        else:
            value = {
                "unique": f"toDecimal128(uniqExactIf(text, removed = 0), {SCALE})",
                "max": "maxIf(quantity, removed = 0)",
                "min": "minIf(quantity, removed = 0)",
                "latest": "argMaxIf(quantity, (time, source_offset, source_index), removed = 0)",
            }[meter.aggregation]
            rows = await self._rows(
                f"SELECT tenant, max(version), {value}, countIf(removed = 0) FROM usage_samples FINAL"
                f" WHERE {where} AND {_within(period, 'time')} GROUP BY tenant"
            )
        return {
            tenant: PeriodTotal(_scaled(quantity), events, 0, 0, version) for tenant, version, quantity, events in rows
        }

    async def _areas(self, where: str, period: Period) -> dict[str, PeriodTotal]:
        """Return the area under all series of a time-weighted meter, the present level, and until when.

        A level holds from its sample until the series' next one; samples of one instant follow each other by place.
        """
        start, end = to_microseconds(period.start), to_microseconds(period.end)
        samples = f"usage_samples FINAL WHERE {where} AND time < fromUnixTimestamp64Micro({end}, 'UTC')"
        versions = await self._rows(f"SELECT tenant, max(version) FROM {samples} GROUP BY tenant")
        # The digits themselves: a product with 10^12 would not fit the type's scale.
        level = f"toInt256(replaceOne(toDecimalString(quantity, {SCALE}), '.', ''))"
        series = (
            f"SELECT tenant, {level} AS level, toUnixTimestamp64Micro(time) AS from_us,"
            f" greatest(max(from_us) OVER (PARTITION BY tenant), {start}) AS reach_us,"
            " leadInFrame(from_us) OVER in_order AS later_us, leadInFrame(1, 1, 0) OVER in_order AS has_later"
            f" FROM {samples} AND removed = 0 WINDOW in_order AS (PARTITION BY tenant, dimensions"
            " ORDER BY time, source_offset, source_index ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)"
        )
        held_us = f"greatest(0, if(has_later, later_us, reach_us) - greatest(from_us, {start}))"
        rows = await self._rows(
            f"SELECT tenant, toString(sum(level * toInt256({held_us}))), toString(sumIf(level, NOT has_later)),"
            f" countIf(from_us >= {start}), max(reach_us) FROM ({series}) GROUP BY tenant"
        )
        found = {tenant: (int(area), events, int(present), reach) for tenant, area, present, events, reach in rows}
        return {tenant: PeriodTotal(*found.get(tenant, (0, 0, 0, 0)), version) for tenant, version in versions}

    async def _first_offsets(self, meter: str) -> dict[int, int]:
        rows = await self._rows(
            f"SELECT source_partition, first_offset FROM meter_activations FINAL WHERE meter = {quoted(meter)}"
        )
        return dict(rows)

    async def _rows(self, query: str) -> list[Any]:
        try:
            async with self._turn:
                if self._client is None:
                    self._client = await connect_clickhouse_async(self._settings)
            return list((await self._client.query(query)).result_rows)
        except (ClickHouseError, OSError, TimeoutError) as error:
            raise UnavailableError(f"ClickHouse does not answer this now: {str(error)[:300]}") from error


def _within(span: Period, column: str) -> str:
    start, end = to_microseconds(span.start), to_microseconds(span.end)
    return f"{column} >= fromUnixTimestamp64Micro({start}, 'UTC') AND {column} < fromUnixTimestamp64Micro({end}, 'UTC')"


def _parts(cells: Collection[Cell]) -> list[list[Cell]]:
    ordered = sorted(cells, key=lambda cell: (cell.hour, cell.tenant))
    return [ordered[start : start + _CELLS_PER_QUERY] for start in range(0, len(ordered), _CELLS_PER_QUERY)]


def _list(texts: Collection[str]) -> str:
    return ", ".join(map(quoted, sorted(texts)))


def _scaled(quantity: Decimal) -> int:
    return int(quantity.scaleb(SCALE))
