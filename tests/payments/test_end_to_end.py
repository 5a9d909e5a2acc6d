"""From `invoice.finalized` on Kafka to a settled payment: consumer, stand-in, API and inbox worker together."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from core.messages import InvoiceFinalized, encode_message
from core.topics import INVOICE_FINALIZED
from payments.consumer import run, run_inbox
from runtime.processes import api
from runtime.settings import Settings
from runtime.topic_consumer import create_producer
from tests.api.test_process import free_port
from tests.payments.conftest import Books
from tests.standins.process import Standins
from tests.standins.stripe_webhooks import sign

pytestmark = pytest.mark.integration


@asynccontextmanager
async def running(
    settings: Settings, *runners: Callable[[Settings, asyncio.Event], Awaitable[None]]
) -> AsyncIterator[None]:
    """Run workers within the test; one that fails, fails the test."""
    stop = asyncio.Event()
    workers = [asyncio.ensure_future(runner(settings, stop)) for runner in runners]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*workers)


@pytest.fixture
async def reachable(settings: Settings, standins: Standins) -> Settings:
    """Settings with a port for the API, where the stand-in sends its webhooks."""
    found = settings.model_copy(update={"api_port": free_port()})
    standins.set_webhooks(url=f"http://127.0.0.1:{found.api_port}/api/v1/webhooks/stripe")
    return found


async def finalize(settings: Settings, invoice: InvoiceFinalized) -> None:
    producer = create_producer(settings)
    await producer.start()
    await producer.send_and_wait(INVOICE_FINALIZED.name, value=encode_message(invoice), key=invoice.tenant_id.encode())
    await producer.stop()


async def until(holds: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(40):
        while not await holds():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "webhooks",
    [
        {"timing": "after"},
        {"timing": "before"},
        {"timing": "delayed", "delay_seconds": 0.3},
        {"timing": "after", "copies": 3},
        {"timing": "after", "reverse": True, "enabled_events": ["*"]},
    ],
    ids=["after", "before the answer", "delayed", "three times", "reversed with all types"],
)
async def test_a_finalized_invoice_is_charged_and_settled_once(
    webhooks: dict[str, Any], reachable: Settings, books: Books, standins: Standins
) -> None:
    standins.set_webhooks(**webhooks)
    invoice = await books.add_invoice(await books.add_tenant())
    async with running(reachable, run, run_inbox, api.run):
        await finalize(reachable, invoice)
        await finalize(reachable, invoice)
        await until(lambda: books.announced(invoice))
        await until(_all_delivered(standins))
    [payment] = await books.payments_of(invoice)
    assert payment["status"] == "succeeded"
    assert await books.announced(invoice) == ["payment.settled"]
    assert [charge["amount"] for charge in standins.ledger()] == [12_540]
    assert {delivery["status"] for delivery in standins.deliveries() if delivery["delivered"]} == {200}


@pytest.mark.parametrize("kind", ["rate_limit", "conflict", "cut_after", "server_error_after", "server_error"])
async def test_faults_on_the_way_end_in_one_charge_and_one_settlement(
    kind: str, reachable: Settings, books: Books, standins: Standins
) -> None:
    standins.fail_stripe(kind, count=2, method="POST", path="/v1/payment_intents")
    invoice = await books.add_invoice(await books.add_tenant())
    async with running(reachable, run, run_inbox, api.run):
        await finalize(reachable, invoice)
        await until(lambda: _is_settled(books, invoice))
    assert [charge["amount"] for charge in standins.ledger()] == [12_540]
    assert (await books.announced(invoice)).count("payment.settled") == 1


async def test_a_message_that_cannot_be_charged_blocks_nothing(
    reachable: Settings, books: Books, standins: Standins
) -> None:
    import msgspec

    tenant = await books.add_tenant()
    bad = msgspec.structs.replace(await books.add_invoice(tenant), amount_due="12.345")
    good = await books.add_invoice(tenant, sequence=2)
    async with running(reachable, run, run_inbox, api.run):
        await finalize(reachable, bad)
        await finalize(reachable, good)
        await until(lambda: books.announced(good))
    assert await books.payments_of(bad) == []
    assert [charge["amount"] for charge in standins.ledger()] == [12_540]


async def test_forged_old_and_future_webhooks_are_refused(
    reachable: Settings, books: Books, standins: Standins
) -> None:
    body = json.dumps({"id": f"evt_{uuid4().hex}", "type": "payment_intent.succeeded"}).encode()
    now, secret = int(time.time()), standins.stripe_webhook_secret
    signatures = {
        "forged": sign(body, "whsec_forged", now),
        "old": sign(body, secret, now - 400),
        "future": sign(body, secret, now + 400),
        "none": "",
    }
    async with running(reachable, api.run), httpx2.AsyncClient(trust_env=False) as client:
        await until(lambda: _answers(client, reachable))
        url = f"http://127.0.0.1:{reachable.api_port}/api/v1/webhooks/stripe"
        for signature in signatures.values():
            answer = await client.post(url, content=body, headers={"stripe-signature": signature})
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_signature")
        good = await client.post(url, content=body, headers={"stripe-signature": sign(body, secret, now)})
        again = await client.post(url, content=body, headers={"stripe-signature": sign(body, secret, now)})
        assert (good.status_code, again.status_code) == (200, 200)
    closed, _ = await books.refusal_of(json.loads(body)["id"])
    assert not closed


async def test_without_a_store_the_provider_is_asked_to_come_again(reachable: Settings, standins: Standins) -> None:
    body = b'{"id": "evt_x", "type": "y"}'
    away = reachable.model_copy(update={"postgres_url": f"postgresql://x@127.0.0.1:{free_port()}/x"})
    signature = sign(body, standins.stripe_webhook_secret, int(time.time()))
    async with running(away, api.run), httpx2.AsyncClient(trust_env=False, timeout=20) as client:
        await until(lambda: _answers(client, away))
        url = f"http://127.0.0.1:{away.api_port}/api/v1/webhooks/stripe"
        answer = await client.post(url, content=body, headers={"stripe-signature": signature})
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


def _all_delivered(standins: Standins) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return bool((await asyncio.to_thread(standins.webhooks))["under_way"] == 0)

    return check


async def _is_settled(books: Books, invoice: InvoiceFinalized) -> bool:
    return "payment.settled" in await books.announced(invoice)


async def _answers(client: httpx2.AsyncClient, settings: Settings) -> bool:
    try:
        return (await client.get(f"http://127.0.0.1:{settings.api_port}/health")).status_code == 200
    except httpx2.ConnectError:
        return False
