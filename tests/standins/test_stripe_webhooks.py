"""Signed webhooks: what arrives, in which order, how often, and what happens while the receiver is down."""

from __future__ import annotations

import time
from typing import Any

import pytest
import stripe

from tests.standins.conftest import Receiver, wait_until
from tests.standins.process import Standins
from tests.standins.stripe_webhooks import encode_event, sign

PAYMENT: Any = {
    "amount": 4200,
    "currency": "usd",
    "payment_method": "pm_card_visa",
    "confirm": True,
    "off_session": True,
    "metadata": {"invoice": "INV-1"},
}


async def pay(client: stripe.StripeClient, **changes: Any) -> stripe.PaymentIntent:
    params: Any = {**PAYMENT, **changes}
    return await client.v1.payment_intents.create_async(params)


def test_the_signature_is_the_librarys_own() -> None:
    payload = encode_event({"id": "evt_1", "object": "event", "type": "x", "data": {"object": {"name": "Zoë"}}})
    expected = stripe.WebhookSignature.generate_signature_header(payload.decode(), "whsec_a", timestamp=1_700_000_000)
    assert sign(payload, "whsec_a", 1_700_000_000) == expected


async def test_a_payment_arrives_as_a_signed_event(
    async_client: stripe.StripeClient, receiver: Receiver, standins: Standins
) -> None:
    intent = await pay(async_client)
    await receiver.wait_for(1)
    (event,) = receiver.events
    assert event.type == "payment_intent.succeeded"
    assert event.data.object.id == intent.id
    assert event.data.object.metadata.to_dict() == {"invoice": "INV-1"}
    (delivery,) = standins.deliveries()
    assert (delivery["event"], delivery["status"], delivery["attempt"]) == (event.id, 200, 1)


async def test_each_lane_has_its_event(async_client: stripe.StripeClient, receiver: Receiver) -> None:
    paid = await pay(async_client)
    await receiver.wait_for(1)
    await async_client.v1.refunds.create_async({"payment_intent": paid.id})
    await receiver.wait_for(2)
    with pytest.raises(stripe.CardError):
        await pay(async_client, payment_method="pm_card_chargeDeclinedInsufficientFunds")
    await receiver.wait_for(3)
    waiting = await async_client.v1.payment_intents.create_async(
        {
            "amount": 900,
            "currency": "eur",
            "payment_method": "pm_card_authenticationRequired",
            "confirm": True,
            "return_url": "https://example.com/back",
        }
    )
    await receiver.wait_for(4)
    await async_client.v1.payment_intents.cancel_async(waiting.id)
    await receiver.wait_for(5)
    assert receiver.types == [
        "payment_intent.succeeded",
        "charge.refunded",
        "payment_intent.payment_failed",
        "payment_intent.requires_action",
        "payment_intent.canceled",
    ]
    failed: Any = receiver.events[2].data.object
    assert failed.last_payment_error.decline_code == "insufficient_funds"


async def test_a_receiver_that_is_down_gets_the_event_later(
    async_client: stripe.StripeClient, receiver: Receiver, standins: Standins
) -> None:
    receiver.answers = [500, 404, 302]
    await pay(async_client)
    await receiver.wait_for(1)
    await wait_until(lambda: standins.webhooks()["under_way"] == 0)
    attempts = [(item["attempt"], item["status"], item["delivered"]) for item in standins.deliveries()]
    assert attempts == [(1, 500, False), (2, 404, False), (3, 302, False), (4, 200, True)]


async def test_a_receiver_that_moves_gets_its_retries(async_client: stripe.StripeClient, standins: Standins) -> None:
    gone, back = Receiver(standins.stripe_webhook_secret), Receiver(standins.stripe_webhook_secret)
    await gone.start()
    standins.set_webhooks(url=gone.url)
    await gone.stop()
    await pay(async_client)
    await wait_until(lambda: len(standins.deliveries()) >= 1)
    undelivered = await async_client.v1.events.list_async({"delivery_success": False})
    assert [event.type for event in undelivered.data] == ["payment_intent.succeeded"]
    await back.start()
    standins.set_webhooks(url=back.url)
    await back.wait_for(1)
    await wait_until(lambda: standins.webhooks()["under_way"] == 0)
    assert standins.deliveries()[0]["error"] is not None
    assert (await async_client.v1.events.list_async({"delivery_success": False})).data == []
    await back.stop()


