"""Creating and subscribing tenants: twice is once, what makes no sense is refused; in memory and for real."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from core.clock import ManualClock
from core.errors import InvalidInputError, NotFoundError
from rating.domain.subscription import Subscription
from runtime.postgres import create_pool
from runtime.settings import Settings
from subscriptions.adapters.postgres import PostgresSubscriptionStore
from subscriptions.commands import read_overrides
from subscriptions.create_tenant import TenantExistsError, create_tenant
from subscriptions.domain.tenant import Tenant, check_tenant
from subscriptions.ports import SubscriptionStore
from subscriptions.subscribe_tenant import SubscribedError, subscribe_tenant
from tests.subscriptions.memory import MemoryStore

KINDS = ["memory", pytest.param("real", marks=pytest.mark.integration)]
START = datetime(2026, 10, 5, 10, 30, 45, tzinfo=UTC)
ACME = Tenant("acme", "Acme Ltd.", "billing@acme.example", "DE", "USD", "1 Road\nTown")


class Desk:
    """Where tenants are signed up, with a tenant of this test's own."""

    def __init__(self, settings: Settings | None) -> None:
        self._settings, self._memory = settings, MemoryStore()
        self.tenant = replace(ACME, tenant_id=f"t-{uuid4().hex[:10]}")

    @asynccontextmanager
    async def store(self) -> AsyncIterator[SubscriptionStore]:
        if self._settings is None:
            yield self._memory
            return
        await apply_files(self._settings, shipped_files())
        pool = create_pool(self._settings, max_size=1)
        async with pool, pool.connection() as connection, connection.transaction():
            yield PostgresSubscriptionStore(connection)

    async def create(self, **changes: Any) -> bool:
        async with self.store() as store:
            return await create_tenant(replace(self.tenant, **changes), store=store, now=START)

    async def subscribe(self, plan: str, **overrides: Any) -> tuple[Subscription, bool]:
        async with self.store() as store:
            return await subscribe_tenant(
                self.tenant.tenant_id,
                plan,
                overrides=overrides,
                started_at=START,
                store=store,
                clock=ManualClock(START),
            )

    def limits(self) -> list[tuple[str, str, bool, str]]:
        if self._settings is None:
            found = [one.limit for one in self._memory.limits[self.tenant.tenant_id]]
            return [(limit.meter_id, str(limit.limit), limit.hard, limit.unit) for limit in found]
        with psycopg.connect(self._settings.postgres) as connection:
            return connection.execute(
                "SELECT meter_id, limit_quantity::text, hard, unit FROM quota_limits WHERE tenant_id = %s ORDER BY 1",
                (self.tenant.tenant_id,),
            ).fetchall()


@pytest.fixture(params=KINDS)
def desk(request: pytest.FixtureRequest) -> Desk:
    return Desk(request.getfixturevalue("settings") if request.param == "real" else None)


async def test_a_tenant_is_created_once(desk: Desk) -> None:
    assert await desk.create()
    assert not await desk.create()
    with pytest.raises(TenantExistsError):
        await desk.create(name="Someone else")


async def test_subscribing_twice_is_subscribing_once(desk: Desk) -> None:
    await desk.create()
    subscription, is_new = await desk.subscribe("lite")
    assert is_new
    assert subscription.started_at == START.replace(second=0), "subscriptions start on whole minutes"
    assert await desk.subscribe("lite") == (subscription, False)
    with pytest.raises(SubscribedError):
        await desk.subscribe("shared")
    with pytest.raises(SubscribedError):
        await desk.subscribe("lite", charges=[{"id": "base", "flat_amount": "1"}])
    async with desk.store() as store:
        assert (desk.tenant, [subscription]) in await store.tenants()


