"""The contract of quotas' books, on memory and on PostgreSQL; and the history of usage in ClickHouse's engine."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from core.clock import SystemClock
from core.errors import ConflictError, InvalidInputError, NotFoundError
from quotas.adapters.postgres_entitlements import PostgresEntitlements
from quotas.adapters.postgres_reservations import PostgresReservations
from quotas.adapters.usage_history import ClickHouseHistory
from quotas.domain.entitlement import Entitlement, Feature
from quotas.domain.grant import Grant
from quotas.domain.reservation import HoldRequest, Reservation
from quotas.give_entitlement import give_entitlement
from runtime.clickhouse import connect_clickhouse
from runtime.postgres import create_pool
from runtime.settings import Settings
from tests.quotas.memory_books import MemoryEntitlements, MemoryReservations

NOW = datetime(2026, 10, 20, 12, tzinfo=UTC)
_numbers = itertools.count()


@dataclass
class Shelf:
    """Books with a tenant on a plan, a meter, and that meter's limit."""

    entitlements: Any
    reservations: Any
    tenant: str
    plan: str
    meter: str

    def feature(self, name: str = "calls", kind: Any = "metered") -> Feature:
        return Feature(f"{name}-{self.tenant}", name, kind, self.meter if kind == "metered" else None)

    async def give(self, feature: Feature, entitlement: Entitlement | None = None, **to: Any) -> None:
        await give_entitlement(feature, entitlement, books=self.entitlements, clock=SystemClock(), **to)

    def reservation(self, key: str = "k", **change: Any) -> Reservation:
        request = HoldRequest(self.tenant, self.meter, Decimal("5.5"), 60, key)
        now = datetime.now(UTC)
        made = Reservation(
            request.reservation_id, self.tenant, self.meter, request.amount, "held", "jobs", key, request.sha256, now,
            now + timedelta(seconds=60),
        )  # fmt: skip
        return replace(made, **change)


def _memory(name: str) -> Shelf:
    books = MemoryEntitlements(meters=(f"m-{name}",), plan_of={name: f"p-{name}"})
    books.limit(name, f"m-{name}", Decimal(100), hard=True)
    return Shelf(books, MemoryReservations(), name, f"p-{name}", f"m-{name}")


async def _real(settings: Settings, name: str, pool: Any) -> Shelf:
    with psycopg.connect(settings.postgres) as connection:
        connection.execute(
            "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
            " VALUES (%s, 'n', 'e', 'DE', 'EUR', now())",
            (name,),
        )
        connection.execute(
            "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, created_at)"
            " VALUES (%s, 'call', %s, 'sum', 'n', now())",
            (f"m-{name}", name),
        )
        connection.execute(
            "INSERT INTO plan_versions (plan_id, version, catalogue, digest, document, created_at)"
            " VALUES (%s, 1, 'c', 'd', '{}', now())",
            (f"p-{name}",),
        )
        connection.execute(
            "INSERT INTO subscriptions (subscription_id, tenant_id, plan_id, plan_version, started_at)"
            " VALUES (%s, %s, %s, 1, now())",
            (name, name, f"p-{name}"),
        )
        connection.execute("INSERT INTO quota_limits VALUES (%s, %s, 100, true, 'call')", (name, f"m-{name}"))
    return Shelf(PostgresEntitlements(pool), PostgresReservations(pool), name, f"p-{name}", f"m-{name}")


@pytest.fixture
async def memory_shelf() -> Shelf:
    return _memory(f"books-{next(_numbers)}")


