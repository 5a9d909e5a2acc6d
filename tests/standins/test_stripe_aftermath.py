"""The Stripe stand-in after the charge, as the `stripe` library sees it: debits, refunds, disputes, set-ups, prices."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from tests.standins.process import Standins
from tests.standins.test_stripe_api import pay


def types(client: stripe.StripeClient, *prefixes: str) -> list[str]:
    """The account's events with these prefixes, oldest first."""
    found = [event.type for event in client.v1.events.list({"limit": 100}).data]
    return [kind for kind in reversed(found) if kind.startswith(prefixes)]


def test_a_bank_debit_waits_for_the_bank_and_may_fail(client: stripe.StripeClient, standins: Standins) -> None:
    good, bad = pay(client, "pm_usBankAccount_success"), pay(client, "pm_usBankAccount_insufficientFunds")
    assert {good.status, bad.status} == {"processing"}
    assert standins.ledger() == []
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.payment_intents.cancel(good.id)
    assert refused.value.code == "payment_intent_unexpected_state"
    assert standins.settle_debit(good.id)["status"] == "succeeded"
    assert standins.settle_debit(bad.id)["last_payment_error"]["code"] == "insufficient_funds"
    assert types(client, "payment_intent.p", "payment_intent.s") == [
        "payment_intent.processing",
        "payment_intent.processing",
        "payment_intent.succeeded",
        "payment_intent.payment_failed",
    ]
    assert [charge["payment_intent"] for charge in standins.ledger()] == [good.id]


def test_refunds_may_be_pending_or_come_back(client: stripe.StripeClient, standins: Standins) -> None:
    slow = client.v1.refunds.create({"payment_intent": pay(client, "pm_card_pendingRefund").id, "amount": 100})
    assert slow.status == "pending"
    assert standins.move_refund(slow.id)["status"] == "succeeded"
    vain = client.v1.refunds.create({"payment_intent": pay(client, "pm_card_refundFail").id})
    assert vain.status == "succeeded"
    assert standins.move_refund(vain.id)["status"] == "failed"
    assert [charge["amount_refunded"] for charge in standins.ledger()] == [100, 0]
    assert types(client, "refund.")[-2:] == ["refund.updated", "refund.failed"]


def test_a_chargeback_takes_the_money_and_an_inquiry_does_not(client: stripe.StripeClient, standins: Standins) -> None:
    held = pay(client, "pm_card_createDispute")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.refunds.create({"payment_intent": held.id})
    assert refused.value.code == "charge_disputed"
    asked = standins.open_dispute(pay(client).id, "inquiry")
    assert (asked["status"], asked["is_charge_refundable"]) == ("warning_needs_response", True)
    chargeback = next(e.data.object for e in client.v1.events.list({"type": "charge.dispute.created"}).data[::-1])
    standins.move_dispute(chargeback["id"], "won")
    assert types(client, "charge.dispute.") == [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.created",
        "charge.dispute.closed",
        "charge.dispute.funds_reinstated",
    ]


def test_a_set_up_method_belongs_to_its_customer(client: stripe.StripeClient, standins: Standins) -> None:
    customer = client.v1.customers.create({"name": "Acme"})
    asked: Any = {"customer": customer.id, "payment_method_types": ["sepa_debit"]}
    setup = client.v1.setup_intents.create(asked)
    assert setup.status == "requires_payment_method"
    done = standins.complete_setup(setup.id, "pm_sepaDebit_success")
    assert (done["status"], done["customer"]) == ("succeeded", customer.id)
    [method] = client.v1.customers.payment_methods.list(customer.id).data
    assert (method.id, method.type) == (done["payment_method"], "sepa_debit")


def test_a_lookup_key_has_one_price_and_an_id_one_product(client: stripe.StripeClient, standins: Standins) -> None:
    product: Any = {"id": "meterbook_lite", "name": "Lite"}
    client.v1.products.create(product)
    with pytest.raises(stripe.InvalidRequestError) as twice:
        client.v1.products.create(product)
    assert twice.value.code == "resource_already_exists"
    price: Any = {"product": "meterbook_lite", "currency": "usd", "unit_amount_decimal": "0.5", "lookup_key": "k"}
    made = client.v1.prices.create(price)
    assert (made.unit_amount, str(made.unit_amount_decimal)) == (None, "0.5")
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.prices.create(price)
    assert [found.id for found in client.v1.prices.list({"lookup_keys": ["k"]}).data] == [made.id]
    assert standins.products()["products"][0]["name"] == "Lite"
