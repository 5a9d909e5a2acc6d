"""A tenant with a subscription of its own, in memory or in PostgreSQL, where coupons and credits are tried."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

from psycopg_pool import AsyncConnectionPool

from rating.credit_ledger import CreditLedger
from rating.domain.cycle import Cycle, Interval
from rating.domain.timeline import Held, Phase
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings
from subscriptions.adapters.postgres_coupons import PostgresCouponStore
from subscriptions.adapters.postgres_credits import PostgresCreditBooks
from subscriptions.adapters.postgres_holders import PostgresSaleFacts
from subscriptions.coupon_ports import CouponStore, Holder, SaleFacts
from tests.rating.memory_credits import MemoryCreditLedger
from tests.subscriptions.memory_coupons import MemoryCouponStore

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 10, 11, 9, 30, tzinfo=UTC)
_INSERTS = (
    "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, created_at)"
    " VALUES ('coupon-cpu', 'hour', 'coupon.cpu', 'sum', 'n', now()) ON CONFLICT DO NOTHING",
    "INSERT INTO plan_versions (plan_id, version, catalogue, digest, document, created_at)"
    " VALUES ('coupon-pro', 1, 'c', 'd', '{}', now()), ('coupon-lite', 1, 'c', 'd', '{}', now())"
    " ON CONFLICT DO NOTHING",
)


@dataclass
class CouponScene:
    """`pool` is None in memory. Ids are this scene's own, because the database is shared with other tests."""

    pool: Pool | None
    memory: MemoryCouponStore = field(default_factory=MemoryCouponStore)
    memory_ledger: MemoryCreditLedger = field(default_factory=MemoryCreditLedger)
    tag: str = field(default_factory=lambda: uuid4().hex[:8])

    @property
    def tenant_id(self) -> str:
        return f"t-{self.tag}"

    @property
    def subscription_id(self) -> str:
        return f"sub-t-{self.tag}"

    @property
    def coupon_id(self) -> str:
        return f"C-{self.tag}"

    @asynccontextmanager
    async def store(self) -> AsyncIterator[CouponStore]:
        if self.pool is None:
            yield self.memory
            return
        async with self.pool.connection() as connection, connection.transaction():
            yield PostgresCouponStore(connection)

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[CreditLedger]:
        books = self.memory_ledger if self.pool is None else PostgresCreditBooks(self.pool)
        async with books.transaction() as ledger:
            yield ledger

    @asynccontextmanager
    async def ledger_and_facts(self) -> AsyncIterator[tuple[CreditLedger, SaleFacts]]:
        if self.pool is None:
            yield self.memory_ledger, self.memory
            return
        async with self.ledger() as ledger:
            yield ledger, PostgresSaleFacts(ledger._connection)  # type: ignore[attr-defined]

    async def settle_in(self, *tenant_ids: str, currency: str = "USD", ended_at: datetime | None = None) -> None:
        """Let these tenants (the scene's own if none is named) be there, each subscribed since the year began."""
        wanted = tenant_ids or (self.tenant_id,)
        if self.pool is None:
            self.memory.plans |= {"coupon-pro", "coupon-lite"}
            self.memory.meters.add("coupon-cpu")
            for tenant_id in wanted:
                self.memory.currencies[tenant_id] = currency
            await self.subscribe(*wanted, ended_at=ended_at)
            return
        async with self.pool.connection() as connection, connection.cursor() as cursor:
            for statement in _INSERTS:
                await cursor.execute(statement.encode())
            await cursor.executemany(
                "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
                " VALUES (%s, 'n', 'n@example.com', 'DE', %s, now())",
                [(tenant_id, currency) for tenant_id in wanted],
            )
        await self.subscribe(*wanted, ended_at=ended_at)

    async def subscribe(self, *tenant_ids: str, suffix: str = "", ended_at: datetime | None = None) -> None:
        """Subscribe tenants to `coupon-pro`; with a suffix beside what they have."""
        if self.pool is None:
            for tenant_id in tenant_ids:
                currency = self.memory.currencies[tenant_id]
                cycle = Cycle(Interval.MONTH, date(2026, 1, 1))
                phases = (Phase(BEGIN, ended_at, Held("coupon-pro", 1)),)
                holder = Holder(tenant_id, f"sub-{tenant_id}{suffix}", currency, cycle, BEGIN, ended_at, phases)
                self.memory.held.append(holder)
            return
        async with self.pool.connection() as connection, connection.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO subscriptions (subscription_id, tenant_id, plan_id, plan_version, started_at, ended_at)"
                " VALUES (%s, %s, 'coupon-pro', 1, %s, %s)",
                [(f"sub-{tenant_id}{suffix}", tenant_id, BEGIN, ended_at) for tenant_id in tenant_ids],
            )


@asynccontextmanager
async def open_scene(settings: Settings | None, *, max_size: int = 4) -> AsyncIterator[CouponScene]:
    """Open a scene with its tenant settled in; in memory without settings."""
    if settings is None:
        scene = CouponScene(None)
        await scene.settle_in()
        yield scene
        return
    pool: AsyncConnectionPool[Any] = create_pool(settings, max_size=max_size)
    async with pool:
        scene = CouponScene(pool)
        await scene.settle_in()
        yield scene
