"""Applying a catalogue: plans get versions, meters in use do not change, twice is once; in memory and for real."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from catalogues.adapters.clickhouse import ClickHouseMeteredUsage
from catalogues.adapters.postgres import PostgresCatalogueStore
from catalogues.apply_catalogue import Applied, apply_catalogue, find_difference
from catalogues.domain.difference import Difference
from catalogues.domain.edition import StoredPlan
from catalogues.load_catalogue import CatalogueFile, load_catalogue
from core.errors import InvalidInputError
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse, connect_clickhouse_async
from runtime.postgres import create_pool
from runtime.settings import Settings
from tests.catalogues.memory import MemoryCatalogueStore, MemoryUsage

NOW = datetime(2026, 10, 1, tzinfo=UTC)
KINDS = ["memory", pytest.param("real", marks=pytest.mark.integration)]


class Shop:
    """A catalogue of one meter and one plan, with names of this test's own."""

    def __init__(self, settings: Settings | None) -> None:
        self._settings = settings
        self.name = f"t{uuid4().hex[:10]}"
        self._store, self._usage = MemoryCatalogueStore(), MemoryUsage()

    def use(self, table: str = "usage_rollups") -> None:
        if self._settings is None:
            self._usage.used.add(self.name)
            return
        client = connect_clickhouse(self._settings)
        columns = ["tenant", "meter", "quantity", "version"]
        client.insert(table, [["t", self.name, Decimal(1), 1]], column_names=columns, settings=INSERT_SETTINGS)
        client.close()

    def text(
        self,
        *,
        price: str | None = "1",
        unit: str = "hour",
        kind: str = "aggregation: count",
        header: str = "",
        given: str = "",
    ) -> str:
        """Return a catalogue of this shop; `given` is what its plan gives of the feature that has the shop's name."""
        text = f"catalogue: {self.name}\n{header}\n"
        text += f"meters: {{{self.name}: {{unit: {unit}, event_type: {self.name}, {kind}}}}}\n"
        if given:
            text += f"features: {{{self.name}: {{name: F, kind: {given.split()[0]}}}}}\n"
        if price is not None:
            charge = f'{{id: a, name: A, meter: {self.name}, model: per_unit, unit_amount: "{price}"}}'
            features = f"features: {{{self.name}: {given.split(maxsplit=1)[1]}}}, " if given else ""
            text += f"plans: {{{self.name}: {{name: P, currency: USD, {features}charges: [{charge}]}}}}\n"
        return text

    async def apply(self, *, now: datetime = NOW, text: str | None = None, **of_text: str | None) -> Applied:
        async with self._open() as (store, usage):
            known = (await store.meters()).values()
            file = CatalogueFile("x.yaml", (text or self.text(**of_text)).encode())  # type: ignore[arg-type]
            return await apply_catalogue(load_catalogue([file], known), store=store, usage=usage, now=now)

    async def diff(self, *, now: datetime = NOW, **of_text: str | None) -> Difference:
        file = CatalogueFile("x.yaml", self.text(**of_text).encode())  # type: ignore[arg-type]
        async with self._open() as (store, usage):
            return await find_difference(load_catalogue([file]), store=store, usage=usage, now=now)

    async def refusals(self, **of_text: Any) -> list[tuple[str, str]]:
        """Return code and path of every reason why a catalogue is refused, by diff and by apply alike."""
        found = [(fault.code, fault.path) for fault in (await self.diff(**of_text)).refused]
        with pytest.raises(InvalidInputError) as refused:
            await self.apply(**of_text)
        assert [(fault.code, fault.path) for fault in refused.value.faults] == found
        return found

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

    async def stored(self) -> StoredPlan:
        async with self._open() as (store, _):
            return (await store.plans())[self.name]


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest) -> Shop:
    return Shop(request.getfixturevalue("settings") if request.param == "real" else None)


