"""Applying a catalogue: plans get versions, meters in use do not change, twice is once; in memory and for real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from catalogues.adapters.clickhouse import ClickHouseMeteredUsage
from catalogues.adapters.postgres import PostgresCatalogueStore
from catalogues.apply_catalogue import Applied, MeterInUseError, apply_catalogue
from catalogues.load_catalogue import CatalogueFile, load_catalogue
from core.meters import Meter
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse, connect_clickhouse_async
from runtime.postgres import create_pool
from runtime.settings import Settings

NOW = datetime(2026, 10, 1, tzinfo=UTC)
KINDS = ["memory", pytest.param("real", marks=pytest.mark.integration)]


class MemoryStore:
    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}
        self._versions: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}

    async def lock(self) -> None:
        return

    async def meters(self) -> dict[str, Meter]:
        return dict(self._meters)

    async def meters_of_plans(self) -> set[str]:
        documents = [document for versions in self._versions.values() for _, document in versions]
        return {charge["meter"] for document in documents for charge in document["charges"] if "meter" in charge}

    async def put_meter(self, meter: Meter, now: datetime) -> None:
        self._meters[meter.meter_id] = meter

    async def newest_version(self, plan_id: str) -> tuple[int, str] | None:
        versions = self._versions.get(plan_id, [])
        return (len(versions), versions[-1][0]) if versions else None

    async def add_version(
        self, plan_id: str, version: int, *, catalogue: str, digest: str, document: Mapping[str, Any], now: datetime
    ) -> None:
        self._versions.setdefault(plan_id, []).append((digest, document))
        assert len(self._versions[plan_id]) == version


@dataclass
class MemoryUsage:
    used: set[str] = field(default_factory=set)

    async def meters_with_usage(self, meter_ids: set[str]) -> set[str]:
        return meter_ids & self.used


class Shop:
    """A catalogue of one meter and one plan, with names of this test's own."""

    def __init__(self, settings: Settings | None) -> None:
        self._settings = settings
        self.name = f"t{uuid4().hex[:10]}"
        self._store, self._usage = MemoryStore(), MemoryUsage()

    def use(self, table: str = "usage_rollups") -> None:
        if self._settings is None:
            self._usage.used.add(self.name)
            return
        client = connect_clickhouse(self._settings)
        columns = ["tenant", "meter", "quantity", "version"]
        client.insert(table, [["t", self.name, Decimal(1), 1]], column_names=columns, settings=INSERT_SETTINGS)
        client.close()

    async def apply(self, *, price: str | None = "1", unit: str = "hour", kind: str = "aggregation: count") -> Applied:
        text = f"meters: {{{self.name}: {{unit: {unit}, event_type: {self.name}, {kind}}}}}\n"
        if price is not None:
            charge = f'{{id: a, name: A, meter: {self.name}, model: per_unit, unit_amount: "{price}"}}'
            text += f"plans: {{{self.name}: {{name: P, currency: USD, charges: [{charge}]}}}}\n"
        catalogue = load_catalogue([CatalogueFile("x.yaml", text.encode())])
        async with self._open() as (store, usage):
            return await apply_catalogue(catalogue, store=store, usage=usage, now=NOW)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[tuple[Any, Any]]:
        if self._settings is None:
            yield self._store, self._usage
            return
        client = await connect_clickhouse_async(self._settings)
        try:
            pool = create_pool(self._settings, max_size=1)
            async with pool, pool.connection() as connection, connection.transaction():
                yield PostgresCatalogueStore(connection), ClickHouseMeteredUsage(client)
        finally:
            await client.close()


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest) -> Shop:
    return Shop(request.getfixturevalue("settings") if request.param == "real" else None)


async def test_applying_twice_changes_nothing(shop: Shop) -> None:
    assert await shop.apply() == Applied((shop.name,), ((shop.name, 1),))
    assert await shop.apply() == Applied((), ())


async def test_a_changed_plan_becomes_the_next_version_even_on_its_way_back(shop: Shop) -> None:
    await shop.apply(price="1")
    assert (await shop.apply(price="2")).plans == ((shop.name, 2),)
    assert (await shop.apply(price="1")).plans == ((shop.name, 3),)
    assert (await shop.apply(price="1")).plans == ()


async def test_an_unused_meter_may_change(shop: Shop) -> None:
    await shop.apply(price=None)
    assert (await shop.apply(price=None, unit="minute")).meters == (shop.name,)


async def test_a_meter_that_a_plan_charges_for_may_not_change(shop: Shop) -> None:
    await shop.apply()
    with pytest.raises(MeterInUseError, match=shop.name):
        await shop.apply(unit="minute")
    assert (await shop.apply()).meters == (), "the refused change left no trace"


async def test_all_that_a_meter_says_is_stored(shop: Shop) -> None:
    kind = (
        "aggregation: time_weighted, weight_per: month, value_property: gb, dimensions: [class],"
        ' allowed_lateness_seconds: 0, filters: [{property: gb, operator: lt, values: ["9.5"]}]'
    )
    assert (await shop.apply(kind=kind, price=None)).meters == (shop.name,)
    assert (await shop.apply(kind=kind, price=None)).meters == (), "what was read back is what was stored"
    assert (await shop.apply(kind=kind.replace("9.5", "9"), price=None)).meters == (shop.name,)


@pytest.mark.parametrize("table", ["usage_rollups", "usage_samples"])
async def test_a_meter_with_usage_may_not_change(shop: Shop, table: str) -> None:
    await shop.apply(price=None)
    shop.use(table)
    with pytest.raises(MeterInUseError, match=shop.name):
        await shop.apply(price=None, unit="minute")
