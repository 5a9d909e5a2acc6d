"""Usage and facts in ClickHouse. Owns the named query behind every invoice line."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from core.meters import Meter
from core.period import Period
from invoicing.domain.usage_evidence import UsageByHour, UsageEvidence
from invoicing.ports import InvoicedFact
from rating.adapters.fine_usage import read_fine_usage, window_parameters
from rating.adapters.measured_usage import read_measured
from rating.domain.fine_usage import Entries, FineUsage
from rating.domain.usage import known_dimensions
from rating.domain.windows import Windows, hull_of
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse_async
from runtime.settings import Settings

# FINAL, because money is at stake: a rollup row counts once, in its newest version. One read for totals, hours and
# digest, so that they cannot disagree.
USAGE_OF_PERIOD = """
SELECT tenant, meter, dimensions,
       (arraySort(groupArray((hour, quantity, events))) AS hours).1 AS instants,
       hours.2 AS quantities, hours.3 AS counts
FROM (
    SELECT tenant, meter, dimensions, toUnixTimestamp(toStartOfHour(window_start)) AS hour,
           toString(sum(quantity)) AS quantity, sum(events) AS events
    FROM usage_rollups FINAL
    WHERE tenant IN {tenants:Array(String)}
      AND window_start >= toDateTime({start:UInt32}, 'UTC') AND window_start < toDateTime({end:UInt32}, 'UTC')
      AND NOT arrayExists(gap -> toUnixTimestamp(window_start) >= gap.1 AND toUnixTimestamp(window_start) < gap.2,
                          {gaps:Array(Tuple(UInt32, UInt32))})
    GROUP BY tenant, meter, dimensions, hour
)
GROUP BY tenant, meter, dimensions
"""
_FACT_COLUMNS = (
    "tenant", "period", "state", "reference", "plan", "charge", "meter", "quantity", "amount", "currency", "rated_at",
    "version", "holding",
)  # fmt: skip


class ClickHouseUsage:
    """A `UsageReader` and `FactStore`; connects when first used and again after an outage."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None

    async def usage(
        self, tenant_id: str, windows: Windows, *, meters: Mapping[str, Meter], month: Period
    ) -> UsageEvidence:
        """Return the usage of windows on whole minutes: what adds up in one read, and each kind of sampled meter."""
        return (await self.usage_of_many([tenant_id], windows, meters=meters, month=month))[tenant_id]

    async def usage_of_many(
        self, tenant_ids: Collection[str], windows: Windows, *, meters: Mapping[str, Meter], month: Period
    ) -> dict[str, UsageEvidence]:
        """Return each tenant's usage of windows on whole minutes, as `usage` does."""
        client, asked = await self._connected(), list(tenant_ids)
        asking = window_parameters(windows) | {"tenants": asked}
        hourly = client.query(USAGE_OF_PERIOD, parameters=asking, column_oriented=True)
        until = hull_of(windows).end
        sampled = read_measured(client, asked, windows, meters.values(), month=month, until=until)
        found, measured = await asyncio.gather(hourly, sampled)
        usage: dict[str, list[UsageByHour]] = {tenant_id: [] for tenant_id in asked}
        # An answer without rows has no columns either.
        if found.result_columns:
            for tenant_id, meter_id, named, *columns in zip(*found.result_columns, strict=True):
                usage[tenant_id].append(UsageByHour(meter_id, known_dimensions(named), _hours(*columns)))
        return {one: UsageEvidence.of(rows, measured.get(one, ()), meters) for one, rows in usage.items()}

    async def fine_usage(
        self, tenant_id: str, windows: Windows, wanted: Collection[FineUsage], *, meters: Mapping[str, Meter]
    ) -> Entries:
        """Return the usage of windows by quarter hours or single events, as it is wanted."""
        return (await read_fine_usage(await self._connected(), [tenant_id], windows, wanted, meters))[tenant_id]

    async def put(self, facts: Sequence[InvoicedFact]) -> None:
        """Write the facts; writing them again changes nothing."""
        rows = [
            [
                fact.tenant_id,
                fact.period,
                "invoiced",
                fact.invoice_id,
                fact.plan_id,
                fact.charge_id,
                fact.meter_id,
                fact.quantity,
                fact.amount,
                fact.currency,
                fact.issued_at,
                fact.sequence,
                fact.holding,
            ]
            for fact in facts
        ]
        client = await self._connected()
        await client.insert("rated_usage", rows, column_names=_FACT_COLUMNS, settings=INSERT_SETTINGS)

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()

    async def _connected(self) -> Any:
        if self._client is None:
            self._client = await connect_clickhouse_async(self._settings)
        return self._client


def _hours(
    instants: Sequence[int], quantities: Sequence[str], counts: Sequence[int]
) -> tuple[tuple[datetime, Decimal, int], ...]:
    return tuple(zip(map(_instant, instants), map(Decimal, quantities), counts, strict=True))


# Kept: a run reads the same hours for every tenant.
@lru_cache(maxsize=20_000)
def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
