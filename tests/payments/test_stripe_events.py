"""Which of Stripe's events mean what; poison and strangers; and the webhook that goes out when money came."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from core.money import Money
from payments.adapters.stripe_events import EVENT_TYPES, StripeWebhookReader
from payments.domain.dispute import DisputeStatus
from payments.domain.payment import PaymentStatus, Refusal
from payments.ports import DisputeNews, MethodNews, PaymentNews, RefundNews, RefundTotal, StoredWebhook
from runtime.postgres import Pool
from tests.payments.desk import Desk

AT = 1_793_600_000


def read(kind: str, subject: Any, **data: Any) -> Any:
    event = {"id": "evt_1", "type": kind, "created": AT, "data": {"object": subject, **data}}
    return StripeWebhookReader().read(StoredWebhook("stripe", "evt_1", kind, json.dumps(event).encode()))


def test_a_stripe_invoice_counts_only_if_it_names_our_payment() -> None:
    invoice = {"id": "in_1", "currency": "usd", "amount_paid": 1999, "amount_due": 1999, "metadata": {}}
    assert read("invoice.payment_succeeded", invoice) is None
    ours = {**invoice, "metadata": {"payment_id": "pay_1"}}
    paid = read("invoice.payment_succeeded", ours)
    assert isinstance(paid, PaymentNews)
    assert (paid.payment_id, paid.outcome.status) == ("pay_1", PaymentStatus.SUCCEEDED)
    assert paid.outcome.amount == Money(Decimal("19.99"), "USD")
    failed = read("invoice.payment_failed", ours)
    assert (failed.outcome.status, failed.outcome.failure_code) == (PaymentStatus.FAILED, "invoice_payment_failed")


@pytest.mark.parametrize("kind", ["customer.subscription.updated", "customer.subscription.deleted", "plan.created"])
def test_what_is_not_ours_has_no_effect(kind: str) -> None:
    assert read(kind, {"id": "sub_1"}) is None


def test_refunds_disputes_and_methods_are_read() -> None:
    refund = {"id": "re_1", "amount": 500, "currency": "jpy", "status": "pending", "payment_intent": {"id": "pi_1"}}
    news = read("refund.created", {**refund, "metadata": {"refund_id": "ref_1"}})
    assert isinstance(news, RefundNews)
    assert (news.refund_id, news.payment_reference, str(news.outcome.amount)) == ("ref_1", "pi_1", "500 JPY")
    total = read("charge.refunded", {"id": "ch_1", "payment_intent": "pi_1", "amount_refunded": 500, "currency": "usd"})
    assert total == RefundTotal("pi_1", Money(Decimal("5.00"), "USD"))
    dispute = {
        "id": "du_1", "amount": 500, "currency": "usd", "status": "under_review", "payment_intent": "pi_1",
        "created": AT, "evidence_details": {"due_by": AT + 60},
    }  # fmt: skip
    held = read("charge.dispute.created", dispute)
    assert isinstance(held, DisputeNews)
    assert (held.status, held.evidence_due_at) == (DisputeStatus.OPENED, datetime.fromtimestamp(AT + 60, UTC))
    saved = read("setup_intent.succeeded", {"id": "seti_1", "customer": "cus_1", "payment_method": "pm_1"})
    assert saved == MethodNews(None, "cus_1", "pm_1", is_usable=True, happened_at=datetime.fromtimestamp(AT, UTC))
    gone = read("payment_method.detached", {"id": "pm_1"}, previous_attributes={"customer": "cus_1"})
    assert (gone.customer_reference, gone.is_usable) == ("cus_1", False)
    assert read("mandate.updated", {"id": "m_1", "status": "active", "payment_method": "pm_1"}) is None


@pytest.mark.parametrize("kind", [kind for kind in EVENT_TYPES if not kind.startswith("customer.subscription")])
@pytest.mark.parametrize(
    "subject", [None, [], {}, {"id": 7}, {"id": ["x"], "amount": 1.5, "currency": "usd", "status": []}]
)
def test_no_shape_of_an_object_breaks_the_reader(kind: str, subject: Any) -> None:
    found = read(kind, subject)
    assert found is None or isinstance(found, Refusal), found


@pytest.mark.integration
async def test_poison_is_kept_with_its_reason_and_blocks_nothing(desk: Desk) -> None:
    refund = {"id": "re_x", "amount": 500, "currency": "usd", "status": "succeeded", "payment_intent": "pi_nobody"}
    run = uuid4().hex
    poison = {
        f"evt_{run}a": ("refund.created", refund, "unknown_payment"),
        f"evt_{run}b": ("charge.dispute.closed", {**refund, "status": "odd"}, "malformed_event"),
        f"evt_{run}c": ("setup_intent.succeeded", {"customer": "c", "payment_method": "p"}, "unknown_customer"),
    }
    for event_id, (kind, subject, _) in poison.items():
        body = json.dumps({"id": event_id, "type": kind, "created": AT, "data": {"object": subject}}).encode()
        assert await desk.store.add(StoredWebhook("stripe", event_id, kind, body), desk.clock.now())
    payment = await desk.settled()
    assert payment.status == "succeeded"
    for event_id, (_, _, code) in poison.items():
        closed, reason = await desk.books.refusal_of(event_id)
        assert closed
        assert (reason or "").startswith(code), reason


@pytest.mark.integration
async def test_money_that_came_is_told_to_receivers_once_with_the_same_commit(desk: Desk, pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO webhook_endpoints (endpoint_id, url, event_types, enabled, secret, created_at, updated_at)"
            " VALUES (%s, %s, %s, true, %s, now(), now())",
            ("payments-test", "https://hooks.example/in", ["payment.succeeded"], "whsec_x"),
        )
    payment = await desk.settled("19.99")
    await desk.catch_up()
    async with pool.connection() as connection:
        rows = await (
            await connection.execute(
                "SELECT body FROM webhook_deliveries WHERE endpoint_id = 'payments-test' AND tenant_id = %s",
                (payment.tenant_id,),
            )
        ).fetchall()
        await connection.execute("DELETE FROM webhook_deliveries WHERE endpoint_id = 'payments-test'")
        await connection.execute("DELETE FROM webhook_endpoints WHERE endpoint_id = 'payments-test'")
    [body] = [json.loads(bytes(row["body"])) for row in rows]
    assert (body["type"], body["data"]["payment_id"], body["data"]["amount"]) == (
        "payment.succeeded",
        payment.payment_id,
        "19.99",
    )
