"""Refunds and disputes against Stripe's stand-in: never above what was settled, and whatever happens, known here."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from payments.domain.payment import Payment
from payments.refund_payment import RefundRequest
from tests.payments.desk import Desk
from tests.standins.process import Standins

pytestmark = pytest.mark.integration
REFUNDS = "/v1/refunds"


def ask(payment: Payment, amount: str | None = None, key: str = "first", **changes: Any) -> RefundRequest:
    given = {"reason": "billed twice", "requested_by": "clerk", **changes}
    return RefundRequest(payment.payment_id, key, None if amount is None else Decimal(amount), **given)


def refunded(standins: Standins) -> list[tuple[int, int]]:
    return [(charge["amount"], charge["amount_refunded"]) for charge in standins.ledger()]


async def test_half_then_the_rest_and_not_a_cent_more(desk: Desk, standins: Standins) -> None:
    payment = await desk.settled("125.40")
    half = await desk.refund(payment, ask(payment, "62.70"))
    again = await desk.refund(payment, ask(payment, "62.70"))
    rest = await desk.refund(payment, ask(payment, key="second"))
    assert (half.status, again, rest.amount.amount) == ("succeeded", half, Decimal("62.70"))
    with pytest.raises(InvalidInputError) as refused:
        await desk.refund(payment, ask(payment, "0.01", key="third"))
    assert refused.value.faults[0].code == "exceeds_payment"
    assert refunded(standins) == [(12_540, 12_540)]  # 62.70 + 62.70 = 125.40
    await desk.catch_up()
    await desk.catch_up()
    assert (await desk.told(payment))[1:] == [("payment.refunded", "62.70", "succeeded")] * 2
    assert len(await desk.refunds(payment)) == 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"amount": "125.41"}, "exceeds_payment"),
        ({"amount": "0"}, "invalid_amount"),
        ({"amount": "-5"}, "invalid_amount"),
        ({"amount": "1.005"}, "invalid_amount"),
        ({"amount": "NaN"}, "invalid_amount"),
        ({"reason": "card 4242 4242 4242 4242"}, "card_number"),
        ({"reason": ""}, "invalid_text"),
        ({"key": "a\0b"}, "invalid_text"),
    ],
)
async def test_a_wrong_request_is_refused_and_nothing_is_done(
    changes: dict[str, Any], code: str, desk: Desk, standins: Standins
) -> None:
    payment = await desk.settled()
    with pytest.raises(InvalidInputError) as refused:
        await desk.refund(payment, ask(payment, **changes))
    assert refused.value.faults[0].code == code
    assert await desk.refunds(payment) == []
    assert refunded(standins) == [(12_540, 0)]


async def test_only_settled_payments_are_refunded_and_a_key_is_one_refund(desk: Desk, standins: Standins) -> None:
    invoice = await desk.books.add_invoice(await desk.books.add_tenant())
    processing = await desk.charge(invoice)
    assert processing is not None
    with pytest.raises(InvalidInputError) as early:
        await desk.refund(processing, ask(processing))
    assert early.value.faults[0].code == "not_settled"
    with pytest.raises(NotFoundError):
        await desk.refund(processing, RefundRequest("pay_nobody", "k", None, "r", "me"))
    await desk.catch_up()
    await desk.refund(processing, ask(processing, "10.00"))
    with pytest.raises(ConflictError):
        await desk.refund(processing, ask(processing, "11.00"))
    assert refunded(standins) == [(12_540, 1_000)]


@pytest.mark.parametrize(
    "kind", ["unavailable", "rate_limit", "conflict", "cut_after", "cut_in_body", "server_error_after"]
)
async def test_one_refund_whatever_happens_to_the_answer(kind: str, desk: Desk, standins: Standins) -> None:
    payment = await desk.settled()
    standins.fail_stripe(kind, method="POST", path=REFUNDS)
    with pytest.raises(UnavailableError):
        await desk.refund(payment, ask(payment, "25.40"))
    # The clerk has gone home: the janitor asks after five minutes.
    assert await desk.janitor(timedelta(minutes=6)) == 1
    [refund] = await desk.refunds(payment)
    assert (refund.status, refunded(standins)) == ("succeeded", [(12_540, 2_540)])
    await desk.catch_up()
    assert (await desk.told(payment))[1:] == [("payment.refunded", "25.40", "succeeded")]


async def test_a_refund_the_provider_never_made_is_given_up_after_its_key_is_dead(
    desk: Desk, standins: Standins
) -> None:
    payment = await desk.settled()
    standins.fail_stripe("unavailable", method="POST", path=REFUNDS)
    with pytest.raises(UnavailableError):
        await desk.refund(payment, ask(payment))
    standins.expire_idempotency_keys()
    await desk.janitor(timedelta(hours=30))
    [refund] = await desk.refunds(payment)
    assert (refund.status, refund.failure_code) == ("failed", "provider_error")
    assert refunded(standins) == [(12_540, 0)]
    # Its amount is free again.
    assert (await desk.refund(payment, ask(payment, key="second"))).status == "succeeded"


async def test_a_pending_refund_settles_by_its_event_and_a_failed_one_is_taken_back(
    desk: Desk, standins: Standins
) -> None:
    slow = await desk.settled(method="pm_card_pendingRefund")
    waiting = await desk.refund(slow, ask(slow))
    assert (waiting.status, waiting.provider_reference is not None) == ("processing", True)
    assert [topic for topic, *_ in await desk.told(slow)] == ["payment.settled"]
    standins.move_refund(waiting.provider_reference or "")
    await desk.catch_up()
    assert (await desk.told(slow))[-1] == ("payment.refunded", "125.40", "succeeded")

    vain = await desk.settled(method="pm_card_refundFail")
    done = await desk.refund(vain, ask(vain))
    assert done.status == "succeeded"
    standins.move_refund(done.provider_reference or "")
    await desk.catch_up()
    [failed] = await desk.refunds(vain)
    assert (failed.status, failed.failure_code) == ("failed", "lost_or_stolen_card")
    assert [(topic, status) for topic, _, status in await desk.told(vain)][1:] == [
        ("payment.refunded", "succeeded"),
        ("payment.refunded", "failed"),
    ]


async def test_a_refund_made_in_stripes_panel_is_known_here(desk: Desk, standins: Standins) -> None:
    payment = await desk.settled()
    client = desk.provider._client.v1
    await client.refunds.create_async({"payment_intent": payment.provider_reference or "", "amount": 2_000})
    await desk.catch_up()
    [found] = await desk.refunds(payment)
    assert (found.amount.amount, found.status, found.requested_by) == (
        Decimal("20.00"),
        "succeeded",
        "the provider's panel",
    )
    with pytest.raises(InvalidInputError):
        await desk.refund(payment, ask(payment, "105.41"))
    assert (await desk.refund(payment, ask(payment))).amount.amount == Decimal("105.40")


async def test_the_total_alone_makes_the_janitor_look_for_refunds(desk: Desk, standins: Standins) -> None:
    # Only `charge.refunded` is subscribed to, and it names no refund.
    payment = await desk.settled()
    client = desk.provider._client.v1
    await client.refunds.create_async({"payment_intent": payment.provider_reference or "", "amount": 2_000})
    await desk.sweep()
    async with desk.store._pool.connection() as connection:
        await connection.execute("DELETE FROM webhook_inbox WHERE event_type = 'refund.created'")
    await desk.apply()
    assert await desk.refunds(payment) == []
    assert await desk.janitor() == 1
    assert [refund.amount.amount for refund in await desk.refunds(payment)] == [Decimal("20.00")]
    assert await desk.janitor() == 0
    assert (await desk.steps(payment))[-1] == "refund None>succeeded lookup"


async def test_a_refund_that_overtakes_the_payments_own_webhook_waits_for_it(desk: Desk, standins: Standins) -> None:
    invoice = await desk.books.add_invoice(await desk.books.add_tenant())
    payment = await desk.charge(invoice)
    assert payment is not None
    client = desk.provider._client.v1
    await client.refunds.create_async({"payment_intent": payment.provider_reference or "", "amount": 2_000})
    await desk.sweep()
    async with desk.store._pool.connection() as connection:
        await connection.execute(
            "DELETE FROM webhook_inbox WHERE event_type LIKE 'payment_intent.%%'".replace("%%", "%")
        )
    await desk.apply()
    assert await desk.janitor() == 1
    assert (await desk.payment(payment.payment_id)).status == "succeeded"
    assert [topic for topic, *_ in await desk.told(payment)] == ["payment.settled", "payment.refunded"]


async def test_a_dispute_is_held_shown_with_its_deadline_and_won(desk: Desk, standins: Standins) -> None:
    payment = await desk.settled()
    opened = standins.open_dispute(payment.provider_reference or "")
    await desk.catch_up()
    [dispute] = await desk.disputes(payment)
    assert (dispute.status, dispute.reason) == ("opened", "fraudulent")
    assert dispute.evidence_due_at is not None
    assert int(dispute.evidence_due_at.timestamp()) == opened["evidence_details"]["due_by"]
    shown = {row["dispute_id"]: row for row in await desk.store.open_disputes()}[dispute.dispute_id]
    assert shown["amount"] == "125.40"
    with pytest.raises(InvalidInputError) as refused:
        await desk.refund(payment, ask(payment))
    assert refused.value.faults[0].code == "disputed"
    standins.move_dispute(opened["id"], "under_review")
    standins.move_dispute(opened["id"], "won")
    await desk.catch_up()
    await desk.catch_up()
    assert (await desk.disputes(payment))[0].status == "won"
    assert [(topic, status) for topic, _, status in await desk.told(payment)][1:] == [
        ("payment.disputed", "opened"),
        ("payment.disputed", "won"),
    ]


async def test_a_lost_dispute_and_an_inquiry_that_moved_nothing(desk: Desk, standins: Standins) -> None:
    lost = await desk.settled(method="pm_card_createDispute")
    [dispute] = await desk.disputes(lost)
    standins.move_dispute(dispute.provider_reference, "lost")
    asked = await desk.settled(method="pm_card_createDisputeInquiry")
    [inquiry] = await desk.disputes(asked)
    standins.move_dispute(inquiry.provider_reference, "warning_closed")
    await desk.catch_up()
    assert [status for *_, status in await desk.told(lost)][1:] == ["opened", "lost"]
    assert [topic for topic, *_ in await desk.told(asked)] == ["payment.settled"]
    assert (await desk.disputes(asked))[0].status == "closed"