@pytest.mark.parametrize(
    ("plan", "overrides", "limits"),
    [
        (
            "zero",
            {},
            [
                ("agent_executions", "1000", True, "execution"),
                ("api_requests", "100000", True, "request"),
                ("executions", "1000", True, "execution"),
            ],
        ),
        (
            "lite",
            {"charges": [{"id": "agent_executions", "included": "250000.5"}]},
            [
                ("agent_executions", "250000.5", False, "execution"),
                ("api_requests", "10000000", False, "request"),
                ("executions", "100000", False, "execution"),
            ],
        ),
        ("enterprise", {}, []),
        (
            "enterprise",
            {"limits": {"cpu": {"quantity": "500", "hard": True}}},
            [("cpu", "500", True, "vCPU-hour")],
        ),
    ],
)
async def test_quota_limits_follow_from_the_plan_and_the_contract(
    desk: Desk, plan: str, overrides: dict[str, Any], limits: list[tuple[str, str, bool, str]]
) -> None:
    await desk.create()
    await desk.subscribe(plan, **overrides)
    assert desk.limits() == limits


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        ({"charges": [{"id": "base", "flat_amount": "-1"}]}, "negative_amount"),
        ({"charges": [{"id": "base", "flat_amount": 8000.5}]}, "float_amount"),
        ({"charges": [{"id": "new", "name": "New", "meter": "nonsense", "model": "per_unit"}]}, "unknown_meter"),
        ({"charges": [{"flat_amount": "1"}]}, "missing_field"),
        ({"charges": {"base": 1}}, "invalid_type"),
        ({"limits": []}, "invalid_type"),
        ({"limits": {"nonsense": {"quantity": 1}}}, "unknown_meter"),
        ({"discount": "all of it"}, "unknown_field"),
    ],
)
async def test_overrides_that_make_no_sense_are_refused(desk: Desk, overrides: dict[str, Any], code: str) -> None:
    await desk.create()
    with pytest.raises(InvalidInputError) as refused:
        await desk.subscribe("enterprise", **overrides)
    assert code in [fault.code for fault in refused.value.faults]
    async with desk.store() as store:
        assert await store.subscriptions(desk.tenant.tenant_id) == []


async def test_who_or_what_does_not_exist_is_not_found(desk: Desk) -> None:
    with pytest.raises(NotFoundError, match="no tenant"):
        await desk.subscribe("lite")
    await desk.create()
    with pytest.raises(NotFoundError, match="no plan"):
        await desk.subscribe("platinum")


async def test_a_plan_in_another_currency_is_refused(desk: Desk) -> None:
    await desk.create(currency="EUR")
    with pytest.raises(InvalidInputError) as refused:
        await desk.subscribe("lite")
    assert refused.value.faults[0].code == "currency_mismatch"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"tenant_id": "../etc"}, "tenant_id"),
        ({"tenant_id": "a" * 65}, "tenant_id"),
        ({"tenant_id": ""}, "tenant_id"),
        ({"name": " "}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"email": "nobody"}, "email"),
        ({"email": "a@b\nBcc: c@d.e"}, "email"),
        ({"country": "Germany"}, "country"),
        ({"currency": "XXX"}, "currency"),
        ({"address": "\n".join("1234567")}, "address"),
        ({"time_zone": "Mars/Olympus_Mons"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"time_zone": ""}, "time_zone"),
        ({"billing_anchor_day": 0}, "billing_anchor_day"),
        ({"billing_anchor_day": 32}, "billing_anchor_day"),
    ],
)
def test_wrong_particulars_are_refused(change: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_tenant(replace(ACME, **change))
    assert [fault.path for fault in refused.value.faults] == [path]


def test_all_wrong_particulars_are_named_at_once() -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_tenant(Tenant("", "", "", "", ""))
    assert [fault.path for fault in refused.value.faults] == ["tenant_id", "name", "email", "country", "currency"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "invalid_json"),
        ('{"a": 1, "a": 2}', "invalid_json"),
        ("/does/not/exist.json", "unreadable_file"),
        ("\x00", "unreadable_file"),
    ],
)
def test_overrides_that_cannot_be_read_are_refused(text: str, code: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_overrides(text)
    assert refused.value.faults[0].code == code
