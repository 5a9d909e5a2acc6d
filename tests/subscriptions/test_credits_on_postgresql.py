"""The ledger on PostgreSQL: many at once, what the database itself refuses, and adding it up."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from rating.draw_credits import total_drawn
from runtime.settings import Settings
from subscriptions.adapters.postgres_credits import PostgresCreditBooks
from subscriptions.domain.trial_balance import unbalanced
from tests.subscriptions.coupon_scene import open_scene
from tests.subscriptions.test_credits_contract import (
    EXPIRY,
    LATER,
    draw,
    drawn,
    entries,
    expire,
    give_back,
    grant,
    held,
    void,
)


def test_accounts_that_do_not_balance_are_told() -> None:
    good = {("customer_credits", "USD"): Decimal(-5), ("cash", "USD"): Decimal(5)}
    assert unbalanced(good, {"USD": Decimal(5)}) == []
    assert unbalanced({**good, ("cash", "USD"): Decimal(6)}, {"USD": Decimal(5)}) == ["USD: debits exceed credits by 1"]
    assert unbalanced(good, {"USD": Decimal(4)}) == ["USD: customer_credits holds 5, balances add up to 4"]
    assert unbalanced({}, {"EUR": Decimal(4)}) == ["EUR: customer_credits holds 0, balances add up to 4"]


@pytest.mark.integration
async def test_20_invoices_at_once_draw_what_there_is_and_no_more(settings: Settings) -> None:
    async with open_scene(settings, max_size=20) as scene:
        for number in range(4):
            await grant(scene, "25.25", key=str(number))
        found = await asyncio.gather(*(draw(scene, f"inv-{number}", "7.00") for number in range(20)))
        # 4 x 25.25 = 101.00 for 20 x 7.00: 14 invoices in full, one with 3.00, five with nothing
        assert sorted(total_drawn(draws) for draws in found) == [0] * 5 + [3] + [7] * 14
        assert sum(credit.balance for credit in await held(scene)) == 0
        assert (await PostgresCreditBooks(scene.pool).check()).faults == ()  # type: ignore[arg-type]


@pytest.mark.integration
async def test_20_who_draw_for_one_invoice_at_once_draw_it_once(settings: Settings) -> None:
    async with open_scene(settings, max_size=20) as scene:
        for number in range(4):
            await grant(scene, "10.00", key=str(number))
        found = await asyncio.gather(*(draw(scene, "inv", "15.00") for _ in range(20)))
        assert all(draws == found[0] for draws in found)
        assert drawn(found[0]) == "15.00"
        assert [kind for kind, _, _ in await entries(scene)].count("drawn") == 2


@pytest.mark.integration
async def test_returns_voids_refunds_and_expiries_at_once_wait_for_each_other(settings: Settings) -> None:
    async with open_scene(settings, max_size=20) as scene:
        credits = [
            (await grant(scene, "10.00", key=str(number), expires_at=EXPIRY.isoformat()))[0] for number in range(6)
        ]
        await draw(scene, "inv", "55.00")
        work: list[Any] = [give_back(scene, "inv", at=EXPIRY) for _ in range(4)]
        work += [void(scene, credit.grant_id) for credit in credits[:3] for _ in range(2)]
        work += [expire(scene, LATER) for _ in range(4)]
        await asyncio.gather(*work)
        await expire(scene, LATER)
        assert [credit.balance for credit in await held(scene)] == [0] * 6
        kinds = [kind for kind, _, _ in await entries(scene)]
        assert kinds.count("returned") == 6
        assert (await PostgresCreditBooks(scene.pool).check()).faults == ()  # type: ignore[arg-type]


@pytest.mark.integration
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE credit_entries SET amount = 1 WHERE grant_id = %(id)s",
        "DELETE FROM credit_entries WHERE grant_id = %(id)s",
        "UPDATE credit_grants SET amount = 1 WHERE grant_id = %(id)s",
        "DELETE FROM credit_grants WHERE grant_id = %(id)s",
        "UPDATE credit_balances SET balance = 1000 WHERE grant_id = %(id)s",
        "DELETE FROM credit_balances WHERE grant_id = %(id)s",
        "INSERT INTO credit_entries (grant_id, kind, amount, debit_account, credit_account, recorded_at)"
        " VALUES (%(id)s, 'expired', -100.01, 'customer_credits', 'breakage', now())",
        "INSERT INTO credit_entries (grant_id, kind, amount, debit_account, credit_account, recorded_at)"
        " VALUES (%(id)s, 'expired', -1, 'breakage', 'customer_credits', now())",
        "INSERT INTO credit_entries (grant_id, kind, amount, debit_account, credit_account, recorded_at)"
        " VALUES (%(id)s, 'drawn', -1, 'customer_credits', 'revenue', now())",
        "INSERT INTO credit_entries (grant_id, kind, amount, debit_account, credit_account, recorded_at)"
        " VALUES (%(id)s, 'granted', 5, 'cash', 'customer_credits', now())",
        "INSERT INTO credit_entries (grant_id, kind, amount, debit_account, credit_account, recorded_at)"
        " VALUES ('nothing', 'expired', -1, 'customer_credits', 'breakage', now())",
    ],
)
async def test_nobody_rewrites_or_overdraws_the_ledger(settings: Settings, statement: str) -> None:
    async with open_scene(settings) as scene:
        credit, _ = await grant(scene)
        with psycopg.connect(settings.postgres) as connection, pytest.raises(psycopg.errors.IntegrityError):
            connection.execute(statement.encode(), {"id": credit.grant_id})
        with psycopg.connect(settings.postgres) as connection, pytest.raises(psycopg.errors.IntegrityError):
            connection.execute("TRUNCATE credit_entries")


@pytest.mark.integration
@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE credit_balances SET balance = balance + 1 WHERE grant_id = %(id)s",
        "UPDATE credit_entries SET amount = amount - 1 WHERE grant_id = %(id)s AND kind = 'drawn'",
        "DELETE FROM credit_entries WHERE grant_id = %(id)s AND kind = 'drawn'",
        "DELETE FROM credit_balances WHERE grant_id = %(id)s",
        "UPDATE credit_grants SET amount = amount + 1 WHERE grant_id = %(id)s",
        "UPDATE credit_entries SET balance_after = 1 WHERE grant_id = %(id)s AND kind = 'drawn'",
    ],
)
async def test_adding_up_finds_whatever_was_tampered_with(settings: Settings, tampering: str) -> None:
    async with open_scene(settings) as scene:
        credit, _ = await grant(scene)
        await draw(scene, "inv", "15.00")
        books = PostgresCreditBooks(scene.pool)  # type: ignore[arg-type]
        assert (await books.check()).faults == ()
        with psycopg.connect(settings.postgres, autocommit=True) as connection:
            # What only an administrator can do: switch the guards off.
            connection.execute("SET session_replication_role = replica")
            connection.execute(tampering.encode(), {"id": credit.grant_id})
            try:
                faults = (await books.check()).faults
            finally:
                for table in ("credit_entries", "credit_balances", "credit_grants"):
                    connection.execute(f"DELETE FROM {table} WHERE grant_id = %s".encode(), (credit.grant_id,))
        assert any(credit.grant_id in fault for fault in faults)
        assert (await books.check()).faults == ()
