"""Usage from ClickHouse, running costs to it, and how far the warehouse has come."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.meters import Meter
from core.period import Period
from rating.adapters.fine_usage import read_fine_usage, window_parameters
from rating.adapters.measured_usage import read_measured
from rating.domain.fine_usage import Entries, FineUsage
from rating.domain.measured import average_totals
from rating.domain.running_cost import CostLine, CostPart, cost_line
from rating.domain.usage import UsageRow, usage_row
from rating.domain.windows import Windows
from rating.ports import CostKey, CostRow
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse_async
from runtime.settings import Settings

USAGE_SO_FAR = """
SELECT tenant, meter, dimensions, sum(quantity) AS quantity, sum(events) AS events
FROM usage_rollups FINAL
WHERE tenant IN {tenants:Array(String)}
  AND window_start >= toDateTime({start:UInt32}, 'UTC') AND window_start < toDateTime({end:UInt32}, 'UTC')
  AND NOT arrayExists(gap -> toUnixTimestamp(window_start) >= gap.1 AND toUnixTimestamp(window_start) < gap.2,
                      {gaps:Array(Tuple(UInt32, UInt32))})
GROUP BY tenant, meter, dimensions
"""
PRESENT_COSTS = """
SELECT tenant, period, reference, plan, charge, meter, currency, holding FROM rated_usage FINAL
WHERE state = 'running' AND period IN {periods:Array(String)} AND tenant IN {tenants:Array(String)}
  AND (quantity != 0 OR amount != 0)
"""
WAREHOUSE_PROGRESS = """
SELECT source_partition, max(next_offset) FROM pipeline_progress
WHERE stage = 'warehouse' AND source_partition IN {partitions:Array(UInt16)} GROUP BY source_partition
"""
COSTS_OF_TENANT = """
SELECT reference, plan, holding, charge, meter, quantity, amount, currency, version FROM rated_usage FINAL
WHERE state = 'running' AND period = {period:String} AND tenant = {tenant:String}
ORDER BY reference, holding, charge, meter
"""
_COLUMNS = (
    "tenant", "period", "state", "reference", "plan", "charge", "meter", "quantity", "amount", "currency", "rated_at",
    "version", "holding",
)  # fmt: skip
_TENANTS_AT_ONCE = 1_000


class ClickHouseRating:
    """`PeriodUsage` and the ClickHouse half of `CostSink`; connects when first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None

    async def usage(
        self,
        tenant_ids: Sequence[str],
        windows: Windows,
        *,
        meters: Mapping[str, Meter],
        month: Period,
        until: datetime,
    ) -> Mapping[str, Sequence[UsageRow]]:
        """Return each tenant's totals of the windows by meter and dimension values; without usage they are absent."""
        client = await self._connected()
        parameters = window_parameters(windows) | {"tenants": list(tenant_ids)}
        found = await client.query(USAGE_SO_FAR, parameters=parameters)
        rows: dict[str, list[UsageRow]] = {}
        averages: dict[tuple[str, str], list[tuple[dict[str, str], Decimal, int]]] = {}
        for tenant, meter, dimensions, quantity, events in found.result_rows:
            if meter in meters and meters[meter].aggregation == "average":
                averages.setdefault((tenant, meter), []).append((dimensions, quantity, events))
            else:
                rows.setdefault(tenant, []).append(usage_row(meter, quantity, dimensions))
        for (tenant, meter), parts in averages.items():
            rows.setdefault(tenant, []).extend(total.as_row() for total in average_totals(meters[meter], parts))
        measured = await read_measured(client, tenant_ids, windows, meters.values(), month=month, until=until)
        for tenant, totals in measured.items():
            rows.setdefault(tenant, []).extend(total.as_row() for total in totals)
        return rows

    async def fine_usage(
        self,
        tenant_ids: Sequence[str],
        windows: Windows,
        wanted: Collection[FineUsage],
        *,
        meters: Mapping[str, Meter],
    ) -> Mapping[str, Entries]:
        """Return each tenant's usage of the windows by quarter hours or single events, as it is wanted."""
        return await read_fine_usage(await self._connected(), tenant_ids, windows, wanted, meters)

    async def present(self, tenant_ids: Sequence[str], periods: Sequence[str]) -> Sequence[CostKey]:
        """Return the keys of the tenants' running costs of these periods that are not zero."""
        client, keys = await self._connected(), list[CostKey]()
        for start in range(0, len(tenant_ids), _TENANTS_AT_ONCE):
            parameters = {"tenants": list(tenant_ids[start : start + _TENANTS_AT_ONCE]), "periods": list(periods)}
            found = await client.query(PRESENT_COSTS, parameters=parameters)
            for tenant, period, reference, plan, charge, meter, currency, holding in found.result_rows:
                keys.append(CostKey(tenant, period, reference, holding, plan, charge, meter, currency))
        return keys

    async def costs(self, tenant_id: str, period: str) -> Mapping[str, CostPart]:
        """Return a tenant's running cost of a period by subscription."""
        client = await self._connected()
        found = await client.query(COSTS_OF_TENANT, parameters={"tenant": tenant_id, "period": period})
        lines: dict[str, list[CostLine]] = {}
        versions: dict[str, int] = {}
        for subscription, plan, holding, charge, meter, quantity, amount, currency, version in found.result_rows:
            of_one = lines.setdefault(subscription, [])
            versions[subscription] = max(version, versions.get(subscription, 0))
            if quantity or amount:
                of_one.append(cost_line(plan, holding, charge, meter, quantity, amount, currency))
        return {name: CostPart(versions[name], tuple(found)) for name, found in lines.items()}

    async def stored_up_to(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return, by source partition, the offset before which the warehouse has stored everything."""
        found = await (await self._connected()).query(WAREHOUSE_PROGRESS, parameters={"partitions": list(partitions)})
        return dict(found.result_rows)

    async def put(self, rows: Sequence[CostRow]) -> None:
        """Write running costs; the highest version of a row wins."""
        values = [
            [
                row.tenant_id,
                row.period,
                "running",
                row.subscription_id,
                row.plan_id,
                row.charge_id,
                row.meter_id,
                row.quantity,
                row.amount,
                row.currency,
                row.rated_at,
                row.version,
                row.holding,
            ]
            for row in rows
        ]
        client = await self._connected()
        await client.insert("rated_usage", values, column_names=_COLUMNS, settings=INSERT_SETTINGS)

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()

    async def _connected(self) -> Any:
        if self._client is None:
            self._client = await connect_clickhouse_async(self._settings)
        return self._client
