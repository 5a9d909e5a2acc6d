"""Idempotency keys and faults: what is replayed, what is refused, what was charged in the end."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
import stripe

from tests.standins.process import Standins

PAYMENT: Any = {
    "amount": 4200,
    "currency": "usd",
    "payment_method": "pm_card_visa",
    "confirm": True,
    "off_session": True,
}


def pay(client: stripe.StripeClient, key: str, **changes: Any) -> stripe.PaymentIntent:
    params: Any = {**PAYMENT, **changes}
    return client.v1.payment_intents.create(params, {"idempotency_key": key})


async def pay_async(client: stripe.StripeClient, key: str, **changes: Any) -> stripe.PaymentIntent:
    params: Any = {**PAYMENT, **changes}
    return await client.v1.payment_intents.create_async(params, {"idempotency_key": key})


def test_the_same_key_gives_the_first_result_again(client: stripe.StripeClient, standins: Standins) -> None:
    first, second = pay(client, "pay-1:1"), pay(client, "pay-1:1")
    assert first.id == second.id
    assert first.last_response is not None
    assert second.last_response is not None
    assert second.last_response.body == first.last_response.body
    assert "Idempotent-Replayed" not in first.last_response.headers
    assert second.last_response.headers["Idempotent-Replayed"] == "true"
    assert second.last_response.headers["Request-Id"] != first.last_response.headers["Request-Id"]
    (row,) = standins.ledger()
    assert row["idempotency_key"] == "pay-1:1"


def test_the_same_key_with_other_parameters_is_refused(client: stripe.StripeClient, standins: Standins) -> None:
    pay(client, "pay-1:1")
    with pytest.raises(stripe.IdempotencyError) as caught:
        pay(client, "pay-1:1", amount=4300)
    assert caught.value.http_status == 400
    assert len(standins.ledger()) == 1


def test_the_same_key_on_another_object_is_refused(client: stripe.StripeClient) -> None:
    first, second = (client.v1.payment_intents.create({"amount": 500, "currency": "usd"}) for _ in range(2))
    client.v1.payment_intents.cancel(first.id, options={"idempotency_key": "cancel-1"})
    with pytest.raises(stripe.IdempotencyError, match="same endpoint"):
        client.v1.payment_intents.cancel(second.id, options={"idempotency_key": "cancel-1"})
    assert client.v1.payment_intents.retrieve(second.id).status == "requires_payment_method"


def test_a_decline_is_replayed_and_a_new_key_tries_anew(client: stripe.StripeClient, standins: Standins) -> None:
    replayed = []
    for _ in range(2):
        with pytest.raises(stripe.CardError) as caught:
            pay(client, "pay-1:1", payment_method="pm_card_chargeDeclined")
        assert caught.value.headers is not None
        replayed.append(caught.value.headers.get("Idempotent-Replayed"))
    assert replayed == [None, "true"]
    assert len(client.v1.payment_intents.list().data) == 1
    pay(client, "pay-1:2")
    assert len(standins.ledger()) == 1


def test_a_request_that_fails_validation_leaves_its_key_free(client: stripe.StripeClient, standins: Standins) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        pay(client, "pay-1:1", amount=1)
    assert pay(client, "pay-1:1").status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError):
        pay(client, "k" * 256)
    assert len(standins.ledger()) == 1


def test_after_the_keys_life_the_same_key_charges_again(client: stripe.StripeClient, standins: Standins) -> None:
    pay(client, "pay-1:1")
    standins.expire_idempotency_keys()
    pay(client, "pay-1:1")
    assert len(standins.ledger()) == 2


async def test_concurrent_requests_with_one_key_charge_once(
    async_client: stripe.StripeClient, standins: Standins
) -> None:
    standins.fail_stripe("slow", seconds=0.5)
    results = await asyncio.gather(*(pay_async(async_client, "pay-1:1") for _ in range(8)), return_exceptions=True)
    paid = [result for result in results if isinstance(result, stripe.PaymentIntent)]
    conflicts: list[Any] = [result for result in results if isinstance(result, stripe.APIError)]
    assert (len(paid), len(conflicts)) == (1, 7)
    assert {(error.http_status, error.error.code) for error in conflicts} == {(409, "idempotency_key_in_use")}
    assert (await pay_async(async_client, "pay-1:1")).id == paid[0].id
    assert len(standins.ledger()) == 1


async def test_two_hundred_payments_at_once_charge_two_hundred_times(
    async_client: stripe.StripeClient, standins: Standins
) -> None:
    await asyncio.gather(*(pay_async(async_client, f"pay-{number}:1") for number in range(200)))
    ledger = standins.ledger()
    assert {row["idempotency_key"] for row in ledger} == {f"pay-{number}:1" for number in range(200)}
    assert len(ledger) == 200


@pytest.mark.parametrize("fault", ["hang_after", "cut_after", "cut_in_body"])
async def test_a_charge_whose_answer_is_lost_is_found_by_the_same_key(
    async_client: stripe.StripeClient, standins: Standins, fault: str
) -> None:
    standins.fail_stripe(fault, seconds=0.2, method="POST", path="/v1/payment_intents")
    # The library reads the body outside its own error handling: a cut in the middle surfaces as aiohttp's error.
    with pytest.raises((stripe.APIConnectionError, aiohttp.ClientPayloadError)):
        await pay_async(async_client, "pay-1:1")
    (row,) = standins.ledger()
    again = await pay_async(async_client, "pay-1:1")
    assert again.id == row["payment_intent"]
    assert again.last_response is not None
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert len(standins.ledger()) == 1


async def test_a_client_that_times_out_finds_its_charge_by_the_same_key(standins: Standins) -> None:
    standins.fail_stripe("hang_after", seconds=20)
    http_client = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=0.3))
    client = stripe.StripeClient(
        standins.stripe_api_key,
        base_addresses={"api": standins.stripe_url},
        http_client=http_client,
        max_network_retries=0,
    )
    with pytest.raises(stripe.APIConnectionError):
        await pay_async(client, "pay-1:1")
    assert (await pay_async(client, "pay-1:1")).status == "succeeded"
    await http_client.close_async()  # type: ignore[no-untyped-call]
    assert len(standins.ledger()) == 1


@pytest.mark.parametrize(
    ("fault", "status"), [("unavailable", 503), ("rate_limit", 429), ("conflict", 409), ("cut_before", None)]
)
def test_a_fault_in_front_of_the_api_charges_nothing_and_keeps_nothing(
    client: stripe.StripeClient, standins: Standins, fault: str, status: int | None
) -> None:
    standins.fail_stripe(fault, count=2, retry_after_seconds=3)
    for _ in range(2):
        with pytest.raises(stripe.StripeError) as caught:
            pay(client, "pay-1:1")
        assert caught.value.http_status == status
        if fault == "rate_limit":
            assert caught.value.headers is not None
            assert caught.value.headers["Retry-After"] == "3"
    assert standins.ledger() == []
    paid = pay(client, "pay-1:1")
    assert paid.last_response is not None
    assert "Idempotent-Replayed" not in paid.last_response.headers
    assert len(standins.ledger()) == 1


@pytest.mark.parametrize(("fault", "charges"), [("server_error", 0), ("server_error_after", 1)])
def test_a_500_is_replayed_for_its_key_whether_or_not_it_charged(
    client: stripe.StripeClient, standins: Standins, fault: str, charges: int
) -> None:
    standins.fail_stripe(fault)
    for _ in range(3):
        with pytest.raises(stripe.APIError) as caught:
            pay(client, "pay-1:1")
        assert caught.value.http_status == 500
    assert len(standins.ledger()) == charges
    # Only a look-up tells the two apart: that is the payments janitor's case.
    assert len(client.v1.payment_intents.list().data) == charges


def test_faults_hit_only_the_requests_they_name(client: stripe.StripeClient, standins: Standins) -> None:
    standins.fail_stripe("unavailable", method="POST", path="/v1/refunds")
    paid = pay(client, "pay-1:1")
    with pytest.raises(stripe.APIError):
        client.v1.refunds.create({"payment_intent": paid.id})
    assert client.v1.refunds.create({"payment_intent": paid.id}).status == "succeeded"
    seen = [(item["path"], item["status"], item["fault"]) for item in standins.stripe_requests()]
    assert seen == [
        ("/v1/payment_intents", 200, None),
        ("/v1/refunds", 503, "unavailable"),
        ("/v1/refunds", 200, None),
    ]


def test_the_librarys_own_retries_use_one_key(standins: Standins) -> None:
    client = stripe.StripeClient(
        standins.stripe_api_key, base_addresses={"api": standins.stripe_url}, max_network_retries=1
    )
    standins.fail_stripe("cut_after")
    assert client.v1.payment_intents.create(PAYMENT).status == "succeeded"
    first, second = standins.stripe_requests()
    assert first["idempotency_key"] == second["idempotency_key"]
    assert (first["replayed"], second["replayed"]) == (False, True)
    assert len(standins.ledger()) == 1