async def test_applying_twice_changes_nothing(shop: Shop) -> None:
    first = await shop.apply()
    assert (first.meters, first.plans) == ((shop.name,), ((shop.name, 1),))
    again = await shop.apply()
    assert (again.meters, again.plans, again.difference.is_empty) == ((), (), True)


async def test_a_changed_plan_becomes_the_next_version_even_on_its_way_back(shop: Shop) -> None:
    await shop.apply(price="1")
    assert (await shop.apply(price="2")).plans == ((shop.name, 2),)
    assert (await shop.apply(price="1")).plans == ((shop.name, 3),)
    assert (await shop.apply(price="1")).plans == ()


async def test_what_diff_shows_is_what_apply_does_and_then_there_is_no_difference(shop: Shop) -> None:
    await shop.apply(price="1")
    shown = await shop.diff(price="2", given="boolean true")
    assert [(c.kind, c.name, c.is_new, c.version_before, c.version_after) for c in shown.changes] == [
        ("feature", shop.name, True, None, None),
        ("plan", shop.name, False, 1, 2),
    ]
    assert [(".".join(f.path), f.before, f.after) for f in shown.changes[1].fields] == [
        ("charges.a.unit_amount", "1", "2"),
        (f"features.{shop.name}", None, True),
    ]
    assert (await shop.diff(price="2", given="boolean true")) == shown, "looking changes nothing"
    assert (await shop.apply(price="2", given="boolean true")).difference == shown
    assert (await shop.diff(price="2", given="boolean true")).is_empty


async def test_an_unused_meter_may_change(shop: Shop) -> None:
    await shop.apply(price=None)
    assert (await shop.apply(price=None, unit="minute")).meters == (shop.name,)


async def test_a_meter_that_a_plan_charges_for_may_not_change(shop: Shop) -> None:
    await shop.apply()
    assert await shop.refusals(unit="minute") == [("meter_in_use", f"meters.{shop.name}")]
    assert (await shop.apply()).meters == (), "the refused change left no trace"


async def test_all_that_a_meter_says_is_stored(shop: Shop) -> None:
    kind = (
        "aggregation: time_weighted, weight_per: month, value_property: gb, dimensions: [class],"
        ' allowed_lateness_seconds: 0, filters: [{property: gb, operator: lt, values: ["9.5"]}]'
    )
    assert (await shop.apply(kind=kind, price=None)).meters == (shop.name,)
    assert (await shop.apply(kind=kind, price=None)).meters == (), "what was read back is what was stored"
    changed = await shop.apply(kind=kind.replace("9.5", "9"), price=None)
    assert [field.path for field in changed.difference.changes[0].fields] == [("filters", "[0]", "values")]


@pytest.mark.parametrize("table", ["usage_rollups", "usage_samples"])
async def test_a_meter_with_usage_may_not_change(shop: Shop, table: str) -> None:
    await shop.apply(price=None)
    shop.use(table)
    assert await shop.refusals(price=None, unit="minute") == [("meter_in_use", f"meters.{shop.name}")]


async def test_a_version_says_one_thing_for_ever(shop: Shop) -> None:
    await shop.apply(header="version: 3")
    assert await shop.refusals(header="version: 3", price="2") == [("edition_changed", f"{shop.name}.version")]
    assert await shop.refusals(header="version: 2", price="2") == [("edition_outdated", f"{shop.name}.version")]
    assert (await shop.apply(header="version: 3")).difference.is_empty
    changed = await shop.apply(header="version: 7", price="2")
    assert [one.version for one in changed.difference.editions] == [7]
    assert (await shop.apply(header="version: 7", price="2")).difference.is_empty


async def test_a_catalogue_without_versions_counts_them_itself(shop: Shop) -> None:
    assert [one.version for one in (await shop.apply()).difference.editions] == [1]
    assert [one.version for one in (await shop.apply(price="2")).difference.editions] == [2]
    assert (await shop.apply(price="2")).difference.editions == ()


