"""Payments over HTTP on the real store: shown with their history, refunded once per key, card numbers refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from api.application import create_app
from payments.payment_commands import app as commands
from payments.payment_desk import PaymentDesk
from runtime.postgres import Pool
from runtime.settings import Settings
from tests.api.conftest import Fakes
from tests.payments.desk import Desk
from tests.standins.process import Standins

pytestmark = pytest.mark.integration
PAYMENTS = "/api/v1/payments"


@pytest.fixture
async def client(desk: Desk, pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    dependencies = replace(Fakes().dependencies(), payments=PaymentDesk(pool, desk.clock))
    transport = httpx2.ASGITransport(app=create_app(dependencies), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid") as client:
        yield client


async def test_a_refund_asked_for_over_http_is_made_once_by_the_upkeep(
    client: httpx2.AsyncClient, desk: Desk, standins: Standins
) -> None:
    payment = await desk.settled()
    url = f"{PAYMENTS}/{payment.payment_id}/refunds"
    body = {"amount": "25.40", "reason": "billed twice"}
    asked = [await client.post(url, json=body, headers={"Idempotency-Key": "k1"}) for _ in range(2)]
    assert [(answer.status_code, answer.json()["status"]) for answer in asked] == [(202, "pending")] * 2
    assert standins.ledger()[0]["amount_refunded"] == 0
    assert await desk.janitor() == 1
    assert await desk.janitor() == 0
    assert standins.ledger()[0]["amount_refunded"] == 2_540
    shown = (await client.get(f"{PAYMENTS}/{payment.payment_id}")).json()
    assert (shown["status"], shown["amount"]) == ("succeeded", "125.40")
    assert [(refund["amount"], refund["status"]) for refund in shown["refunds"]] == [("25.40", "succeeded")]
    assert [entry["after"] for entry in shown["history"]] == [
        "pending", "processing", "succeeded", "pending", "succeeded",
    ]  # fmt: skip
    other = await client.post(url, json={**body, "amount": "1"}, headers={"Idempotency-Key": "k1"})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("body", "key", "code"),
    [
        ({"reason": "r", "amount": "999999"}, "k", "exceeds_payment"),
        ({"reason": "r", "amount": "0.001"}, "k", "invalid_amount"),
        ({"reason": "card 4242424242424242"}, "k", "card_number"),
        ({"reason": "r"}, "4242 4242 4242 4242", "card_number"),
        ({"reason": "r"}, None, "missing_idempotency_key"),
        ({"reason": "r", "currency": "EUR"}, "k", "invalid_body"),
        ({"reason": 7}, "k", "invalid_body"),
    ],
)
async def test_what_cannot_be_refunded_is_refused_and_nothing_is_written(
    body: dict[str, Any], key: str | None, code: str, client: httpx2.AsyncClient, desk: Desk
) -> None:
    payment = await desk.settled()
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = await client.post(f"{PAYMENTS}/{payment.payment_id}/refunds", json=body, headers=headers)
    assert answer.status_code in (400, 422)
    assert code in answer.text
    assert "4242" not in answer.text
    assert await desk.refunds(payment) == []


async def test_payments_are_listed_in_pages_and_disputes_with_their_deadline(
    client: httpx2.AsyncClient, desk: Desk, standins: Standins
) -> None:
    tenant = await desk.books.add_tenant()
    for number in range(3):
        assert await desk.charge(await desk.books.add_invoice(tenant, sequence=number + 1)) is not None
    first = (await client.get(PAYMENTS, params={"tenant_id": tenant, "limit": 2})).json()
    last = first["data"][-1]["payment_id"]
    second = (await client.get(PAYMENTS, params={"tenant_id": tenant, "limit": 2, "starting_after": last})).json()
    assert (first["has_more"], len(first["data"]), second["has_more"], len(second["data"])) == (True, 2, False, 1)
    assert (await client.get(f"{PAYMENTS}/pay_nobody")).status_code == 404
    assert (await client.get(PAYMENTS, params={"status": "odd"})).status_code in (400, 422)
    payment = await desk.settled()
    standins.open_dispute(payment.provider_reference or "")
    await desk.catch_up()
    open_ones = {row["payment_id"]: row for row in (await client.get("/api/v1/disputes")).json()["data"]}
    assert open_ones[payment.payment_id]["evidence_due_at"].endswith("Z")


async def test_the_commands_refund_show_and_list(
    desk: Desk, settings: Settings, standins: Standins, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    payment = await desk.settled()
    monkeypatch.setattr("payments.payment_commands.load_settings", lambda: settings)
    given = [payment.payment_id, "--reason", "billed twice", "--key", "k1", "--by", "anna"]

    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(commands, list(arguments))

    done = await asyncio.to_thread(invoke, "refund", *given, "--amount", "5.40")
    assert done.exit_code == 0, done.output
    assert "5.40 USD" in done.output
    refused = await asyncio.to_thread(invoke, "refund", *given, "--amount", "many")
    assert refused.exit_code == 1
    told = await asyncio.to_thread(invoke, "history", payment.payment_id)
    assert "request anna" in told.output
    assert standins.ledger()[0]["amount_refunded"] == 540
    synced = await asyncio.to_thread(invoke, "sync-catalogue", "--json")
    assert synced.exit_code == 0, synced.output
    assert (await asyncio.to_thread(invoke, "disputes", "--json")).exit_code == 0
