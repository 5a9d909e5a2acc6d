"""A desk at which a tenant's subscription is changed, in memory or on PostgreSQL, and the plans it sells."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4

from psycopg.types.json import Jsonb

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from core.clock import ManualClock
from core.errors import InvalidInputError
from rating.domain.contract import Contract
from rating.domain.digest import digest_of
from rating.domain.plan import Plan, parse_plan
from rating.domain.subscription import Subscription
from rating.domain.timeline import Timeline
from runtime.postgres import create_pool
from runtime.settings import Settings
from subscriptions.adapters.postgres import PostgresSubscriptionStore
from subscriptions.create_subscription import NewSubscription, create_subscription
from subscriptions.create_tenant import create_tenant
from subscriptions.domain.tenant import Tenant
from subscriptions.ports import SubscriptionStore
from subscriptions.record_changes import Asked, Outcome
from tests.rating.plans import METERS
from tests.subscriptions.memory import MemoryStore

T = TypeVar("T")
BY = Asked("ann", "because")
ACME = Tenant("acme", "Acme Ltd.", "billing@acme.example", "DE", "USD")


def flat(amount: str, **more: Any) -> dict[str, Any]:
    return {"id": "base", "name": "Base", "model": "flat", "flat_amount": amount, **more}


def metered(meter: str, amount: str = "1") -> dict[str, Any]:
    return {"id": f"of-{meter}", "name": meter, "meter": meter, "model": "per_unit", "unit_amount": amount}


def per_seat(amount: str) -> dict[str, Any]:
    recurring = {"interval": "month", "usage_type": "licensed"}
    return {"id": "seats", "name": "Seats", "model": "per_unit", "unit_amount": amount, "recurring": recurring}


def plan(plan_id: str, *charges: dict[str, Any], currency: str = "USD", **more: Any) -> Plan:
    document = {"name": plan_id.title(), "currency": currency, "charges": list(charges), **more}
    return parse_plan(plan_id, document, METERS)


PLANS = (
    plan("small", flat("30"), limits={"api_requests": {"quantity": "1000", "hard": True}}),
    plan("large", flat("93"), limits={"api_requests": {"quantity": "50000"}}),
    plan("team", per_seat("12")),
    plan("calls", metered("api_requests", "0.01")),
    plan("more-calls", metered("api_requests", "0.02")),
    plan("compute", metered("cpu")),
    plan("support", flat("15.50")),
    plan("euros", flat("30"), currency="EUR"),
)


class Desk:
    """Changes one tenant's subscriptions; every call is a transaction of its own."""

    def __init__(self, store: Callable[[], Any], sell: Callable[[Plan], Awaitable[None]], tenant: Tenant) -> None:
        self.store, self.sell, self.tenant = store, sell, tenant
        self.clock = ManualClock(datetime(2026, 10, 5, 10, 30, tzinfo=UTC))

    async def subscribe(self, plan_id: str = "small", asked: Asked = BY, **wanted: Any) -> str:
        new = NewSubscription(self.tenant.tenant_id, plan_id, wanted.pop("started_at", self.clock.now()), **wanted)
        outcome = await self.do(create_subscription, new, asked=asked)
        return outcome.subscription.subscription_id

    async def do(self, verb: Callable[..., Awaitable[Outcome]], *args: Any, asked: Asked = BY, **more: Any) -> Outcome:
        async with self.store() as store:
            return await verb(*args, asked=asked, store=store, clock=self.clock, **more)

    async def refusal(self, verb: Callable[..., Awaitable[Outcome]], *args: Any, **more: Any) -> list[str]:
        """Return the codes that something is refused with; nothing may have been written."""
        before = await self.everything()
        try:
            await self.do(verb, *args, **more)
        except InvalidInputError as refused:
            assert await self.everything() == before
            return [fault.code for fault in refused.faults]
        raise AssertionError("it was not refused")

    async def everything(self) -> list[Subscription]:
        async with self.store() as store:
            found: list[Subscription] = await store.subscriptions(self.tenant.tenant_id)
            return found

    async def timeline(self, subscription_id: str, known_at: datetime | None = None) -> Timeline:
        async with self.store() as store:
            found: Subscription | None = await store.subscription(subscription_id)
        assert found is not None
        return found.timeline(known_at=known_at)


async def memory_desk(tenant: Tenant) -> Desk:
    memory = MemoryStore()

    @asynccontextmanager
    async def store() -> AsyncIterator[SubscriptionStore]:
        # As a transaction would: what was refused half-way is undone.
        kept = memory.snapshot()
        try:
            yield memory
        except BaseException:
            memory.restore(kept)
            raise

    async def sell(sold: Plan) -> None:
        memory.sell(sold)

    desk = Desk(store, sell, replace(tenant, tenant_id=f"t-{uuid4().hex[:10]}"))
    return await _opened(desk)


_READY: set[str] = set()


@asynccontextmanager
async def real_desk(settings: Settings, tenant: Tenant) -> AsyncIterator[Desk]:
    async with create_pool(settings, max_size=4) as pool:
        if settings.postgres not in _READY:
            await apply_files(settings, shipped_files())

        @asynccontextmanager
        async def store() -> AsyncIterator[SubscriptionStore]:
            async with pool.connection() as connection, connection.transaction():
                yield PostgresSubscriptionStore(connection)

        async def sell(sold: Plan) -> None:
            async with pool.connection() as connection:
                await connection.execute(
                    "INSERT INTO plan_versions (plan_id, version, catalogue, digest, document, created_at)"
                    " SELECT %s, coalesce(max(version), 0) + 1, 'tests', %s, %s, now() FROM plan_versions"
                    " WHERE plan_id = %s",
                    (sold.plan_id, digest_of(sold.document), Jsonb(dict(sold.document)), sold.plan_id),
                )

        desk = Desk(store, sell, replace(tenant, tenant_id=f"t-{uuid4().hex[:10]}"))
        yield await _opened(desk, with_plans=settings.postgres not in _READY)
        _READY.add(settings.postgres)


async def _opened(desk: Desk, *, with_plans: bool = True) -> Desk:
    async with desk.store() as store:
        await create_tenant(desk.tenant, store=store, now=desk.clock.now())
    for one in PLANS if with_plans else ():
        await desk.sell(one)
    return desk


def contract(desk: Desk, plan_id: str, since: datetime, overrides: dict[str, Any]) -> Contract:
    return Contract("c1", 1, desk.tenant.tenant_id, plan_id, since, None, overrides)
