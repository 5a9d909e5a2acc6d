"""The running cost's stores on the real engines."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from rating.adapters.clickhouse import ClickHouseRating
from rating.adapters.postgres import PostgresTimelines
from rating.domain.usage import usage_row
from rating.ports import CostRow
from rating.rate_open_periods import rate_open_periods
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse
from runtime.postgres import create_pool
from runtime.settings import Settings
from subscriptions.commands import add_tenant
from subscriptions.domain.tenant import Tenant
from tests.rating.plans import OCTOBER

pytestmark = pytest.mark.integration
_COLUMNS = [
    "tenant", "meter", "dimensions", "window_start", "source_partition", "segment", "quantity", "events", "version",
]  # fmt: skip


async def test_what_a_tenant_used_so_far_is_rated_into_clickhouse(settings: Settings) -> None:
    await apply_files(settings, shipped_files())
    tenant_id = f"running-{uuid4().hex[:10]}"
    tenant = Tenant(tenant_id, "Running", "billing@example.com", "DE", "USD")
    contract = {"charges": [{"id": "cpu", "unit_amount": "0.5"}]}
    started_at = OCTOBER.start.replace(day=2)
    subscription, _ = await add_tenant(settings, tenant, "shared", overrides=contract, started_at=started_at)
    client = connect_clickhouse(settings)
    rows = [
        [tenant_id, "cpu", {}, OCTOBER.start, 0, 0, Decimal(100), 1, 1],  # before the contract
        [tenant_id, "cpu", {}, OCTOBER.start.replace(day=2), 0, 0, Decimal(1), 1, 1],
        [tenant_id, "cpu", {}, OCTOBER.start.replace(day=2), 0, 0, Decimal(3), 1, 2],
        [tenant_id, "cpu", {}, OCTOBER.end, 0, 0, Decimal(100), 1, 1],  # November's
    ]
    client.insert("usage_rollups", rows, column_names=_COLUMNS, settings=INSERT_SETTINGS)
    store = ClickHouseRating(settings)
    async with create_pool(settings, max_size=1) as pool:
        for second in (1, 2):
            now = datetime(2026, 10, 20, 0, 0, second, tzinfo=UTC)
            plans = PostgresTimelines(pool)
            assert await rate_open_periods([(tenant_id, OCTOBER)], plans=plans, usage=store, sink=store, now=now) == 1
    found = client.query(
        "SELECT state, reference, plan, charge, meter, quantity, amount, currency, holding FROM rated_usage FINAL"
        " WHERE tenant = {tenant:String}",
        parameters={"tenant": tenant_id},
    )
    # 3 × 0.5; the second rating replaced the first
    ((*row, holding),) = found.result_rows
    assert row == [
        "running", subscription.subscription_id, "shared", "cpu", "cpu", Decimal(3), Decimal("1.5"), "USD",
    ]  # fmt: skip
    assert holding.startswith("shared@")
    window = OCTOBER.__class__(OCTOBER.start.replace(day=2), OCTOBER.end)
    used = await store.usage([tenant_id], window, meters={}, month=OCTOBER, until=OCTOBER.end)
    assert used == {tenant_id: [usage_row("cpu", 3)]}
    await store.close()
    client.close()


async def test_an_older_row_never_replaces_a_newer_one(settings: Settings) -> None:
    store, client = ClickHouseRating(settings), connect_clickhouse(settings)
    tenant_id = f"running-{uuid4().hex[:10]}"

    def row(version: int, amount: str) -> CostRow:
        now = datetime(2026, 10, 20, tzinfo=UTC)
        return CostRow(tenant_id, "2026-10", "lite", "cpu", "cpu", Decimal(1), Decimal(amount), "USD", now, version)

    await store.put([row(2, "2.00")])
    await store.put([row(1, "1.00")])
    found = client.query(
        "SELECT amount FROM rated_usage FINAL WHERE tenant = {tenant:String}", parameters={"tenant": tenant_id}
    )
    assert found.result_rows == [(Decimal(2),)]
    await store.close()
    client.close()