async def test_a_plan_version_is_sold_from_its_catalogues_date(shop: Shop) -> None:
    await shop.apply(header="effective_from: 2026-11-01")
    assert await shop.refusals(header="effective_from: 2026-10-31", price="2") == [
        ("effective_before_stored", f"plans.{shop.name}")
    ]
    assert await shop.refusals(price="2") == [("effective_before_stored", f"plans.{shop.name}")], "now is before"
    later = await shop.apply(header="effective_from: 2026-11-01", price="2")
    assert [(c.version_after, c.effective_from) for c in later.difference.changes] == [
        (2, datetime(2026, 11, 1, tzinfo=UTC))
    ]
    assert (await shop.stored()).effective_from == datetime(2026, 11, 1, tzinfo=UTC)


async def test_without_a_date_it_is_sold_from_when_it_is_applied(shop: Shop) -> None:
    await shop.apply()
    assert (await shop.stored()).effective_from == NOW
    later = NOW.replace(day=9)
    assert (await shop.apply(now=later)).difference.is_empty, "a later day is no change"
    await shop.apply(now=later, price="2")
    assert (await shop.stored()).effective_from == later


async def test_a_plan_belongs_to_one_catalogue(shop: Shop) -> None:
    await shop.apply()
    other = shop.text(price="2").replace(f"catalogue: {shop.name}", "catalogue: somebody")
    with pytest.raises(InvalidInputError) as refused:
        await shop.apply(text=other)
    assert [(one.code, one.path) for one in refused.value.faults] == [("plan_of_other_catalogue", f"plans.{shop.name}")]


async def test_a_plan_that_left_its_file_is_kept_and_named(shop: Shop) -> None:
    await shop.apply()
    left = await shop.apply(price=None)
    assert left.difference.kept == ((shop.name, shop.name),)
    assert (await shop.stored()).version == 1


@pytest.mark.parametrize(
    ("given", "changed"),
    [("boolean true", "boolean false"), ("static [eu,us]", "static [us,eu]"), ("static {a:1}", "static {a:2}")],
)
async def test_what_a_plan_gives_belongs_to_its_version(shop: Shop, given: str, changed: str) -> None:
    given, changed = given.replace(":", ": "), changed.replace(":", ": ")
    await shop.apply(given=given)
    before = await shop.stored()
    assert (await shop.apply(given=given)).difference.is_empty
    assert (await shop.apply(given=changed)).plans == ((shop.name, 2),), "the prices are the same, the version is not"
    after = await shop.stored()
    assert before.given[0].value != after.given[0].value
    assert before.digest == after.digest


async def test_a_metered_feature_is_given_with_its_limit(shop: Shop) -> None:
    text = shop.text(given="METERED GIVEN").replace("kind: METERED", f"kind: metered, meter: {shop.name}")
    text = text.replace("GIVEN", '{limit: "50.5", hard: true, period: "rolling:24h"}')
    assert (await shop.apply(text=text)).features == (shop.name,)
    [given] = (await shop.stored()).given
    assert (given.limit, given.hard, given.period, given.rolling_hours) == (Decimal("50.5"), True, "rolling", 24)
    assert (await shop.apply(text=text)).difference.is_empty
    assert (await shop.apply(text=text.replace('"50.5"', '"50.50"'))).plans == (), "the same limit"
    unlimited = text.replace('limit: "50.5", hard: true, ', "")
    assert (await shop.apply(text=unlimited)).plans == ((shop.name, 2),)
    assert (await shop.stored()).given[0].limit is None


async def test_a_feature_may_get_another_name_but_not_count_another_way(shop: Shop) -> None:
    await shop.apply(given="boolean true")
    renamed = shop.text(given="boolean true").replace("name: F", "name: G")
    assert (await shop.apply(text=renamed)).features == (shop.name,)
    with pytest.raises(InvalidInputError, match="feature_in_use"):
        await shop.apply(given="static 1")
