"""The ledger against the books: what holds is proven, and every difference is named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest
from click.testing import Result
from typer.testing import CliRunner

from core.clock import ManualClock
from core.errors import InvalidInputError
from core.messages import PaymentDisputed, PaymentRefunded, PaymentSettled
from invoicing.adapters.postgres_settlements import PostgresSettlements
from invoicing.record_money_back import record_dispute, record_refund
from invoicing.settle_invoice import settle_invoice
from ledger.adapters.postgres import PostgresLedger
from ledger.adapters.postgres_audit import PostgresAudit
from ledger.check_ledger import check_ledger
from ledger.commands import app
from ledger.domain.entry import Account, AccountKind
from ledger.ports import Audited, Balances, Figure
from rating.adapters.postgres_credits import PostgresCreditLedger
from rating.domain.credit import CreditGrant, CreditKind, EntryKind
from runtime.postgres import Pool, create_pool
from runtime.processes.ledger_history import post_history
from runtime.settings import Settings
from tests.ledger.conftest import NOW
from tests.ledger.scene import add_invoice, add_payment, add_tenant

D = Decimal
RECEIVABLE, REVENUE = Account(AccountKind.RECEIVABLE, "acme"), Account(AccountKind.REVENUE, "acme")


class Audits:
    """`Audit` of given figures."""

    def __init__(self, balances: Balances, *figures: Figure) -> None:
        self.audited = Audited(1, {"EUR": (D(10), D(10))}, balances, figures)

    async def read(self) -> Audited:
        return self.audited


async def test_figures_that_agree_are_no_fault() -> None:
    audits = Audits(
        {(RECEIVABLE, "EUR"): D(10), (REVENUE, "EUR"): D(-10), (Account(AccountKind.REFUNDS, "acme"), "EUR"): D(7)},
        Figure(RECEIVABLE, "EUR", D("4.00")),
        Figure(RECEIVABLE, "EUR", D("6.00")),
        Figure(REVENUE, "EUR", D("-10.00")),
    )
    assert (await check_ledger(audits)).faults == ()


async def test_every_difference_is_named_whoever_knows_of_the_account() -> None:
    audits = Audits(
        {(RECEIVABLE, "EUR"): D(10), (Account(AccountKind.CASH, "acme", "stripe"), "EUR"): D(3)},
        Figure(RECEIVABLE, "EUR", D("9.99")),
        Figure(RECEIVABLE, "USD", D("1.00")),
        Figure(Account(AccountKind.CUSTOMER_CREDIT, "bolt"), "EUR", D(-5)),
    )
    assert (await check_ledger(audits)).faults == (
        "acme cash:stripe: the ledger says 3 EUR, the books say 0 EUR, +3 apart",
        "acme receivable: the ledger says 10 EUR, the books say 9.99 EUR, +0.01 apart",
        "acme receivable: the ledger says 0 USD, the books say 1.00 USD, -1.00 apart",
        "bolt customer_credit: the ledger says 0 EUR, the books say -5 EUR, +5 apart",
    )


async def test_debits_that_are_not_credits_are_told() -> None:
    audits = Audits({})
    audits.audited = replace(audits.audited, turnover={"EUR": (D(10), D("9.50"))}, unbalanced=["invoice inv_1: 10, 9"])
    assert (await check_ledger(audits)).faults == (
        "invoice inv_1: 10, 9",
        "EUR: debits 10, credits 9.50, +0.50 apart",
    )


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Pool]:
    async with create_pool(settings, max_size=4) as opened:
        yield opened


async def play(pool: Pool, tenant: str) -> None:
    """An invoice of 100.00 + 19.00, paid in two parts, 20.00 refunded, 50.00 disputed; another one paid by credit."""
    clock, settlements = ManualClock(NOW), PostgresSettlements(pool)
    first, second = f"{tenant}-1", f"{tenant}-2"
    async with pool.connection() as connection, connection.transaction():
        await add_tenant(connection, tenant, NOW)
        await add_invoice(connection, first, tenant, NOW, subtotal="100.00", tax="19.00")
        await add_invoice(connection, second, tenant, NOW, subtotal="30.00")
        await add_payment(connection, f"{tenant}-pay-1", first, tenant, NOW, amount="50.00")
        await add_payment(connection, f"{tenant}-pay-2", first, tenant, NOW, amount="69.00", provider="wire", attempt=2)
    for payment, amount, provider in (("pay-1", "50.00", "stripe"), ("pay-2", "69.00", "wire")):
        message = PaymentSettled(
            payment_id=f"{tenant}-{payment}", invoice_id=first, tenant_id=tenant, provider=provider,
            provider_reference="x", currency="EUR", amount=amount, settled_at="2026-11-04T10:00:00Z",
        )  # fmt: skip
        assert await settle_invoice(message, settlements=settlements, clock=clock)
        assert not await settle_invoice(message, settlements=settlements, clock=clock)
    refund = PaymentRefunded(
        refund_id=f"{tenant}-ref", payment_id=f"{tenant}-pay-1", invoice_id=first, tenant_id=tenant, provider="stripe",
        provider_reference="x", currency="EUR", amount="20.00", reason="", at="2026-11-05T10:00:00Z",
    )  # fmt: skip
    assert await record_refund(refund, settlements=settlements, clock=clock)
    assert not await record_refund(refund, settlements=settlements, clock=clock)
    dispute = PaymentDisputed(
        dispute_id=f"{tenant}-dsp", payment_id=f"{tenant}-pay-1", invoice_id=first, tenant_id=tenant, provider="stripe",
        provider_reference="x", currency="EUR", amount="30.00", status="opened", reason="fraudulent",
        evidence_due_at="", at="2026-11-06T10:00:00Z",
    )  # fmt: skip
    assert await record_dispute(dispute, settlements=settlements, clock=clock)
    async with pool.connection() as connection, connection.transaction():
        ledger = PostgresCreditLedger(connection)
        grant = CreditGrant(f"{tenant}-credit", tenant, CreditKind.PAID, D("25.00"), "EUR", NOW, NOW)
        assert await ledger.add_grant(grant)
        assert not await ledger.add_grant(grant)
        await ledger.enter(grant, EntryKind.DRAWN, D("-10.00"), at=NOW, reference=second)
        await connection.execute("UPDATE invoices SET credits_applied = 10 WHERE invoice_id = %s", (second,))


async def faults(pool: Pool, tenant: str) -> list[str]:
    return [fault for fault in (await check_ledger(PostgresAudit(pool))).faults if fault.startswith(f"{tenant} ")]


@pytest.mark.integration
async def test_what_happened_to_invoices_is_what_the_ledger_says(
    pool: Pool, tenant: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await play(pool, tenant)
    assert await faults(pool, tenant) == []
    monkeypatch.setattr("ledger.commands.load_settings", lambda: settings)
    shown = await command("show", "--tenant", tenant, "--json")
    balances = {one["account"]: one["balance"] for one in json.loads(shown.stdout)["balances"]}
    assert balances == {
        "receivable": "20.00",  # 119.00 - 50.00 - 69.00 + 30.00 - 10.00
        "revenue": "-130.00",
        "tax_payable:DE": "-19.00",
        "cash:stripe": "0.00",  # 50.00 - 20.00 - 30.00
        "cash:prepaid": "25.00",
        "customer_credit": "-15.00",  # 25.00 - 10.00
        "refunds": "20.00",
        "disputed": "30.00",
    }
    table = await command("show", "--tenant", tenant, "--account", "cash:stripe")
    assert "settlement" in table.stdout
    assert f"{tenant}-ref" in table.stdout


async def command(*arguments: str) -> Result:
    """Run `meterbook ledger ...`, which has a loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("statement", "account", "apart"),
    [
        (
            "UPDATE invoices SET amount_paid = 118, status = 'finalized', paid_at = NULL WHERE invoice_id = %s || '-1'",
            "receivable",
            "-1.00",
        ),
        ("UPDATE invoices SET status = 'void' WHERE invoice_id = %s || '-2'", "receivable", "+20.00"),
        ("UPDATE invoice_taxes SET tax = 18.99 WHERE invoice_id = %s || '-1'", "tax_payable:DE", "-0.01"),
        ("DELETE FROM invoice_taxes WHERE invoice_id = %s || '-1'", "tax_payable:DE", "-19.00"),
    ],
)
async def test_a_planted_difference_is_found_and_named(
    pool: Pool,
    tenant: str,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
    account: str,
    apart: str,
) -> None:
    await play(pool, tenant)
    async with pool.connection() as connection:
        await connection.execute(statement.encode(), (tenant,))
    found = await faults(pool, tenant)
    assert any(f"{tenant} {account}: " in fault and f"{apart} apart" in fault for fault in found)
    monkeypatch.setattr("ledger.commands.load_settings", lambda: settings)
    checked = await command("check")
    assert checked.exit_code == 1
    assert f"wrong: {tenant} {account}" in checked.stderr