async def test_every_event_twice_has_one_id(
    async_client: stripe.StripeClient, receiver: Receiver, standins: Standins
) -> None:
    standins.set_webhooks(copies=2)
    await pay(async_client)
    await receiver.wait_for(2)
    assert receiver.events[0].id == receiver.events[1].id


@pytest.mark.parametrize("reverse", [False, True])
async def test_the_order_within_a_request_can_be_reversed(
    async_client: stripe.StripeClient, receiver: Receiver, standins: Standins, reverse: bool
) -> None:
    standins.set_webhooks(enabled_events=["*"], reverse=reverse)
    await pay(async_client)
    await receiver.wait_for(3)
    order = ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"]
    assert receiver.types == (order[::-1] if reverse else order)


async def test_held_events_come_when_released_newest_first(
    async_client: stripe.StripeClient, receiver: Receiver, standins: Standins
) -> None:
    standins.set_webhooks(timing="held")
    with pytest.raises(stripe.CardError) as caught:
        await pay(async_client, payment_method="pm_card_chargeDeclined")
    error: Any = caught.value.error
    await async_client.v1.payment_intents.confirm_async(
        error.payment_intent.id, {"payment_method": "pm_card_visa", "off_session": True}
    )
    assert (receiver.events, standins.webhooks()["held"]) == ([], 2)
    assert standins.release_webhooks(reverse=True) == 2
    await receiver.wait_for(2)
    assert receiver.types == ["payment_intent.succeeded", "payment_intent.payment_failed"]


async def test_the_event_can_come_before_the_response(
    async_client: stripe.StripeClient, receiver: Receiver, standins: Standins
) -> None:
    standins.set_webhooks(timing="before")
    intent = await pay(async_client)
    assert [event.data.object.id for event in receiver.events] == [intent.id]


async def test_the_event_of_a_lost_answer_still_comes(
    async_client: stripe.StripeClient, receiver: Receiver, standins: Standins
) -> None:
    standins.fail_stripe("cut_after")
    with pytest.raises(stripe.APIConnectionError):
        await pay(async_client)
    await receiver.wait_for(1)
    assert receiver.events[0].data.object.id == standins.ledger()[0]["payment_intent"]


async def test_a_replay_sends_no_second_event(
    async_client: stripe.StripeClient, receiver: Receiver, standins: Standins
) -> None:
    for _ in range(3):
        await async_client.v1.payment_intents.create_async(PAYMENT, {"idempotency_key": "pay-1:1"})
    await receiver.wait_for(1)
    await wait_until(lambda: standins.webhooks()["under_way"] == 0)
    assert len(standins.deliveries()) == 1


async def test_delayed_and_resent_events_arrive(
    async_client: stripe.StripeClient, receiver: Receiver, standins: Standins
) -> None:
    standins.set_webhooks(timing="delayed", delay_seconds=0.2)
    await pay(async_client)
    await receiver.wait_for(1)
    standins.resend_event(receiver.events[0].id)
    await receiver.wait_for(2)
    assert receiver.events[0].id == receiver.events[1].id


async def test_an_old_or_wrongly_signed_delivery_fails_verification(
    async_client: stripe.StripeClient, receiver: Receiver, standins: Standins
) -> None:
    standins.set_webhooks(timestamp_offset_seconds=-3_600, attempts_max=1)
    await pay(async_client)
    await wait_until(lambda: len(receiver.refusals) == 1)
    standins.set_webhooks(timestamp_offset_seconds=0, secret="whsec_wrong")
    await pay(async_client)
    await wait_until(lambda: len(receiver.refusals) == 2)
    assert "Timestamp outside the tolerance zone" in receiver.refusals[0]
    assert "No signatures found matching" in receiver.refusals[1]
    assert receiver.events == []


async def test_authentication_by_the_customer_sends_the_outcome(
    async_client: stripe.StripeClient, receiver: Receiver, standins: Standins
) -> None:
    intent = await async_client.v1.payment_intents.create_async(
        {
            "amount": 900,
            "currency": "eur",
            "payment_method": "pm_card_authenticationRequired",
            "confirm": True,
            "return_url": "https://example.com/back",
        }
    )
    await receiver.wait_for(1)
    standins.authenticate(intent.id)
    await receiver.wait_for(2)
    assert receiver.types == ["payment_intent.requires_action", "payment_intent.succeeded"]
    assert receiver.events[1].created <= time.time()
