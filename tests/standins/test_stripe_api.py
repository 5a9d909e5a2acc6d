"""The Stripe stand-in as the `stripe` library sees it: objects, states, declines, checks of parameters."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from typing import Any

import pytest
import stripe

from tests.standins.process import Standins
from tests.standins.stripe_errors import StripeRefusal
from tests.standins.stripe_params import decode_form


def pay(client: stripe.StripeClient, card: str = "pm_card_visa", **changes: Any) -> stripe.PaymentIntent:
    params: Any = {
        "amount": 1999,
        "currency": "usd",
        "payment_method": card,
        "confirm": True,
        "off_session": True,
        "metadata": {"invoice": "INV-1"},
        **changes,
    }
    given: Any = {name: value for name, value in params.items() if value is not None}
    return client.v1.payment_intents.create(given)


def test_nested_form_keys_become_lists_and_dicts() -> None:
    decoded = decode_form("a[b][c]=1&l[0]=x&l[1]=y&metadata[0]=kept&expand[]=e&empty=")
    assert decoded == {
        "a": {"b": {"c": "1"}},
        "l": ["x", "y"],
        "metadata": {"0": "kept"},
        "expand": ["e"],
        "empty": "",
    }


@pytest.mark.parametrize("text", ["a=1&a[b]=2", "a[b]=2&a=1", "[a]=1", "a[b=1"])
def test_malformed_form_keys_are_refused(text: str) -> None:
    with pytest.raises(StripeRefusal) as caught:
        decode_form(text)
    assert caught.value.status == 400


def test_every_odd_shape_of_a_parameter_is_a_400_in_stripes_shape(standins: Standins) -> None:
    bodies = [
        "amount[a]=1&currency=usd",
        "amount=500&currency[0]=usd",
        "amount=500&currency=usd&customer[x]=1",
        "amount=500&currency=usd&metadata[a][b]=1",
        "amount=500&currency=usd&expand=",
        "amount=500&currency=usd&expand[a]=b",
        "amount=5%00&currency=usd",
        "&".join(f"metadata[{number}]=1" for number in range(3_000)),
    ]
    statuses = [_post_form(standins, "/v1/payment_intents", body) for body in bodies]
    statuses.append(_post_form(standins, "/v1/customers", "invoice_settings[default_payment_method][x]=1"))
    assert statuses == [(400, "invalid_request_error")] * len(statuses)
    assert standins.ledger() == []


def _post_form(standins: Standins, path: str, body: str) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {standins.stripe_api_key}"}
    request = urllib.request.Request(standins.stripe_url + path, body.encode(), headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    with caught.value as response:
        return response.code, json.load(response)["error"]["type"]


def test_basic_auth_works_as_the_documentations_curl_does(standins: Standins) -> None:
    credentials = base64.b64encode(f"{standins.stripe_api_key}:".encode()).decode()
    headers = {"Authorization": f"Basic {credentials}"}
    request = urllib.request.Request(f"{standins.stripe_url}/v1/customers", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        assert json.load(response)["object"] == "list"
        assert response.headers["Request-Id"].startswith("req_")


def test_a_wrong_or_missing_key_is_unauthorized(standins: Standins) -> None:
    client = stripe.StripeClient("sk_test_other", base_addresses={"api": standins.stripe_url})
    with pytest.raises(stripe.AuthenticationError) as caught:
        client.v1.customers.list()
    assert caught.value.http_status == 401


def test_customer_and_payment_method_life(client: stripe.StripeClient) -> None:
    customer = client.v1.customers.create({"email": "ada@example.com", "name": "Ada", "metadata": {"tenant": "t1"}})
    method = client.v1.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    assert method.id != "pm_card_visa"
    assert (method.customer, method.card and method.card.last4) == (customer.id, "4242")
    updated = client.v1.customers.update(
        customer.id,
        {"invoice_settings": {"default_payment_method": method.id}, "metadata": {"tenant": "", "plan": "lite"}},
    )
    assert updated.metadata is not None
    assert updated.metadata.to_dict() == {"plan": "lite"}
    assert client.v1.customers.retrieve(customer.id).invoice_settings.default_payment_method == method.id  # type: ignore[union-attr]
    assert [item.id for item in client.v1.customers.payment_methods.list(customer.id).data] == [method.id]
    assert [item.id for item in client.v1.customers.list({"email": "ada@example.com"}).data] == [customer.id]
    other = client.v1.customers.create({})
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.payment_methods.attach(method.id, {"customer": other.id})
    client.v1.payment_methods.detach(method.id)
    assert client.v1.customers.payment_methods.list(customer.id).data == []
    client.v1.customers.delete(customer.id)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    assert caught.value.code == "resource_missing"


def test_a_confirmed_payment_is_in_the_ledger_once(client: stripe.StripeClient, standins: Standins) -> None:
    intent = pay(client, expand=["latest_charge"])
    assert (intent.status, intent.amount_received) == ("succeeded", 1999)
    charge: Any = intent.latest_charge
    assert charge.status == "succeeded"
    (row,) = standins.ledger()
    assert (row["payment_intent"], row["charge"]) == (intent.id, charge.id)
    assert (row["amount"], row["currency"], row["metadata"]) == (1999, "usd", {"invoice": "INV-1"})


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_visa_chargeDeclinedLostCard", "card_declined", "lost_card"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", None),
        ("pm_card_authenticationRequired", "authentication_required", "authentication_required"),
    ],
)
def test_a_decline_is_a_card_error_and_takes_nothing(
    client: stripe.StripeClient, standins: Standins, card: str, code: str, decline_code: str | None
) -> None:
    with pytest.raises(stripe.CardError) as caught:
        pay(client, card)
    error: Any = caught.value.error
    assert (caught.value.http_status, error.type) == (402, "card_error")
    assert (error.code, error.to_dict().get("decline_code")) == (code, decline_code)
    intent = client.v1.payment_intents.retrieve(error.payment_intent.id, {"expand": ["latest_charge"]})
    failed: Any = intent.latest_charge
    assert (intent.status, intent.payment_method) == ("requires_payment_method", None)
    assert intent.last_payment_error is not None
    assert intent.last_payment_error.code == code
    assert failed.status == "failed"
    assert standins.ledger() == []


def test_a_declined_intent_can_be_confirmed_with_another_card(client: stripe.StripeClient, standins: Standins) -> None:
    with pytest.raises(stripe.CardError) as caught:
        pay(client, "pm_card_chargeDeclined")
    error: Any = caught.value.error
    intent = client.v1.payment_intents.confirm(
        error.payment_intent.id, {"payment_method": "pm_card_visa", "off_session": True}
    )
    assert (intent.status, intent.last_payment_error) == ("succeeded", None)
    assert len(standins.ledger()) == 1


def test_declining_cards_cannot_be_attached_but_an_attached_card_may_start_to_decline(
    client: stripe.StripeClient, standins: Standins
) -> None:
    customer = client.v1.customers.create({})
    with pytest.raises(stripe.CardError):
        client.v1.payment_methods.attach("pm_card_chargeDeclined", {"customer": customer.id})
    method = client.v1.payment_methods.attach("pm_card_chargeCustomerFail", {"customer": customer.id})
    with pytest.raises(stripe.CardError):
        pay(client, method.id, customer=customer.id)
    standins.change_card(method.id, "pm_card_visa")
    assert pay(client, method.id, customer=customer.id).status == "succeeded"
    standins.change_card(method.id, "pm_card_chargeDeclinedInsufficientFunds")
    with pytest.raises(stripe.CardError) as caught:
        pay(client, method.id, customer=customer.id)
    error: Any = caught.value.error
    assert error.decline_code == "insufficient_funds"


def test_a_card_of_another_customer_is_refused(client: stripe.StripeClient, standins: Standins) -> None:
    owner, stranger = client.v1.customers.create({}), client.v1.customers.create({})
    method = client.v1.payment_methods.attach("pm_card_visa", {"customer": owner.id})
    with pytest.raises(stripe.InvalidRequestError):
        pay(client, method.id, customer=stranger.id)
    assert standins.ledger() == []


@pytest.mark.parametrize(
    ("success", "status", "charges"), [(True, "succeeded", 1), (False, "requires_payment_method", 0)]
)
def test_three_d_secure_waits_for_the_customer(
    client: stripe.StripeClient, standins: Standins, success: bool, status: str, charges: int
) -> None:
    intent = pay(client, "pm_card_authenticationRequired", off_session=None, return_url="https://example.com/back")
    assert intent.status == "requires_action"
    assert intent.next_action is not None
    assert intent.next_action.type == "redirect_to_url"
    assert standins.ledger() == []
    standins.authenticate(intent.id, success=success)
    assert client.v1.payment_intents.retrieve(intent.id).status == status
    assert len(standins.ledger()) == charges


def test_a_card_set_up_with_authentication_pays_off_session_later(
    client: stripe.StripeClient, standins: Standins
) -> None:
    customer = client.v1.customers.create({})
    method = client.v1.payment_methods.attach("pm_card_authenticationRequiredOnSetup", {"customer": customer.id})
    with pytest.raises(stripe.CardError) as caught:
        pay(client, method.id, customer=customer.id)
    assert caught.value.code == "authentication_required"
    first = pay(
        client,
        method.id,
        customer=customer.id,
        off_session=None,
        setup_future_usage="off_session",
        return_url="https://example.com/back",
    )
    standins.authenticate(first.id)
    assert pay(client, method.id, customer=customer.id).status == "succeeded"
    assert len(standins.ledger()) == 2


def test_states_that_forbid_a_change(client: stripe.StripeClient, standins: Standins) -> None:
    paid = pay(client)
    for change in (client.v1.payment_intents.cancel, client.v1.payment_intents.confirm):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            change(paid.id)
        assert caught.value.code == "payment_intent_unexpected_state"
    opened = client.v1.payment_intents.create({"amount": 500, "currency": "eur"})
    assert opened.status == "requires_payment_method"
    assert client.v1.payment_intents.update(opened.id, {"amount": 700}).amount == 700
    cancelled = client.v1.payment_intents.cancel(opened.id, {"cancellation_reason": "abandoned"})
    assert cancelled.status == "canceled"
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.payment_intents.confirm(opened.id, {"payment_method": "pm_card_visa", "off_session": True})
    assert len(standins.ledger()) == 1


def test_confirming_on_session_needs_a_return_url_unless_redirects_are_off(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        pay(client, off_session=None)
    assert caught.value.param == "return_url"
    never = {"enabled": True, "allow_redirects": "never"}
    assert pay(client, off_session=None, automatic_payment_methods=never).status == "succeeded"


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"amount": "19.99"}, "amount", "parameter_invalid_integer"),
        ({"amount": 0}, "amount", "parameter_invalid_integer"),
        ({"amount": -5}, "amount", "parameter_invalid_integer"),
        ({"amount": 49}, "amount", "amount_too_small"),
        ({"amount": 999, "currency": "mxn"}, "amount", "amount_too_small"),
        ({"amount": 100_000_000}, "amount", "amount_too_large"),
        ({"amount": 5125, "currency": "kwd"}, "amount", "parameter_invalid_integer"),
        ({"amount": None}, "amount", "parameter_missing"),
        ({"currency": ""}, "currency", "parameter_invalid_empty"),
        ({"currency": "USD"}, "currency", None),
        ({"currency": "zzz"}, "currency", None),
        ({"payment_method": "pm_nothing"}, "payment_method", "resource_missing"),
        ({"customer": "cus_nobody"}, "customer", "resource_missing"),
        ({"surprise": "1"}, "surprise", "parameter_unknown"),
        ({"capture_method": "manual"}, "capture_method", None),
        ({"metadata": {"k" * 41: "v"}}, f"metadata[{'k' * 41}]", None),
        ({"confirm": False}, "off_session", None),
        ({"expand": ["nothing"]}, "expand", None),
    ],
)
def test_bad_parameters_are_refused_and_nothing_is_charged(
    client: stripe.StripeClient, standins: Standins, changes: dict[str, Any], param: str, code: str | None
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        pay(client, **changes)
    assert (caught.value.http_status, caught.value.param, caught.value.code) == (400, param, code)
    assert standins.ledger() == []


def test_the_largest_and_smallest_amounts_pass(client: stripe.StripeClient, standins: Standins) -> None:
    for amount, currency in ((50, "usd"), (99_999_999, "usd"), (1000, "mxn"), (5120, "kwd")):
        pay(client, amount=amount, currency=currency)
    assert [row["amount"] for row in standins.ledger()] == [50, 99_999_999, 1000, 5120]


def test_refunds_in_parts_never_exceed_the_charge(client: stripe.StripeClient, standins: Standins) -> None:
    intent = pay(client)
    assert client.v1.refunds.create({"payment_intent": intent.id, "amount": 999}).amount == 999
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.refunds.create({"payment_intent": intent.id, "amount": 1001})
    assert caught.value.param == "amount"
    assert client.v1.refunds.create({"payment_intent": intent.id}).amount == 1000
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.refunds.create({"payment_intent": intent.id})
    assert caught.value.code == "charge_already_refunded"
    assert [row["amount_refunded"] for row in standins.ledger()] == [1999]


def test_lists_are_paged_newest_first_and_filtered(client: stripe.StripeClient) -> None:
    customer = client.v1.customers.create({})
    made = [pay(client, metadata={"n": str(number)}).id for number in range(12)]
    mine = pay(client, customer=customer.id, metadata={"attempt": "pay-7:1"})
    everything = [intent.id for intent in client.v1.payment_intents.list({"limit": 5}).auto_paging_iter()]
    assert everything == [mine.id, *reversed(made)]
    assert [item.id for item in client.v1.payment_intents.list({"customer": customer.id}).data] == [mine.id]
    later = client.v1.payment_intents.list({"created": {"gt": mine.created}}).data
    assert later == []
    since = client.v1.payment_intents.list({"created": {"gte": mine.created - 60}, "limit": 100}).data
    assert len(since) == 13
    found = client.v1.payment_intents.search({"query": "metadata['attempt']:'pay-7:1' AND status:'succeeded'"}).data
    assert [item.id for item in found] == [mine.id]


def test_unknown_objects_and_urls_are_404(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.payment_intents.retrieve("pi_nothing")
    assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.products.list()
    assert caught.value.http_status == 404


def test_events_can_be_listed_and_tell_the_cause(client: stripe.StripeClient) -> None:
    intent = client.v1.payment_intents.create(
        {"amount": 700, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True, "off_session": True},
        {"idempotency_key": "pay-1:1"},
    )
    (event,) = client.v1.events.list({"type": "payment_intent.succeeded"}).data
    assert event.data.object["id"] == intent.id
    assert event.request is not None
    assert event.request.idempotency_key == "pay-1:1"
    types = [item.type for item in client.v1.events.list().data]
    assert types == ["payment_intent.succeeded", "charge.succeeded", "payment_intent.created"]
    assert client.v1.events.retrieve(event.id).type == "payment_intent.succeeded"