@pytest.fixture
async def real_shelf(settings: Settings) -> AsyncIterator[Shelf]:
    async with create_pool(settings, max_size=2) as pool:
        yield await _real(settings, f"books-{next(_numbers)}", pool)


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.integration)])
def shelf(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_shelf")


async def test_a_meter_is_a_feature_by_its_own_name_with_the_limit_of_the_subscription(shelf: Shelf) -> None:
    found = (await shelf.entitlements.of_tenant(shelf.tenant)).of_feature(shelf.meter)
    assert (found.origin, found.limit, found.hard, found.period) == ("limit", 100, True, "month")
    await shelf.give(shelf.feature())
    book = await shelf.entitlements.of_tenant(shelf.tenant)
    assert book.of_feature(shelf.feature().feature_id) == replace(found, feature=shelf.feature())
    assert book.of_meter(shelf.meter).limit == 100
    with pytest.raises(NotFoundError):
        book.of_feature("nothing")


async def test_the_tenants_own_comes_before_its_plans_before_the_limit(shelf: Shelf) -> None:
    feature = shelf.feature()
    by_plan = Entitlement(feature, "plan", Decimal(200), False, "billing")
    await shelf.give(feature, by_plan, plan=shelf.plan)
    assert (await shelf.entitlements.of_tenant(shelf.tenant)).of_meter(shelf.meter) == by_plan
    own = Entitlement(feature, "tenant", Decimal("7.5"), True, "rolling", 24)
    await shelf.give(feature, own, tenant=shelf.tenant)
    assert (await shelf.entitlements.of_tenant(shelf.tenant)).of_meter(shelf.meter) == own
    changed = replace(own, limit=None, hard=False, period="year", rolling_hours=None)
    await shelf.give(feature, changed, tenant=shelf.tenant)
    assert (await shelf.entitlements.of_tenant(shelf.tenant)).of_feature(feature.feature_id) == changed


async def test_switches_and_values_are_had_only_when_given(shelf: Shelf) -> None:
    sso, support = shelf.feature("sso", "boolean"), shelf.feature("support", "static")
    await shelf.give(sso)
    await shelf.give(support, Entitlement(support, "plan", value={"hours": [8, 20]}), plan=shelf.plan)
    book = await shelf.entitlements.of_tenant(shelf.tenant)
    assert (book.of_feature(sso.feature_id).value, book.of_feature(sso.feature_id).origin) == (False, "none")
    assert book.of_feature(support.feature_id).value == {"hours": [8, 20]}
    await shelf.give(sso, Entitlement(sso, "tenant", value=True), tenant=shelf.tenant)
    assert (await shelf.entitlements.of_tenant(shelf.tenant)).of_feature(sso.feature_id).value is True


async def test_a_feature_keeps_its_kind_and_meter(shelf: Shelf) -> None:
    await shelf.give(shelf.feature())
    await shelf.give(replace(shelf.feature(), name="Renamed"))
    assert (await shelf.entitlements.find_feature(shelf.feature().feature_id)).name == "Renamed"
    with pytest.raises(ConflictError):
        await shelf.give(replace(shelf.feature(), kind="boolean", meter_id=None))
    with pytest.raises(NotFoundError):
        await shelf.give(replace(shelf.feature("other"), meter_id="no-such-meter"))
    assert await shelf.entitlements.find_feature("nothing") is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"limit": Decimal(-1)}, "invalid_limit"),
        ({"limit": None, "hard": True}, "invalid_limit"),
        ({"period": "rolling"}, "invalid_period"),
        ({"period": "rolling", "rolling_hours": 745}, "invalid_period"),
        ({"value": 1}, "invalid_value"),
    ],
)
async def test_entitlements_that_make_no_sense_are_refused(
    change: dict[str, Any], code: str, memory_shelf: Shelf
) -> None:
    feature = memory_shelf.feature()
    with pytest.raises(InvalidInputError) as refused:
        await memory_shelf.give(
            feature, replace(Entitlement(feature, "tenant", Decimal(1)), **change), tenant=memory_shelf.tenant
        )
    assert [fault.code for fault in refused.value.faults] == [code]


def _grant(shelf: Shelf, name: str, **change: Any) -> Grant:
    made = Grant(
        f"{name}-{shelf.tenant}", Decimal("5.000000000001"), 7, NOW, NOW + timedelta(days=3), "monthly", Decimal(1),
        Decimal(2), NOW, "why",
    )  # fmt: skip
    return replace(made, **change)


async def test_grants_are_added_once_listed_and_voided(shelf: Shelf) -> None:
    grant = _grant(shelf, "a")
    later = _grant(shelf, "b", created_at=NOW + timedelta(seconds=1), expires_at=None, recurrence="none")
    for made in (later, grant, grant):
        assert await shelf.entitlements.add_grant(shelf.tenant, shelf.meter, made) == made
    assert await shelf.entitlements.list_grants(shelf.tenant, None) == [(shelf.meter, grant), (shelf.meter, later)]
    assert await shelf.entitlements.list_grants(shelf.tenant, "other") == []
    assert (await shelf.entitlements.of_tenant(shelf.tenant)).grants == {shelf.meter: (grant, later)}
    with pytest.raises(ConflictError):
        await shelf.entitlements.add_grant(shelf.tenant, shelf.meter, replace(grant, amount=Decimal(1)))
    await shelf.entitlements.void_grant(grant.grant_id, NOW)
    await shelf.entitlements.void_grant(grant.grant_id, NOW)
    assert (await shelf.entitlements.of_tenant(shelf.tenant)).grants == {shelf.meter: (later,)}
    with pytest.raises(ConflictError):
        await shelf.entitlements.add_grant(shelf.tenant, shelf.meter, grant)
    with pytest.raises(NotFoundError):
        await shelf.entitlements.void_grant("nothing", NOW)


async def test_a_reservation_is_written_once_and_counts_until_it_is_over(shelf: Shelf) -> None:
    books, held = shelf.reservations, shelf.reservation()
    assert await books.write(held) == held
    again = shelf.reservation(amount=Decimal(9), request_sha256="other")
    assert await books.write(again) == held
    assert await books.find(held.reservation_id) == held
    assert await books.open_of(shelf.tenant) == [held]
    until = held.expires_at + timedelta(hours=1)
    assert await books.extend(held.reservation_id, "committed", until)
    assert await books.extend(held.reservation_id, "committed", held.expires_at)
    await books.reduce(held.reservation_id, Decimal("2.25"))
    committed = replace(held, status="committed", amount=Decimal("2.25"), expires_at=until)
    assert await books.open_of(shelf.tenant) == [committed]
    await books.close(held.reservation_id, "released")
    await books.close(held.reservation_id, "refused")
    assert (await books.find(held.reservation_id)).status == "released"
    assert not await books.extend(held.reservation_id, "held", until)
    assert await books.open_of(shelf.tenant) == []
    with pytest.raises(NotFoundError):
        await books.find("nothing")


