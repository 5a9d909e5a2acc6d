"""Fixtures of payments: stand-ins, a store on the real PostgreSQL, and books with tenants and invoices to charge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

from core.clock import SystemClock
from core.messages import InvoiceFinalized
from payments.adapters.postgres_store import PostgresPayments
from payments.adapters.stripe_provider import StripeProvider, create_stripe_provider
from payments.set_payment_method import set_payment_method
from runtime.kafka_topics import create_topics
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings, load_settings
from tests.standins.process import Standins

STARTED = datetime(2026, 10, 1, tzinfo=UTC)
ENDED = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
async def settings(migrated: Any, standins: Standins) -> Settings:
    found = load_settings(
        home=migrated.home,
        stripe_api_base=standins.stripe_url,
        stripe_api_key=standins.stripe_api_key,
        stripe_webhook_secrets=standins.stripe_webhook_secret,
    )
    await create_topics(found)
    return found


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Pool]:
    async with create_pool(settings) as pool:
        yield pool


@pytest.fixture
def store(pool: Pool) -> PostgresPayments:
    return PostgresPayments(pool)


@pytest.fixture
async def provider(settings: Settings) -> AsyncIterator[StripeProvider]:
    provider = create_stripe_provider(settings)
    yield provider
    await provider.close()


@dataclass
class Books:
    """Writes what invoicing would have written, under names of this test's own."""

    pool: Pool
    provider: StripeProvider

    async def add_tenant(self, method: str | None = "pm_card_visa") -> str:
        tenant = f"tenant-{uuid4().hex[:12]}"
        async with self.pool.connection() as connection:
            await connection.execute(
                "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
                " VALUES (%s, 'Acme', 'books@acme.invalid', 'US', 'USD', %s)",
                (tenant, STARTED),
            )
            await connection.execute(
                "INSERT INTO plan_versions (plan_id, version, catalogue, digest, document, created_at)"
                " VALUES (%s, 1, 'test', 'test', %s, %s)",
                (f"plan-{tenant}", Jsonb({}), STARTED),
            )
            await connection.execute(
                "INSERT INTO subscriptions (subscription_id, tenant_id, plan_id, plan_version, started_at)"
                " VALUES (%s, %s, %s, 1, %s)",
                (f"sub-{tenant}", tenant, f"plan-{tenant}", STARTED),
            )
        if method is not None:
            store = PostgresPayments(self.pool)
            await set_payment_method(tenant, method, store=store, registrar=self.provider, clock=SystemClock())
        return tenant

    async def add_invoice(
        self, tenant: str, amount: str = "125.40", currency: str = "USD", sequence: int = 1
    ) -> InvoiceFinalized:
        invoice_id = f"inv_{uuid4().hex}"
        async with self.pool.connection() as connection:
            await connection.execute(
                "INSERT INTO invoices (invoice_id, tenant_id, subscription_id, period_start, period_end, sequence,"
                " status, number, currency, subtotal, total, issued_at, due_at, snapshot, snapshot_sha256,"
                " engine_version)"
                " VALUES (%s, %s, %s, %s, %s, %s, 'finalized', %s, %s, %s, %s, %s, %s, %s, 'x', 'test')",
                (
                    invoice_id, tenant, f"sub-{tenant}", STARTED, ENDED, sequence, f"TEST-{invoice_id}", currency,
                    Decimal(amount), Decimal(amount), ENDED, ENDED, Jsonb({}),
                ),
            )  # fmt: skip
        return InvoiceFinalized(
            invoice_id=invoice_id,
            number=f"TEST-{invoice_id}",
            tenant_id=tenant,
            currency=currency,
            amount_due=amount,
            period_start="2026-10-01T00:00:00Z",
            period_end="2026-11-01T00:00:00Z",
            issued_at="2026-11-01T00:00:00Z",
            due_at="2026-11-16T00:00:00Z",
        )

    async def payments_of(self, invoice: InvoiceFinalized) -> list[dict[str, Any]]:
        async with self.pool.connection() as connection:
            return await (
                await connection.execute(
                    "SELECT * FROM payments WHERE invoice_id = %s ORDER BY attempt", (invoice.invoice_id,)
                )
            ).fetchall()

    async def announced(self, invoice: InvoiceFinalized) -> list[str]:
        """Return the topics of this invoice's outbox rows, in order."""
        async with self.pool.connection() as connection:
            rows = await (
                await connection.execute(
                    "SELECT topic FROM outbox WHERE convert_from(payload, 'UTF8')::jsonb ->> 'invoice_id' = %s"
                    " AND topic LIKE 'payment.%%' ORDER BY outbox_id",
                    (invoice.invoice_id,),
                )
            ).fetchall()
        return [row["topic"] for row in rows]

    async def refusal_of(self, event_id: str) -> tuple[bool, str | None]:
        """Return whether a webhook is closed, and why it was refused."""
        async with self.pool.connection() as connection:
            row = await (
                await connection.execute(
                    "SELECT processed_at, refusal FROM webhook_inbox WHERE event_id = %s", (event_id,)
                )
            ).fetchone()
        assert row is not None, f"webhook {event_id} was not kept"
        return row["processed_at"] is not None, row["refusal"]


@pytest.fixture
def books(pool: Pool, provider: StripeProvider) -> Books:
    return Books(pool, provider)


@pytest.fixture
async def desk(books: Books, store: PostgresPayments, provider: StripeProvider) -> Any:
    from tests.payments.desk import Desk  # it needs `Books` of this module

    found = Desk(books, store, provider)
    await found.clear()
    return found
