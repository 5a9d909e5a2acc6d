"""The ledger, in memory and for real: a cause is posted once, other content is loud, nothing is ever changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest

from core.errors import BrokenInvariantError
from ledger.adapters.postgres import PostgresLedger
from ledger.domain import postings
from ledger.domain.entry import Account, AccountKind
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings
from tests.ledger.conftest import NOW, OpenLedger

D = Decimal


def invoice(tenant: str, number: int = 1, subtotal: str = "100.00", tax: str = "19.00") -> postings.Entries:
    cause = f"{tenant}-inv-{number}"
    return postings.of_invoice(cause, tenant, "USD", subtotal=D(subtotal), taxes={"DE": D(tax)}, at=NOW)


def payment(tenant: str, number: int = 1, amount: str = "119.00") -> postings.Entries:
    return postings.of_settlement(f"{tenant}-pay-{number}", tenant, "USD", provider="stripe", amount=D(amount), at=NOW)


async def test_a_cause_is_posted_once(open_ledger: OpenLedger, tenant: str) -> None:
    async with open_ledger() as ledger:
        assert await ledger.post([*invoice(tenant), *payment(tenant)], NOW) == 2
        assert await ledger.post([*invoice(tenant), *payment(tenant, 2, "1.00")], NOW) == 1, "one of them is new"
    async with open_ledger() as ledger:
        assert await ledger.post([*payment(tenant), *invoice(tenant)], NOW + timedelta(days=1)) == 0
        assert await ledger.post([], NOW) == 0
        balances = {
            (account.name, currency): f"{net:f}"
            for (account, currency), net in (await ledger.balances(tenant_id=tenant)).items()
        }
    assert balances == {
        ("receivable", "USD"): "-1.00",  # 119.00 - 119.00 - 1.00
        ("revenue", "USD"): "-100.00",
        ("tax_payable:DE", "USD"): "-19.00",
        ("cash:stripe", "USD"): "120.00",
    }


@pytest.mark.parametrize(("subtotal", "tax"), [("100.01", "18.99"), ("100.01", "19.00"), ("119.00", "0.00")])
async def test_other_content_of_the_same_cause_is_a_broken_invariant(
    open_ledger: OpenLedger, tenant: str, subtotal: str, tax: str
) -> None:
    async with open_ledger() as ledger:
        await ledger.post(invoice(tenant), NOW)
    with pytest.raises(BrokenInvariantError, match="other amounts"):
        async with open_ledger() as ledger:
            await ledger.post(invoice(tenant, subtotal=subtotal, tax=tax), NOW)
    async with open_ledger() as ledger:
        assert await ledger.post(invoice(tenant), NOW) == 0, "what was posted first stands"


async def test_what_was_posted_is_read_back_oldest_first_and_whole(open_ledger: OpenLedger, tenant: str) -> None:
    posted = [*invoice(tenant), *payment(tenant, 1, "19.00"), *payment(tenant, 2, "100.00")]
    async with open_ledger() as ledger:
        for entry in posted:
            await ledger.post([entry], NOW)
    async with open_ledger() as ledger:
        assert await ledger.entries(tenant_id=tenant) == posted
        assert await ledger.entries(tenant_id=tenant, limit=2) == posted[1:]
        assert await ledger.entries(tenant_id=tenant, limit=0) == []
        assert await ledger.entries(tenant_id=tenant, account="cash:stripe") == posted[1:]
        assert await ledger.entries(tenant_id=tenant, account="revenue") == posted[:1]
        assert await ledger.entries(tenant_id="nobody") == []


async def test_money_without_a_tenant_is_kept_too(open_ledger: OpenLedger, tenant: str) -> None:
    receipt = postings.of_bank_receipt(f"{tenant}-line", "JPY", amount=D(500), at=NOW)
    async with open_ledger() as ledger:
        assert await ledger.post(receipt, NOW) == 1
        assert await ledger.post(receipt, NOW) == 0
        (entry,) = [one for one in await ledger.entries(account="unallocated") if one.cause == f"{tenant}-line"]
        assert (entry,) == receipt
        assert (await ledger.balances())[Account(AccountKind.CASH, None, "wire"), "JPY"] >= 500


# What only the real one can show


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Pool]:
    async with create_pool(settings, max_size=10) as opened:
        yield opened


@pytest.fixture
async def real_tenant(pool: Pool, tenant: str) -> str:
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
            " VALUES (%s, 'Acme', 'a@acme.example', 'US', 'USD', %s)",
            (tenant, NOW),
        )
    return tenant


@pytest.mark.integration
async def test_ten_who_post_one_cause_at_once_post_it_once(pool: Pool, real_tenant: str) -> None:
    async def once() -> int:
        async with pool.connection() as connection, connection.transaction():
            return await PostgresLedger(connection).post([*invoice(real_tenant), *payment(real_tenant)], NOW)

    assert sum(await asyncio.gather(*(once() for _ in range(10)))) == 2


@pytest.mark.integration
async def test_of_two_with_other_amounts_at_once_one_is_loud(pool: Pool, real_tenant: str) -> None:
    async def once(subtotal: str) -> int:
        async with pool.connection() as connection, connection.transaction():
            return await PostgresLedger(connection).post(invoice(real_tenant, subtotal=subtotal), NOW)

    found = await asyncio.gather(once("100.00"), once("200.00"), return_exceptions=True)
    assert sorted(type(one).__name__ for one in found) == ["BrokenInvariantError", "int"]


@pytest.mark.integration
async def test_what_is_rolled_back_was_never_posted(pool: Pool, real_tenant: str) -> None:
    async with pool.connection() as connection:
        async with connection.transaction(force_rollback=True):
            assert await PostgresLedger(connection).post(invoice(real_tenant), NOW) == 1
        assert await PostgresLedger(connection).balances(tenant_id=real_tenant) == {}


@pytest.mark.integration
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_postings SET debit = debit + 1 WHERE tenant_id = %(tenant)s AND debit > 0",
        "UPDATE ledger_entries SET cause = 'x' WHERE cause = %(cause)s",
        "DELETE FROM ledger_postings WHERE tenant_id = %(tenant)s",
        "DELETE FROM ledger_entries WHERE cause = %(cause)s",
        "TRUNCATE ledger_entries, ledger_postings",
        # One side more: every single posting is well formed, but the entry does not balance at the commit.
        "INSERT INTO ledger_postings SELECT entry_id, 9, 'bad_debt', NULL, 'USD', 1, 0 FROM ledger_entries"
        " WHERE cause = %(cause)s",
        "INSERT INTO ledger_postings SELECT entry_id, 9, 'petty cash', NULL, 'USD', 1, 0 FROM ledger_entries"
        " WHERE cause = %(cause)s",
        "INSERT INTO ledger_postings SELECT entry_id, 9, 'bad_debt', NULL, 'USD', 1, 1 FROM ledger_entries"
        " WHERE cause = %(cause)s",
        "INSERT INTO ledger_entries (entry_id, kind, cause, occurred_at, recorded_at)"
        " VALUES ('led_empty', 'invoice', 'empty', now(), now())",
    ],
)
async def test_the_database_itself_refuses_what_would_not_balance_or_rewrite(
    pool: Pool, real_tenant: str, statement: str
) -> None:
    async with pool.connection() as connection, connection.transaction():
        await PostgresLedger(connection).post(invoice(real_tenant), NOW)
    with pytest.raises(psycopg.IntegrityError):
        async with pool.connection() as connection, connection.transaction():
            await connection.execute(statement.encode(), {"tenant": real_tenant, "cause": f"{real_tenant}-inv-1"})
    async with pool.connection() as connection:
        assert await PostgresLedger(connection).post(invoice(real_tenant), NOW) == 0, "nothing has changed"


def test_another_instant_of_the_same_cause_is_the_same_entry() -> None:
    (entry,) = invoice("acme")
    assert replace(entry, occurred_at=NOW + timedelta(days=1)).content == entry.content
