"""The provider against the stand-in: each order, capture and refund once, whatever the answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.clock import SystemClock
from core.errors import InvalidInputError
from payments.adapters.paypal_client import PayPalClient
from payments.adapters.paypal_provider import PayPalProvider, create_paypal_provider
from payments.domain.payment import AUTHENTICATION_ABANDONED, Outcome, Payment, PaymentStatus
from payments.domain.refund import RefundStatus
from payments.ports import Payer, UnknownOutcomeError
from runtime.settings import InvalidSettingsError, load_settings
from tests.payments.paypal.conftest import METHOD, RETURN_URL, payment_of, refund_of
from tests.standins.paypal_account import APPROVAL_SECONDS
from tests.standins.paypal_server import FAULT_KINDS, PayPalStandIn

ORDERS, CAPTURE = "/v2/checkout/orders", "/v2/checkout/orders/"
UNKNOWN = sorted(FAULT_KINDS - {"slow", "hang_after"})


async def open_order(provider: PayPalProvider, payment: Payment) -> Payment:
    outcome = await provider.charge(payment, METHOD, "Invoice MB-1")
    assert outcome.status is PaymentStatus.REQUIRES_ACTION
    return replace(payment, status=PaymentStatus.REQUIRES_ACTION, provider_reference=outcome.reference)


async def paid(provider: PayPalProvider, paypal: PayPalStandIn, payment: Payment) -> Payment:
    opened = await open_order(provider, payment)
    await paypal.approve(str(opened.provider_reference))
    await provider.capture(opened)
    return replace(opened, status=PaymentStatus.SUCCEEDED, settled_at=datetime.now(UTC))


async def test_an_order_is_made_approved_captured_and_shown(provider: PayPalProvider, paypal: PayPalStandIn) -> None:
    payment = payment_of("one")
    opened = await open_order(provider, payment)
    order = paypal.account.orders[str(opened.provider_reference)]
    unit = order["purchase_units"][0]
    assert unit["amount"] == {"currency_code": "USD", "value": "125.40"}
    assert (unit["custom_id"], unit["invoice_id"]) == (payment.payment_id, payment.invoice_id)
    link = await provider.request_action(opened)
    assert link == f"{paypal.url}/checkoutnow?token={opened.provider_reference}"
    await paypal.approve(str(opened.provider_reference))
    assert (await provider.find_charge(opened)).status is PaymentStatus.PROCESSING  # type: ignore[union-attr]
    answer = await provider.capture(opened)
    assert (answer.outcome.status, answer.outcome.amount) == (PaymentStatus.SUCCEEDED, payment.amount)
    [taken] = paypal.account.ledger()
    assert (taken["capture"], taken["amount"]) == (answer.capture_id, "125.40")
    assert (await provider.find_charge(opened)).status is PaymentStatus.SUCCEEDED  # type: ignore[union-attr]
    assert paypal.tokens_given == 1


@pytest.mark.parametrize("kind", UNKNOWN)
async def test_an_unknown_outcome_is_unknown_and_repeating_makes_it_once(
    provider: PayPalProvider, paypal: PayPalStandIn, kind: str
) -> None:
    payment = payment_of(f"fault-{kind}")
    paypal.faults.add({"kind": kind, "method": "POST", "path": ORDERS})
    with pytest.raises(UnknownOutcomeError):
        await provider.charge(payment, METHOD, "Invoice MB-1")
    opened = await open_order(provider, payment)
    assert len(paypal.account.orders) == 1
    await paypal.approve(str(opened.provider_reference))
    paypal.faults.add({"kind": kind, "method": "POST", "path": CAPTURE})
    with pytest.raises(UnknownOutcomeError):
        await provider.capture(opened)
    assert (await provider.capture(opened)).capture_id is not None
    refund = refund_of(payment, "25.40")
    paypal.faults.add({"kind": kind, "method": "POST", "path": "/v2/payments/captures/"})
    with pytest.raises(UnknownOutcomeError):
        await provider.refund(refund, opened)
    assert (await provider.refund(refund, opened)).status is RefundStatus.SUCCEEDED
    [taken] = paypal.account.ledger()
    assert (taken["amount"], taken["refunded"]) == ("125.40", "25.40")


async def test_when_request_ids_are_forgotten_the_order_itself_knows(
    provider: PayPalProvider, paypal: PayPalStandIn
) -> None:
    opened = await paid(provider, paypal, payment_of("late"))
    refund = refund_of(opened, "100.00")
    assert (await provider.refund(refund, opened)).status is RefundStatus.SUCCEEDED
    paypal.expire_request_ids()
    again = await provider.capture(opened)
    assert (again.outcome.status, again.capture_id) == (PaymentStatus.SUCCEEDED, paypal.account.ledger()[0]["capture"])
    found = await provider.find_refund(refund, opened)
    assert found is not None
    assert found.status is RefundStatus.SUCCEEDED
    # Asked blindly it is refused by what is left, and then found.
    assert (await provider.refund(refund, opened)).status is RefundStatus.SUCCEEDED
    [taken] = paypal.account.ledger()
    assert (taken["amount"], taken["refunded"]) == ("125.40", "100.00")


async def test_a_capture_before_the_approval_is_the_payers_turn(
    provider: PayPalProvider, paypal: PayPalStandIn
) -> None:
    opened = await open_order(provider, payment_of("early"))
    answer = await provider.capture(opened)
    assert (answer.outcome.status, answer.outcome.failure_code) == ("requires_action", "order_not_approved")
    assert answer.capture_id is None


async def test_a_declined_instrument_fails_and_takes_nothing(provider: PayPalProvider, paypal: PayPalStandIn) -> None:
    opened = await open_order(provider, payment_of("declined"))
    await paypal.approve(str(opened.provider_reference), "declined")
    answer = await provider.capture(opened)
    assert (answer.outcome.status, answer.outcome.failure_code) == ("failed", "instrument_declined")
    assert paypal.account.ledger() == []


async def test_paypal_itself_refuses_a_second_capture_for_one_invoice(
    provider: PayPalProvider, paypal: PayPalStandIn
) -> None:
    first = payment_of("twice")
    await paid(provider, paypal, first)
    second = await open_order(provider, replace(first, payment_id="pay_second", attempt=2))
    await paypal.approve(str(second.provider_reference))
    answer = await provider.capture(second)
    assert (answer.outcome.status, answer.outcome.failure_code) == ("failed", "duplicate_invoice_id")
    assert len(paypal.account.ledger()) == 1


async def test_an_order_left_too_long_is_canceled_and_never_captured(
    provider: PayPalProvider, paypal: PayPalStandIn
) -> None:
    opened = await open_order(provider, payment_of("left"))
    outcome = await provider.abandon(opened)
    assert (outcome.status, outcome.failure_code) == ("canceled", AUTHENTICATION_ABANDONED)
    approved = await open_order(provider, payment_of("slow"))
    await paypal.approve(str(approved.provider_reference))
    assert (await provider.abandon(approved)).status is PaymentStatus.PROCESSING
    paypal.account.ahead_seconds = APPROVAL_SECONDS + 60
    answer = await provider.capture(approved)
    assert (answer.outcome.status, answer.outcome.failure_code) == ("canceled", AUTHENTICATION_ABANDONED)
    await paypal.act(paypal.account.take_back_approvals)
    assert (await provider.find_charge(approved)).status is PaymentStatus.CANCELED  # type: ignore[union-attr]


async def test_an_order_that_paypal_forgot_ends_only_what_was_not_captured(provider: PayPalProvider) -> None:
    gone = payment_of("gone", reference="0GONE")
    waiting = replace(gone, status=PaymentStatus.REQUIRES_ACTION)
    assert (await provider.find_charge(waiting)).status is PaymentStatus.CANCELED  # type: ignore[union-attr]
    with pytest.raises(UnknownOutcomeError):
        await provider.find_charge(replace(gone, status=PaymentStatus.PROCESSING))
    assert await provider.find_charge(payment_of("never")) is None


async def test_a_capture_under_review_is_in_process_until_paypal_says_more(
    provider: PayPalProvider, paypal: PayPalStandIn
) -> None:
    opened = await open_order(provider, payment_of("review"))
    await paypal.approve(str(opened.provider_reference), "pending")
    answer = await provider.capture(opened)
    assert (answer.outcome.status, answer.capture_id is None) == (PaymentStatus.PROCESSING, False)
    refused = await provider.refund(refund_of(opened, "1.00"), opened)
    assert (refused.status, refused.failure_code) == ("failed", "pending_capture")
    await paypal.act(lambda: paypal.account.resolve_pending(str(answer.capture_id), success=False))
    assert (await provider.find_charge(opened)).failure_code == "capture_declined"  # type: ignore[union-attr]


@pytest.mark.parametrize(("amount", "currency"), [("12.50", "HUF"), ("1.234", "KWD"), ("500", "KRW")])
async def test_what_paypal_cannot_charge_fails_without_a_call(
    provider: PayPalProvider, paypal: PayPalStandIn, amount: str, currency: str
) -> None:
    outcome = await provider.charge(payment_of("odd", amount, currency), METHOD, "Invoice")
    assert (outcome.status, outcome.failure_code) == ("failed", "amount_not_chargeable")
    assert paypal.log == []


async def test_currencies_without_decimals_are_paid_and_refunded(
    provider: PayPalProvider, paypal: PayPalStandIn
) -> None:
    for currency, amount in (("HUF", "1250.00"), ("JPY", "1250"), ("TWD", "300.00")):
        opened = await paid(provider, paypal, payment_of(currency, amount, currency))
        assert (await provider.find_charge(opened)).amount == opened.amount  # type: ignore[union-attr]
        assert (await provider.refund(refund_of(opened, "100.00" if currency != "JPY" else "100"), opened)).status == (
            RefundStatus.SUCCEEDED
        )
    assert [(each["amount"], each["refunded"]) for each in paypal.account.ledger()] == [
        ("1250", "100"),
        ("1250", "100"),
        ("300", "100"),
    ]


async def test_refunds_add_up_to_the_capture_and_no_further(provider: PayPalProvider, paypal: PayPalStandIn) -> None:
    opened = await paid(provider, paypal, payment_of("parts"))
    for number, amount in enumerate(("100.00", "25.40")):
        outcome = await provider.refund(refund_of(opened, amount, str(number)), opened)
        assert (outcome.status, str(outcome.amount)) == (RefundStatus.SUCCEEDED, f"{amount} USD")
    refused = await provider.refund(refund_of(opened, "0.01", "more"), opened)
    assert (refused.status, refused.failure_code) == ("failed", "capture_fully_refunded")
    other = await paid(provider, paypal, payment_of("hand"))
    capture = paypal.account.ledger()[1]["capture"]
    await paypal.act(lambda: paypal.account.refund_capture(capture, {}))
    [found] = await provider.list_refunds(other)
    assert (found.refund_id, found.payment_id, found.outcome.amount) == (None, other.payment_id, other.amount)


async def test_a_token_is_kept_renewed_once_when_refused_and_before_it_ends(
    provider: PayPalProvider, paypal: PayPalStandIn
) -> None:
    opened = await open_order(provider, payment_of("token"))
    await provider.find_charge(opened)
    assert paypal.tokens_given == 1
    paypal.revoke_tokens()
    await provider.find_charge(opened)
    assert paypal.tokens_given == 2
    # A PayPal that refuses every token is asked twice, not for ever.
    paypal.client_secret = "changed"
    paypal.revoke_tokens()
    before = len(paypal.log)
    with pytest.raises(UnknownOutcomeError):
        await provider.find_charge(opened)
    assert [entry.path for entry in paypal.log[before:]] == [
        f"{ORDERS}/{opened.provider_reference}",
        "/v1/oauth2/token",
    ]


async def test_simultaneous_calls_share_one_token(provider: PayPalProvider, paypal: PayPalStandIn) -> None:
    import asyncio

    await asyncio.gather(*(provider.charge(payment_of(f"n{n}"), METHOD, "Invoice") for n in range(8)))
    assert paypal.tokens_given == 1


async def test_an_answer_of_another_payment_says_nothing(provider: PayPalProvider, paypal: PayPalStandIn) -> None:
    mine, other = payment_of("mine"), await open_order(provider, payment_of("other"))
    with pytest.raises(UnknownOutcomeError):
        await provider.find_charge(replace(mine, provider_reference=other.provider_reference))


async def test_events_are_listed_over_pages_as_their_webhooks_were(
    provider: PayPalProvider, paypal: PayPalStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("payments.adapters.paypal_provider._PAGE", "2")
    for number in range(3):
        await paid(provider, paypal, payment_of(f"page{number}"))
    since, until = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)
    found = [webhook async for webhook in provider.list_events(since, until)]
    assert {webhook.event_id for webhook in found} == set(paypal.account.events)
    assert len(found) == 6
    assert {webhook.event_type for webhook in found} == {"CHECKOUT.ORDER.APPROVED", "PAYMENT.CAPTURE.COMPLETED"}


async def test_nothing_is_saved_at_paypal_and_another_method_is_refused(provider: PayPalProvider) -> None:
    assert await provider.create_customer(Payer("acme", "Acme", "books@acme.invalid")) == "acme"
    assert await provider.attach_method("acme", "acme", "approval") == "approval"
    with pytest.raises(InvalidInputError):
        await provider.attach_method("acme", "acme", "pm_card_visa")


async def test_a_timeout_is_an_unknown_outcome(paypal: PayPalStandIn) -> None:
    client = PayPalClient(paypal.client_id, paypal.client_secret, paypal.url, SystemClock(), timeout_seconds=0.3)
    provider = PayPalProvider(client, RETURN_URL)
    payment = payment_of("slow")
    paypal.faults.add({"kind": "hang_after", "method": "POST", "path": ORDERS, "seconds": 5})
    with pytest.raises(UnknownOutcomeError):
        await provider.charge(payment, METHOD, "Invoice")
    found = await provider.charge(payment, METHOD, "Invoice")
    assert isinstance(found, Outcome)
    assert len(paypal.account.orders) == 1
    await provider.close()


def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettingsError) as missing:
        create_paypal_provider(load_settings(paypal_client_id="id"), SystemClock())
    assert {fault.path for fault in missing.value.faults} == {
        "METERBOOK_PAYPAL_CLIENT_SECRET",
        "METERBOOK_PAYMENT_RETURN_URL",
    }
    wrong: dict[str, Any] = {
        "paypal_api_base": "http://api-m.paypal.com",
        "paypal_cert_prefixes": "http://api.paypal.com/v1/notifications/certs/",
        "paypal_webhook_ids": "1JE4291016473214C, no|pipes",
        "paypal_approval_hours": 100,
    }
    for name, value in wrong.items():
        with pytest.raises(InvalidSettingsError):
            load_settings(**{name: value})
    for prefix in ("https://api.paypal.com/", "https://api.paypal.com/v1/certs", "ftp://api.paypal.com/x/"):
        with pytest.raises(InvalidSettingsError):
            load_settings(paypal_cert_prefixes=prefix)
