"""What PayPal's events say of payments, refunds and disputes; what cannot be read is a value, never a crash."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.adapters.paypal_order import PayPalWebhookReader, outcome_of_order, read_order
from payments.domain.dispute import DisputeStatus
from payments.domain.payment import AUTHENTICATION_ABANDONED, PaymentStatus, Refusal
from payments.domain.refund import RefundStatus
from payments.ports import DisputeNews, News, PaymentNews, RefundNews, StoredWebhook

AMOUNT = {"currency_code": "USD", "value": "10.00"}
CAPTURE = {
    "id": "7TK53561YB803214S",
    "status": "COMPLETED",
    "amount": AMOUNT,
    "custom_id": "pay_1",
    "supplementary_data": {"related_ids": {"order_id": "5O190127TN364715T"}},
}
ORDER = {"id": "5O190127TN364715T", "purchase_units": [{"amount": AMOUNT, "custom_id": "pay_1"}]}
REFUND = {"id": "1JU08902781691411", "status": "COMPLETED", "amount": AMOUNT}
DISPUTE = {
    "dispute_id": "PP-D-1",
    "disputed_transactions": [{"seller_transaction_id": "7TK53561YB803214S", "custom": "pay_1"}],
    "dispute_amount": AMOUNT,
    "reason": "UNAUTHORISED",
    "status": "OPEN",
    "dispute_life_cycle_stage": "CHARGEBACK",
}


def read(kind: str, resource: Any, **fields: Any) -> News | Refusal | None:
    event = {"id": "WH-1", "create_time": "2026-11-02T08:30:00.123Z", "event_type": kind, "resource": resource}
    return PayPalWebhookReader().read(StoredWebhook("paypal", "WH-1", kind, json.dumps(event | fields).encode()))


@pytest.mark.parametrize(
    ("kind", "resource", "status", "code"),
    [
        ("CHECKOUT.ORDER.APPROVED", ORDER, PaymentStatus.PROCESSING, None),
        ("CHECKOUT.PAYMENT-APPROVAL.REVERSED", ORDER | {"order_id": ORDER["id"]}, "canceled", AUTHENTICATION_ABANDONED),
        ("PAYMENT.CAPTURE.COMPLETED", CAPTURE, PaymentStatus.SUCCEEDED, None),
        ("PAYMENT.CAPTURE.PENDING", CAPTURE | {"status": "PENDING"}, PaymentStatus.PROCESSING, None),
        ("PAYMENT.CAPTURE.DENIED", CAPTURE | {"status": "DECLINED"}, PaymentStatus.FAILED, "capture_declined"),
        ("PAYMENT.CAPTURE.DECLINED", CAPTURE | {"status": "DECLINED"}, PaymentStatus.FAILED, "capture_declined"),
    ],
)
def test_events_of_a_payment(kind: str, resource: dict[str, Any], status: str, code: str | None) -> None:
    news = read(kind, resource)
    assert isinstance(news, PaymentNews)
    assert (news.payment_id, news.outcome.reference) == ("pay_1", "5O190127TN364715T")
    assert (news.outcome.status, news.outcome.failure_code) == (status, code)
    assert news.happened_at is not None
    assert news.happened_at.isoformat() == "2026-11-02T08:30:00.123000+00:00"


def test_a_refund_bears_our_id_or_that_of_its_payment() -> None:
    ours = read("PAYMENT.CAPTURE.REFUNDED", REFUND | {"custom_id": "ref_1"})
    by_hand = read("PAYMENT.CAPTURE.REFUNDED", REFUND | {"custom_id": "pay_1"})
    strangers = read("PAYMENT.CAPTURE.REFUNDED", REFUND | {"custom_id": "order 7"})
    found = [(n.refund_id, n.payment_id) for n in (ours, by_hand, strangers) if isinstance(n, RefundNews)]
    assert found == [("ref_1", None), (None, "pay_1"), (None, None)]
    pending = read("PAYMENT.REFUND.PENDING", REFUND | {"custom_id": "ref_1", "status": "PENDING"})
    assert isinstance(pending, RefundNews)
    assert pending.outcome.status is RefundStatus.PROCESSING


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"dispute_life_cycle_stage": "INQUIRY"}, DisputeStatus.INQUIRY),
        ({}, DisputeStatus.OPENED),
        ({"status": "RESOLVED", "dispute_outcome": {"outcome_code": "RESOLVED_SELLER_FAVOUR"}}, DisputeStatus.WON),
        ({"status": "RESOLVED", "dispute_outcome": {"outcome_code": "RESOLVED_BUYER_FAVOUR"}}, DisputeStatus.LOST),
    ],
)
def test_a_dispute_holds_money_or_ends(changes: dict[str, Any], status: DisputeStatus) -> None:
    news = read("CUSTOMER.DISPUTE.UPDATED", DISPUTE | changes)
    assert isinstance(news, DisputeNews)
    assert (news.payment_id, news.status, str(news.amount)) == ("pay_1", status, "10.00 USD")


def test_events_of_no_concern_are_left_alone() -> None:
    for kind in ("BILLING.SUBSCRIPTION.CREATED", "PAYMENT.SALE.COMPLETED", "CHECKOUT.ORDER.COMPLETED"):
        assert read(kind, {"id": "x"}) is None


@pytest.mark.parametrize(
    ("kind", "resource"),
    [
        ("PAYMENT.CAPTURE.COMPLETED", {}),
        ("PAYMENT.CAPTURE.COMPLETED", CAPTURE | {"amount": {"currency_code": "USD", "value": 10}}),
        ("PAYMENT.CAPTURE.COMPLETED", CAPTURE | {"amount": {"currency_code": "ZZZ", "value": "10.00"}}),
        ("PAYMENT.CAPTURE.COMPLETED", CAPTURE | {"id": 5}),
        ("CHECKOUT.ORDER.APPROVED", ORDER | {"id": None}),
        ("CHECKOUT.ORDER.APPROVED", ORDER | {"purchase_units": [{}, {}]}),
        ("CHECKOUT.ORDER.APPROVED", ORDER | {"purchase_units": "x"}),
        ("CHECKOUT.PAYMENT-APPROVAL.REVERSED", {}),
        ("PAYMENT.CAPTURE.REFUNDED", REFUND | {"status": "LOST"}),
        ("CUSTOMER.DISPUTE.CREATED", DISPUTE | {"disputed_transactions": []}),
        ("CUSTOMER.DISPUTE.RESOLVED", DISPUTE | {"status": "RESOLVED"}),
        ("PAYMENT.CAPTURE.COMPLETED", []),
        ("PAYMENT.CAPTURE.COMPLETED", None),
    ],
)
def test_what_cannot_be_an_event_is_refused_with_a_code(kind: str, resource: Any) -> None:
    found = read(kind, resource)
    assert isinstance(found, Refusal)
    assert found.code == "malformed_event"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=60) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    found = PayPalWebhookReader().read(StoredWebhook("paypal", "WH-1", "x", body))
    assert found is None or isinstance(found, Refusal)


@given(st.sampled_from(["CREATED", "APPROVED", "VOIDED", "COMPLETED", "LOST"]), st.lists(_JSON, max_size=3), _JSON)
def test_no_order_breaks_the_reader(status: str, captures: list[Any], links: Any) -> None:
    order = {"id": "X", "status": status, "purchase_units": [{"payments": {"captures": captures}}], "links": links}
    found = None
    with suppress(ValueError):
        found = outcome_of_order(read_order(order))
    # Only a capture that can be read is money.
    assert found is None or found.status is not PaymentStatus.SUCCEEDED


def test_ids_that_postgresql_cannot_hold_are_none() -> None:
    news = read("PAYMENT.CAPTURE.COMPLETED", CAPTURE | {"custom_id": "pay_\0"})
    assert isinstance(news, PaymentNews)
    assert news.payment_id is None
