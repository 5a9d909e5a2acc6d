"""Arguments of commands that make no sense: exit code 1, a code in the sentence, and not one row changed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from core.errors import InvalidInputError, MeterbookError
from invoicing.commands import app as invoice
from ledger.commands import app as ledger
from payments.payment_commands import app as payment
from runtime.processes.bank import create_app as create_bank
from runtime.settings import Settings
from subscriptions.credit_commands import app as credits
from tests.stories.refusing import one_open_and_one_paid
from tests.stories.world import World

pytestmark = pytest.mark.integration
OPEN, PAID, NOBODYS = "MB-2026-000001", "MB-2026-000002", "MB-2026-999999"
WHY = ("--reason", "x")
REFUND = ("--reason", "r", "--key", "k", "--by", "me")

INVOICE: list[tuple[tuple[str, ...], str]] = [
    (("now", "--tenant", "nobody", "--period", "2026-10"), "not_found"),
    (("now", "--tenant", "acme", "--period", "2026-13"), "invalid_period"),
    (("now", "--tenant", "acme", "--period", "9999-12"), "invalid_period"),
    (("one-time", "--tenant", "acme", "--item", "Setup"), "invalid_items"),
    (("one-time", "--tenant", "acme", "--item", "Setup:much"), "invalid_amount"),
    (("one-time", "--tenant", "acme", "--item", "Setup:1e999"), "invalid_amount"),
    (("credit", OPEN, *WHY, "--amount", "much"), "invalid_amount"),
    (("credit", OPEN, *WHY, "--amount", "30.01"), "exceeds_invoice"),
    (("credit", OPEN, *WHY, "--amount", "0.001"), "invalid_amount"),
    (("credit", OPEN, *WHY, "--line", "first"), "invalid_line"),
    (("credit", OPEN, "--reason", "", "--amount", "1"), "invalid_reason"),
    (("credit", NOBODYS, *WHY), "not_found"),
    (("void", PAID, *WHY), "invoice_state"),
    (("void", NOBODYS, *WHY), "not_found"),
    (("write-off", PAID, *WHY), "invoice_state"),
    (("reissue", NOBODYS, *WHY), "not_found"),
    (("show", NOBODYS), "not_found"),
]
PAYMENT: list[tuple[tuple[str, ...], str]] = [
    (("refund", "pay_nobody", *REFUND), "not_found"),
    (("refund", "PAYMENT", *REFUND, "--amount", "30.01"), "exceeds_payment"),
    (("refund", "PAYMENT", *REFUND, "--amount", "much"), "invalid_amount"),
    (("refund", "PAYMENT", *REFUND, "--amount", "0.001"), "invalid_amount"),
    (("refund", "PAYMENT", "--reason", "4242424242424242", "--key", "k", "--by", "me"), "card_number"),
    (("history", "pay_nobody"), "not_found"),
]
BANK: list[tuple[tuple[str, ...], str]] = [
    (("confirm", "bent_nothing", "--invoice", OPEN), "not_found"),
    (("confirm", "bent_nothing", "--invoice", OPEN, "--amount", "1e999"), "invalid_amount"),
    (("import", "/nowhere/at/all.sta"), "unreadable_file"),
    (("import", "STATEMENT"), "unknown_account"),
    (("import", "CUT"), "cut_file"),
]
CREDITS: list[tuple[tuple[str, ...], str]] = [
    (("grant", "nobody", "10"), "not_found"),
    (("grant", "acme", "10.001"), "too_many_digits"),
    (("grant", "acme", "0"), "amount_not_positive"),
    (("grant", "acme", "1e999"), "invalid_amount"),
    (("grant", "acme", "ten"), "invalid_amount"),
    (("grant", "acme", "9" * 60), "too_many_digits"),
    (("grant", "acme", "10", "--kind", "stolen"), "invalid_kind"),
    (("grant", "acme", "10", "--expires", "2020-01-01T00:00:00Z"), "invalid_expiry"),
    (("grant", "acme", "10", "--reason", "overpayment"), "reserved_reason"),
    (("void", "cred_nothing"), "not_found"),
    (("refund", "cred_nothing", "1.00"), "not_found"),
]
LEDGER: list[tuple[tuple[str, ...], str]] = [(("show", "--account", "moon"), "unknown_account")]
STATEMENT = b":20:A\n:25:4711\n:28C:1\n:60F:C261001EUR1,00\n:62F:C261002EUR1,00\n"


@pytest.fixture
def environment(world: World, server: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERBOOK_HOME", str(server.home))
    monkeypatch.setenv("METERBOOK_POSTGRES_URL", world.pool.conninfo)
    monkeypatch.setenv("METERBOOK_CLICKHOUSE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("METERBOOK_STRIPE_API_KEY", world.stripe.api_key)
    monkeypatch.setenv("METERBOOK_STRIPE_API_BASE", world.stripe.url)


async def refusal_of(app: typer.Typer, arguments: tuple[str, ...]) -> str:
    """Run a command as from a terminal and return all that it says of its refusal."""
    done = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert done.exit_code == 1, (arguments, done.output)
    if isinstance(done.exception, InvalidInputError):
        return done.exception.faults[0].code
    if isinstance(done.exception, MeterbookError):
        return done.exception.code
    return done.stderr


async def test_arguments_that_make_no_sense(world: World, environment: None, tmp_path: Path) -> None:
    await one_open_and_one_paid(world)
    paid, _ = await world.payment_of(PAID)
    (tmp_path / "whole.sta").write_bytes(STATEMENT)
    (tmp_path / "cut.sta").write_bytes(STATEMENT[:-24])
    named = {"PAYMENT": paid, "STATEMENT": str(tmp_path / "whole.sta"), "CUT": str(tmp_path / "cut.sta")}
    kinds = [(invoice, INVOICE), (payment, PAYMENT), (create_bank(), BANK), (credits, CREDITS), (ledger, LEDGER)]
    async with world.untouched():
        for app, cases in kinds:
            for arguments, code in cases:
                said = await refusal_of(app, tuple(named.get(one, one) for one in arguments))
                assert code in said, (arguments, said)
