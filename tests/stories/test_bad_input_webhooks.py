"""Webhooks that make no sense: unsigned leaves no trace, signed is kept with its reason, and no money moves."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from core.clock import SystemClock
from payments.adapters.paypal_order import PayPalWebhookReader
from payments.adapters.stripe_events import StripeWebhookReader
from payments.apply_webhook import apply_next_webhook
from payments.domain.payment import Refusal
from payments.ports import StoredWebhook, WebhookReader
from payments.receive_paypal_webhook import receive_paypal_webhook
from payments.receive_webhook import receive_webhook
from tests.standins.paypal_server import WEBHOOK_ID
from tests.standins.paypal_webhooks import headers_of
from tests.standins.stripe_webhooks import encode_event, sign
from tests.stories.refusing import code_of, one_open_and_one_paid
from tests.stories.world import World

pytestmark = pytest.mark.integration
SECRET = "whsec_stories"
INBOX = "webhook_inbox"

# What is changed of the PaymentIntent whose payment failed, told as succeeded, and why that is refused.
INTENT: list[tuple[dict[str, Any], str]] = [
    ({"amount_received": 3001}, "amount_mismatch"),
    ({"amount_received": 2999}, "amount_mismatch"),
    ({"amount_received": 0}, "amount_mismatch"),
    ({"amount_received": 3000.5}, "malformed_event"),
    ({"amount_received": "3000"}, "malformed_event"),
    ({"amount_received": True}, "malformed_event"),
    ({"amount_received": -3000}, "amount_mismatch"),
    ({"amount_received": None}, "malformed_event"),
    ({"amount_received": 10**30}, "amount_mismatch"),
    ({"currency": "usd"}, "amount_mismatch"),
    ({"currency": "eux"}, "malformed_event"),
    ({"currency": None}, "malformed_event"),
    ({"id": "pi_nobody"}, "reference_mismatch"),
    ({"id": None}, "malformed_event"),
    ({"id": "pi_nobody", "metadata": {}}, "unknown_payment"),
    ({"metadata": {"payment_id": "pay_nobody"}, "id": "pi_nobody"}, "unknown_payment"),
    ({"metadata": [], "id": "pi_nobody"}, "unknown_payment"),
]


async def receive(world: World, body: bytes) -> None:
    signature = sign(body, SECRET, int(world.clock.now().timestamp()))
    await receive_webhook(body, signature, secrets=[SECRET], inbox=world.store, clock=world.clock)


async def apply(world: World) -> list[str]:
    """Give what waits its effect and return the refusals."""
    readers: dict[str, WebhookReader] = {"stripe": StripeWebhookReader(), "paypal": PayPalWebhookReader()}
    while await apply_next_webhook(store=world.store, readers=readers, clock=world.clock) is not None:
        pass
    rows = await world.rows(
        "SELECT refusal FROM webhook_inbox WHERE refusal IS NOT NULL ORDER BY received_at, event_id"
    )
    return [row["refusal"] for row in rows]


def event_of(world: World, kind: str) -> dict[str, Any]:
    (*_, event) = [one for one in world.stripe.account.events.values() if one["type"] == kind]
    return copy.deepcopy(event)


async def test_signed_news_that_cannot_be_true(world: World) -> None:
    opened, _ = await one_open_and_one_paid(world)
    first, found = event_of(world, "payment_intent.payment_failed"), list[tuple[dict[str, Any], str]]()
    for number, (changes, _) in enumerate(INTENT):
        event = copy.deepcopy(first)
        event |= {"id": f"evt_forged{number}", "type": "payment_intent.succeeded"}
        event["data"]["object"] |= {"status": "succeeded", "amount_received": 3000, **changes}
        async with world.untouched(INBOX):
            await receive(world, encode_event(event))
            await apply(world)
        (row,) = await world.rows("SELECT refusal, processed_at FROM webhook_inbox WHERE event_id = %s", event["id"])
        found.append((changes, (row["refusal"] or "").partition(":")[0]))
        assert row["processed_at"] is not None, "it is closed and blocks nothing"
    assert found == INTENT
    assert await world.invoice(opened.number) == ("finalized", "0.00", "30.00")


async def test_a_refund_or_dispute_of_more_than_was_paid(world: World) -> None:
    _, paid = await one_open_and_one_paid(world)
    await world.refund(paid.number, "10.00")
    refund = event_of(world, "refund.created")
    cases = [
        ({"amount": 2001, "id": "re_forged", "metadata": {}}, "refund_exceeds_payment"),
        ({"amount": 999}, "amount_mismatch"),
        ({"currency": "usd", "id": "re_forged", "metadata": {}}, "currency_mismatch"),
        ({"amount": "many", "id": "re_forged", "metadata": {}}, "malformed_event"),
        ({"payment_intent": "pi_nobody", "id": "re_forged", "metadata": {}}, "unknown_payment"),
    ]
    for number, (changes, code) in enumerate(cases):
        event = {**copy.deepcopy(refund), "id": f"evt_refund{number}"}
        event["data"]["object"] |= changes
        async with world.untouched(INBOX):
            await receive(world, encode_event(event))
            assert (await apply(world))[-1].startswith(code), changes
    assert await world.ledger() == {
        "cash:stripe": "20.00", "receivable": "30.00", "refunds": "10.00", "revenue": "-60.00",
    }  # fmt: skip


async def test_what_is_not_signed_leaves_no_trace(world: World) -> None:
    await one_open_and_one_paid(world)
    body = encode_event(event_of(world, "payment_intent.succeeded"))
    now = int(world.clock.now().timestamp())
    good = sign(body, SECRET, now)
    wrong = [
        None, "", "t=,v1=", good[:-1], good.replace("v1=", "v0="), sign(body, "whsec_other", now),
        sign(body, SECRET, now - 301), sign(body, SECRET, now + 301), sign(body + b" ", SECRET, now),
        good.replace(f"t={now}", "t=١٢٣"), "t=" + "9" * 400 + ",v1=00", "\0" * 50,
    ]  # fmt: skip
    async with world.untouched():
        for signature in wrong:
            taken = receive_webhook(body, signature, secrets=[SECRET], inbox=world.store, clock=world.clock)
            assert await code_of(taken) == "invalid_signature", signature


async def test_a_signed_body_cut_anywhere_moves_nothing(world: World) -> None:
    await one_open_and_one_paid(world)
    body = encode_event(event_of(world, "payment_intent.succeeded"))
    reader = StripeWebhookReader()
    for length in range(len(body)):
        found = reader.read(StoredWebhook("stripe", "evt_cut", "payment_intent.succeeded", body[:length]))
        assert isinstance(found, Refusal), length
    async with world.untouched(INBOX):
        for length in range(0, len(body), 97):
            await receive(world, body[:length])
        refused = await apply(world)
    assert {one.partition(":")[0] for one in refused} == {"unreadable"}
    assert len(refused) == len(range(0, len(body), 97))


async def test_paypals_news_cut_anywhere_or_unsigned_moves_nothing(world: World) -> None:
    await world.tenant("acme", "small", pays="paypal")
    assert world.paypal is not None
    await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    await world.upkeep()
    (payment,) = await world.rows("SELECT payment_id FROM payments")
    await world.paypal.approve(payment["payment_id"])
    (event,) = world.paypal.standin.account.events.values()
    body = json.dumps(event).encode()
    reader = PayPalWebhookReader()
    for length in range(len(body)):
        found = reader.read(StoredWebhook("paypal", "WH-CUT", event["event_type"], body[:length]))
        assert isinstance(found, Refusal), length
    side, now = world.paypal, SystemClock().now().timestamp()
    headers = {
        name.lower(): value
        for name, value in headers_of(body, side.standin.signer, side.standin.webhooks.settings, now).items()
    }
    async with world.untouched():
        for name in [one for one in headers if one.startswith("paypal-")]:
            for value in (None, "", "x" * 3_000, "https://evil.example/cert"):
                given = {key: one for key, one in headers.items() if key != name}
                given |= {} if value is None else {name: value}
                taken = receive_paypal_webhook(
                    body, given, webhook_ids=[WEBHOOK_ID], keys=side.keys, judge=side.provider, inbox=world.store,
                    clock=SystemClock(),
                )  # fmt: skip
                assert await code_of(taken) == "invalid_signature", (name, value)
