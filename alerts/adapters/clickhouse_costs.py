"""Running costs from ClickHouse, where the rating consumer writes them before it announces them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from alerts.domain.spend import ChargeCost
from runtime.clickhouse import connect_clickhouse_async
from runtime.settings import Settings

RUNNING_COSTS = """
SELECT tenant, period, charge, meter, amount, currency, version FROM rated_usage FINAL
WHERE state = 'running' AND period IN {periods:Array(String)} AND tenant IN {tenants:Array(String)}
"""
MONTHS_WITH_COSTS = """
SELECT DISTINCT tenant, period FROM rated_usage WHERE state = 'running' AND period IN {periods:Array(String)}
"""
_TENANTS_AT_ONCE = 1_000


class ClickHouseCosts:
    """Implements `alerts.ports.CostBook`; connects when first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None

    async def costs(self, months: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], Sequence[ChargeCost]]:
        """Return the costs by charge of each (tenant, month) asked for."""
        wanted, found = set(months), dict[tuple[str, str], list[ChargeCost]]()
        tenants, periods = sorted({tenant for tenant, _ in wanted}), sorted({period for _, period in wanted})
        for start in range(0, len(tenants), _TENANTS_AT_ONCE):
            rows = await self._query(
                RUNNING_COSTS, {"tenants": tenants[start : start + _TENANTS_AT_ONCE], "periods": periods}
            )
            for tenant, period, charge, meter, amount, currency, version in rows:
                if (tenant, period) in wanted:
                    found.setdefault((tenant, period), []).append(ChargeCost(charge, meter, amount, currency, version))
        return found

    async def months_with_costs(self, periods: Collection[str]) -> Sequence[tuple[str, str]]:
        """Return each tenant and period, of those asked for, that has running costs."""
        rows = await self._query(MONTHS_WITH_COSTS, {"periods": list(periods)})
        return [(tenant, period) for tenant, period in rows]

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()

    async def _query(self, sql: str, parameters: dict[str, Any]) -> Sequence[Sequence[Any]]:
        if self._client is None:
            self._client = await connect_clickhouse_async(self._settings)
        rows: Sequence[Sequence[Any]] = (await self._client.query(sql, parameters=parameters)).result_rows
        return rows
