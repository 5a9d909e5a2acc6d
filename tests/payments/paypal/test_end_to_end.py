"""From the command line and `invoice.finalized` on Kafka to a settled PayPal payment: every worker, mail and API."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from payments import paypal_worker, upkeep_worker
from payments.commands import app
from payments.consumer import run, run_inbox
from runtime.kafka_topics import create_topics
from runtime.processes import api
from runtime.settings import Settings
from tests.api.test_process import free_port
from tests.payments.paypal.conftest import World
from tests.payments.test_end_to_end import finalize, running
from tests.standins.smtp_server import SmtpStandIn

pytestmark = pytest.mark.integration


async def until(holds: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.05)


async def test_a_tenant_pays_an_invoice_by_the_link_in_a_mail(
    world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep_worker, "_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(paypal_worker, "_PAUSE_SECONDS", 0.2)
    paypal, books, mail = world.paypal, world.books, SmtpStandIn()
    await mail.start()
    found = settings.model_copy(update={"api_port": free_port(), "smtp_url": mail.url})
    await create_topics(found)
    world.set_webhooks(url=f"http://127.0.0.1:{found.api_port}/api/v1/webhooks/paypal")
    for name, value in _environment(settings).items():
        monkeypatch.setenv(name, value)
    tenant = await books.add_tenant(None)
    set_up = await asyncio.to_thread(CliRunner().invoke, app, ["set", tenant, "--provider", "paypal", "--json"])
    assert set_up.exit_code == 0, set_up.output
    assert json.loads(set_up.stdout)["method_reference"] == "approval"
    invoice = await books.add_invoice(tenant)
    async with running(found, run, run_inbox, upkeep_worker.run, paypal_worker.run, api.run):
        await finalize(found, invoice)
        await finalize(found, invoice)

        async def has_mail() -> bool:
            return bool(mail.messages)

        await until(has_mail)
        [message] = mail.messages
        link = re.search(r"http\S+", json.dumps(message))
        assert link is not None
        async with httpx2.AsyncClient(trust_env=False) as client:
            order = link[0].rpartition("token=")[2].partition("\\")[0]
            assert order in (await client.get(f"{paypal.url}/checkoutnow?token={order}")).text
            forged = await client.post(f"http://127.0.0.1:{found.api_port}/api/v1/webhooks/paypal", content=b"{}")
            assert (forged.status_code, forged.json()["code"]) == (400, "invalid_signature")
        await paypal.approve(order)
        await until(lambda: books.announced(invoice))
    assert await books.announced(invoice) == ["payment.settled"]
    assert [(taken["amount"], taken["custom_id"]) for taken in paypal.account.ledger()] == [
        ("125.40", (await books.payments_of(invoice))[0]["payment_id"])
    ]
    assert {delivery["status"] for delivery in paypal.webhooks.deliveries} == {200}
    assert message["subject"] == "Please approve a payment at PayPal"
    await mail.stop()


async def test_a_method_that_paypal_does_not_have_is_refused(
    world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _environment(settings).items():
        monkeypatch.setenv(name, value)
    tenant = await world.books.add_tenant(None)
    arguments = ["set", tenant, "--provider", "paypal", "--method", "pm_card_visa"]
    refused = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert (refused.exit_code, "unknown_method" in refused.output) == (1, True)
    monkeypatch.delenv("METERBOOK_PAYPAL_CLIENT_SECRET")
    refused = await asyncio.to_thread(CliRunner().invoke, app, arguments[:4])
    assert (refused.exit_code, "METERBOOK_PAYPAL_CLIENT_SECRET" in refused.output) == (1, True)


def _environment(settings: Settings) -> dict[str, str]:
    assert settings.paypal_client_secret is not None
    return {
        "METERBOOK_HOME": str(settings.home),
        "METERBOOK_PAYPAL_CLIENT_ID": str(settings.paypal_client_id),
        "METERBOOK_PAYPAL_CLIENT_SECRET": settings.paypal_client_secret.get_secret_value(),
        "METERBOOK_PAYPAL_API_BASE": settings.paypal_api_base,
        "METERBOOK_PAYMENT_RETURN_URL": str(settings.payment_return_url),
    }
