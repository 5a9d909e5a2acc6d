"""`meterbook payment-method set`: how a tenant's way to pay is saved, and how refusals look."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from payments.commands import app
from runtime.settings import Settings
from tests.payments.conftest import Books
from tests.standins.process import Standins

pytestmark = pytest.mark.integration


@pytest.fixture
def environment(settings: Settings, standins: Standins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERBOOK_HOME", str(settings.home))
    for name, value in standins.settings().items():
        monkeypatch.setenv(name, value)


async def call(*arguments: str) -> Any:
    # The command runs a loop of its own, as from a terminal.
    return await asyncio.to_thread(CliRunner().invoke, app, arguments)


async def test_a_method_is_saved_and_saving_another_keeps_the_customer(
    environment: None, books: Books, standins: Standins
) -> None:
    tenant = await books.add_tenant(method=None)
    first = await call("set", tenant, "--method", "pm_card_visa", "--json")
    again = await call("set", tenant, "--method", "pm_card_visa", "--json")
    other = await call("set", tenant, "--method", "pm_card_mastercard")
    assert (first.exit_code, again.exit_code, other.exit_code) == (0, 0, 0), first.output + other.output
    saved = json.loads(first.stdout)
    assert saved == json.loads(again.stdout)
    assert saved["tenant_id"] == tenant
    assert saved["customer_reference"] in other.stdout
    created = [r for r in standins.stripe_requests() if r["method"] == "POST" and r["path"] == "/v1/customers"]
    assert len(created) == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nobody", "--method", "pm_card_visa"), "not_found"),
        (("TENANT", "--method", "pm_card_chargeDeclined"), "card_declined"),
        (("TENANT", "--method", "pm_nothing"), "resource_missing"),
        (("TENANT", "--method", "pm_card_visa", "--provider", "cheque"), "unknown_provider"),
    ],
)
async def test_what_cannot_be_saved_is_refused_with_a_sentence(
    arguments: tuple[str, ...], code: str, environment: None, books: Books
) -> None:
    tenant = await books.add_tenant(method=None)
    done = await call("set", *(tenant if part == "TENANT" else part for part in arguments))
    assert done.exit_code == 1
    assert code in done.stderr
    assert "Traceback" not in done.output


async def test_a_provider_that_is_away_is_named(environment: None, books: Books, standins: Standins) -> None:
    tenant = await books.add_tenant(method=None)
    standins.fail_stripe("unavailable", count=3)
    done = await call("set", tenant, "--method", "pm_card_visa")
    assert (done.exit_code, "unavailable" in done.stderr) == (1, True)
