"""Tenants, invoices and payments as rows, where a test is about what happens after them."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from ledger.adapters.postgres import post
from ledger.domain import postings
from runtime.postgres import Connection


async def add_tenant(connection: Connection, tenant_id: str, now: datetime, **changes: str) -> None:
    facts = {"tenant_id": tenant_id, "name": "Acme", "email": "pay@acme.example", "country": "DE", "currency": "EUR"}
    facts |= changes
    columns = ", ".join([*facts, "created_at"])
    places = ", ".join(["%s"] * (len(facts) + 1))
    await connection.execute(f"INSERT INTO tenants ({columns}) VALUES ({places})".encode(), (*facts.values(), now))


async def add_invoice(
    connection: Connection,
    invoice_id: str,
    tenant_id: str,
    now: datetime,
    *,
    subtotal: str,
    tax: str = "0.00",
    due_days: int = 15,
    place: str = "DE",
) -> None:
    """A finalized invoice as invoicing leaves it: with its tax group and its entry in the ledger."""
    net, taxed = Decimal(subtotal), Decimal(tax)
    await connection.execute(
        "INSERT INTO invoices (invoice_id, tenant_id, period_start, period_end, sequence, status, number, currency,"
        " subtotal, tax, total, issued_at, due_at, snapshot, snapshot_sha256, engine_version, origin)"
        " VALUES (%s, %s, %s, %s, 1, 'finalized', %s, 'EUR', %s, %s, %s, %s, %s, '{}', '', '1', 'one_time')",
        (
            invoice_id,
            tenant_id,
            now - timedelta(days=30),
            now,
            f"MB-{invoice_id}",
            net,
            taxed,
            net + taxed,
            now,
            now + timedelta(days=due_days),
        ),
    )
    if taxed:
        await connection.execute(
            "INSERT INTO invoice_taxes (invoice_id, category, rate, place, base, tax) VALUES (%s, 'S', 19, %s, %s, %s)",
            (invoice_id, place, net, taxed),
        )
    entries = postings.of_invoice(invoice_id, tenant_id, "EUR", subtotal=net, taxes={place: taxed}, at=now)
    await post(connection, entries, now)


async def add_payment(
    connection: Connection,
    payment_id: str,
    invoice_id: str,
    tenant_id: str,
    now: datetime,
    *,
    amount: str,
    provider: str = "stripe",
    attempt: int = 1,
    status: str = "succeeded",
    code: str | None = None,
) -> None:
    await connection.execute(
        "INSERT INTO payments (payment_id, invoice_id, tenant_id, attempt, provider, amount, currency, status,"
        " failure_code, created_at, updated_at, settled_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, 'EUR', %s, %s, %s, %s, %s)",
        (
            payment_id,
            invoice_id,
            tenant_id,
            attempt,
            provider,
            Decimal(amount),
            status,
            code,
            now,
            now,
            now if status == "succeeded" else None,
        ),
    )