@pytest.mark.parametrize("name", ["petty cash", "cash", "revenue:DE", ""])
def test_an_unknown_account_is_refused(name: str) -> None:
    refused = CliRunner().invoke(app, ["show", "--account", name])
    assert isinstance(refused.exception, InvalidInputError)
    assert refused.exception.faults[0].code == "unknown_account"


@pytest.mark.integration
async def test_what_was_stored_before_the_ledger_is_posted_once(pool: Pool, tenant: str) -> None:
    await play(pool, tenant)
    before = await balances_of(pool, tenant)
    # As if the ledger had just been made: its rules are for everybody, so they are lifted for this.
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        gone = "SELECT entry_id FROM ledger_postings WHERE tenant_id = %s"
        await connection.execute(
            f"DELETE FROM ledger_entries WHERE entry_id IN ({gone}) AND kind IN ('invoice', 'credit', 'settlement')"
            " AND cause <> %s || '-pay-2'".encode(),
            (tenant, tenant),
        )
        await connection.execute(
            "DELETE FROM ledger_postings AS one WHERE NOT EXISTS"
            " (SELECT FROM ledger_entries AS entry WHERE entry.entry_id = one.entry_id)"
        )
    assert len(await faults(pool, tenant)) > 3
    assert await post_history(pool, NOW) >= 5  # two invoices, one settlement, a grant and a draw
    assert await faults(pool, tenant) == []
    assert await balances_of(pool, tenant) == before
    assert await post_history(pool, NOW) == 0


async def balances_of(pool: Pool, tenant: str) -> Balances:
    async with pool.connection() as connection:
        return await PostgresLedger(connection).balances(tenant_id=tenant)