async def test_what_expired_neither_counts_nor_is_extended(shelf: Shelf) -> None:
    past = datetime.now(UTC) - timedelta(seconds=5)
    await shelf.reservations.write(shelf.reservation("old", expires_at=past))
    assert await shelf.reservations.open_of(shelf.tenant) == []
    assert not await shelf.reservations.extend(shelf.reservation("old").reservation_id, "held", NOW)


@pytest.mark.integration
async def test_an_event_that_was_counted_settles_its_reservation(settings: Settings, real_shelf: Shelf) -> None:
    from streams.adapters.postgres_quotas import settle_reservations

    held, other = real_shelf.reservation("s1"), real_shelf.reservation("s2")
    for each in (held, other):
        await real_shelf.reservations.write(each)
    async with create_pool(settings, max_size=1) as pool:
        await settle_reservations(pool, [held.reservation_id, "unknown"])
        await settle_reservations(pool, [held.reservation_id])
    assert (await real_shelf.reservations.find(held.reservation_id)).status == "settled"
    assert await real_shelf.reservations.open_of(real_shelf.tenant) == [other]


@pytest.mark.integration
async def test_the_agents_limits_are_the_same_that_the_desk_reads(settings: Settings, real_shelf: Shelf) -> None:
    from runtime.registry import RegistryCache
    from streams.adapters.postgres_quotas import RulesCache

    key = (real_shelf.tenant, real_shelf.meter)
    async with create_pool(settings, max_size=2) as pool:

        async def limit() -> Any:
            registry = RegistryCache(pool, SystemClock(), refresh_seconds=5)
            return (await RulesCache(pool, registry, (80,), 5).get()).limits[key]

        assert ((await limit()).limit, (await limit()).is_billing) == (100, False)
        feature = real_shelf.feature()
        await real_shelf.give(feature, Entitlement(feature, "plan", Decimal(200)), plan=real_shelf.plan)
        assert (await limit()).limit == 200
        await real_shelf.give(
            feature, Entitlement(feature, "tenant", Decimal(300), True, "billing"), tenant=real_shelf.tenant
        )
        # Anchored to the first of the month, a billing period is the month.
        assert ((await limit()).limit, (await limit()).hard, (await limit()).is_billing) == (300, True, False)
        with psycopg.connect(settings.postgres) as connection:
            connection.execute("UPDATE tenants SET billing_anchor_day = 9 WHERE tenant_id = %s", (real_shelf.tenant,))
        assert (await limit()).is_billing


@pytest.mark.integration
async def test_the_agent_follows_the_alert_rules(settings: Settings, real_shelf: Shelf) -> None:
    from runtime.registry import RegistryCache
    from streams.adapters.postgres_quotas import RulesCache

    async with create_pool(settings, max_size=2) as pool:
        cache = RulesCache(pool, RegistryCache(pool, SystemClock(), refresh_seconds=5), (80, 100), refresh_s=0)

        async def thresholds() -> list[tuple[str, Decimal]]:
            rules = await cache.get()
            return [(one.kind, one.value) for one in rules.thresholds_of(real_shelf.tenant, real_shelf.meter)]

        assert await thresholds() == [("percent", 80), ("percent", 100)]
        unchanged = await cache.get()
        assert await cache.get() is unchanged
        async with pool.connection() as connection:
            for kind, value in (("percent", 50), ("units", 7)):
                await connection.execute(
                    "INSERT INTO alert_rules (rule_id, kind, tenant_id, meter_id, value, created_at, updated_at)"
                    " VALUES (%s, %s, %s, %s, %s, now(), now())",
                    (f"{kind}-{real_shelf.tenant}", kind, real_shelf.tenant, real_shelf.meter, value),
                )
        assert await thresholds() == [("percent", 50), ("units", 7)]
        assert await cache.get() is not unchanged


@pytest.mark.integration
async def test_history_is_cut_where_it_is_asked_to_be_and_counts_the_newest_version_once(settings: Settings) -> None:
    tenant = f"history-{next(_numbers)}"
    start = datetime(2026, 10, 1, tzinfo=UTC)
    rows = [
        [tenant, "calls", {}, start + timedelta(minutes=minute), 0, 0, Decimal(quantity), 1, version]
        for minute, quantity, version in ((0, 1, 1), (59, 2, 1), (60, 4, 1), (60, 5, 2), (119, 8, 1), (120, 100, 1))
    ]
    client = connect_clickhouse(settings)
    try:
        client.insert("usage_rollups", rows)
    finally:
        client.close()
    history = ClickHouseHistory(settings)
    cuts = [start + timedelta(hours=hour) for hour in (0, 1, 2)]
    assert await history.between(tenant, "calls", cuts) == [3, 13]
    assert await history.between(tenant, "calls", [start - timedelta(hours=1), start]) == [0]
    assert await history.between(tenant, "other", cuts) == [0, 0]
    await history.close()
