"""PayPal's lane on the real store: link, approval, capture, settlement, expiry, refunds, disputes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.clock import SystemClock
from core.errors import UnavailableError
from core.messages import InvoiceFinalized
from payments.charge_invoice import charge_invoice
from payments.domain.payment import AUTHENTICATION_ABANDONED, Payment
from payments.refund_payment import RefundRequest, refund_payment
from tests.payments.paypal.conftest import World

pytestmark = pytest.mark.integration


async def settle(world: World) -> tuple[InvoiceFinalized, Payment]:
    invoice = await world.add_invoice()
    payment = await world.charge(invoice)
    assert payment is not None
    await world.tell()
    await world.approve(payment.payment_id)
    await world.apply()
    await world.capture()
    await world.apply()
    assert await world.status(invoice) == ["succeeded"]
    return invoice, payment


async def test_a_payer_gets_one_link_approves_and_is_captured_once(world: World) -> None:
    invoice = await world.add_invoice()
    payment = await world.charge(invoice)
    assert payment is not None
    assert (payment.status, payment.provider_reference) == ("requires_action", next(iter(world.paypal.account.orders)))
    await world.tell()
    await world.tell()
    assert world.mails == 1
    await world.approve(payment.payment_id)
    await world.apply()
    assert await world.status(invoice) == ["processing"]
    assert [await world.capture(), await world.capture()] == [1, 0]
    assert await world.status(invoice) == ["processing"]
    await world.apply()
    assert await world.status(invoice) == ["succeeded"]
    assert await world.books.announced(invoice) == ["payment.settled"]
    # Run again, nothing new.
    for again in (world.charge(invoice), world.tell(), world.capture(), world.apply(), world.janitor(), world.sweep()):
        await again
    assert await world.books.announced(invoice) == ["payment.settled"]
    assert [taken["amount"] for taken in world.paypal.account.ledger()] == ["125.40"]
    assert world.mails == 1


async def test_an_approval_whose_webhook_never_came_is_looked_up_and_captured(world: World) -> None:
    world.set_webhooks(timing="never")
    invoice = await world.add_invoice()
    payment = await world.charge(invoice)
    assert payment is not None
    await world.tell()
    await world.approve(payment.payment_id)
    world.clock.ahead = timedelta(minutes=6)
    await world.janitor()
    assert await world.capture() == 1
    # The capture's webhook never comes either: the sweep brings both, in any order.
    world.clock.ahead += timedelta(minutes=6)
    assert await world.sweep() == 2
    await world.apply()
    assert await world.status(invoice) == ["succeeded"]
    assert await world.books.announced(invoice) == ["payment.settled"]


async def test_who_does_not_approve_in_time_burns_no_retry_and_can_pay_no_more_by_the_old_link(world: World) -> None:
    invoice = await world.add_invoice()
    payment = await world.charge(invoice)
    assert payment is not None
    await world.tell()
    world.clock.ahead = timedelta(hours=1, minutes=29)
    assert await world.remind() == 0
    world.clock.ahead = timedelta(hours=1, minutes=31)
    assert [await world.remind(), await world.remind()] == [1, 0]
    assert (world.mails, world.reminders) == (2, 1)
    world.clock.ahead = timedelta(hours=2, minutes=59)
    assert await world.give_up() == 0
    world.clock.ahead = timedelta(hours=3, minutes=1)
    assert await world.give_up() == 1
    [row] = await world.books.payments_of(invoice)
    assert (row["status"], row["failure_code"]) == ("canceled", AUTHENTICATION_ABANDONED)
    assert await world.books.announced(invoice) == ["payment.failed"]
    # A moment later the payer approves after all: nobody captures it.
    await world.approve(payment.payment_id)
    await world.apply()
    assert await world.capture() == 0
    assert world.paypal.account.ledger() == []
    assert await world.status(invoice) == ["canceled"]


async def test_dunnings_next_attempt_has_a_link_of_its_own_and_both_links_make_one_capture(world: World) -> None:
    invoice = await world.add_invoice()
    first = await world.charge(invoice)
    assert first is not None
    await world.tell()
    world.clock.ahead = timedelta(hours=3, minutes=1)
    await world.give_up()
    second = await charge_invoice(
        invoice,
        store=world.store,
        providers={"paypal": world.provider},
        clock=world.clock,
        retry_of=first.payment_id,
    )
    assert second is not None
    assert (second.attempt, second.status, second.provider_reference != first.provider_reference) == (
        2,
        "requires_action",
        True,
    )
    await world.tell()
    # The payer finds both mails and approves in both.
    await world.approve(first.payment_id)
    await world.approve(second.payment_id)
    await world.apply()
    await world.capture()
    await world.apply()
    assert await world.status(invoice) == ["canceled", "succeeded"]
    assert [taken["custom_id"] for taken in world.paypal.account.ledger()] == [second.payment_id]
    assert await world.books.announced(invoice) == ["payment.failed", "payment.settled"]


async def test_nobody_is_reminded_who_has_approved_although_its_webhook_never_came(world: World) -> None:
    world.set_webhooks(timing="never")
    invoice = await world.add_invoice()
    payment = await world.charge(invoice)
    assert payment is not None
    await world.tell()
    await world.approve(payment.payment_id)
    world.clock.ahead = timedelta(hours=2)
    assert (await world.remind(), world.mails) == (0, 1)
    assert await world.status(invoice) == ["processing"]


async def test_a_payer_who_approved_at_the_last_moment_is_not_given_up(world: World) -> None:
    world.set_webhooks(timing="held")
    invoice = await world.add_invoice()
    payment = await world.charge(invoice)
    assert payment is not None
    await world.tell()
    await world.approve(payment.payment_id)
    world.clock.ahead = timedelta(hours=3, minutes=1)
    assert await world.give_up() == 0
    assert await world.capture() == 1
    world.paypal.webhooks.release(reverse=True)
    await world.apply()
    assert await world.status(invoice) == ["succeeded"]


async def test_a_declined_instrument_is_a_failure_for_dunning(world: World) -> None:
    invoice = await world.add_invoice()
    payment = await world.charge(invoice)
    assert payment is not None
    await world.tell()
    await world.approve(payment.payment_id, "declined")
    await world.apply()
    assert await world.capture() == 0
    [row] = await world.books.payments_of(invoice)
    assert (row["status"], row["failure_code"]) == ("failed", "instrument_declined")
    assert await world.books.announced(invoice) == ["payment.failed"]
    assert world.paypal.account.ledger() == []


async def test_a_capture_without_an_answer_is_asked_for_again_later_and_made_once(world: World) -> None:
    invoice = await world.add_invoice()
    payment = await world.charge(invoice)
    assert payment is not None
    await world.tell()
    world.set_webhooks(timing="never")
    await world.approve(payment.payment_id)
    world.clock.ahead = timedelta(minutes=6)
    await world.janitor()
    world.paypal.faults.add({"kind": "cut_after", "method": "POST", "path": "/v2/checkout/orders/"})
    assert await world.capture() == 0
    assert await world.capture() == 0  # not yet due
    world.paypal.expire_request_ids()
    world.clock.ahead += timedelta(seconds=31)
    assert await world.capture() == 1
    assert len(world.paypal.account.ledger()) == 1


async def test_another_amount_than_the_one_due_is_refused_and_settles_nothing(world: World) -> None:
    invoice = await world.add_invoice()
    payment = await world.charge(invoice)
    assert payment is not None
    await world.tell()
    order = world.paypal.account.orders[str(payment.provider_reference)]
    order["purchase_units"][0]["amount"]["value"] = "125.39"
    await world.approve(payment.payment_id)
    await world.apply()
    assert await world.status(invoice) == ["requires_action"]
    assert await world.capture() == 0
    order["purchase_units"][0]["amount"]["value"] = "125.40"
    world.clock.ahead = timedelta(minutes=6)
    await world.janitor()
    order["purchase_units"][0]["amount"] = {"currency_code": "EUR", "value": "125.40"}
    await world.capture()
    await world.apply()
    assert await world.status(invoice) == ["processing"]
    events = [event for event in world.paypal.account.events.values() if event["event_type"].endswith("COMPLETED")]
    closed, refusal = await world.books.refusal_of(events[0]["id"])
    assert (closed, (refusal or "").partition(":")[0]) == (True, "amount_mismatch")
    assert await world.books.announced(invoice) == []


async def test_refunds_ours_and_by_hand_are_recorded_once(world: World) -> None:
    _, payment = await settle(world)
    ask = {"store": world.store, "providers": {"paypal": world.provider}, "clock": SystemClock()}
    request = RefundRequest(payment.payment_id, "half", payment.amount.amount / 2, "asked for", "test")
    world.paypal.faults.add({"kind": "cut_after", "method": "POST", "path": "/v2/payments/captures/"})
    with pytest.raises(UnavailableError):
        await refund_payment(request, **ask)  # type: ignore[arg-type]
    refund = await refund_payment(request, **ask)  # type: ignore[arg-type]
    assert (refund.status, str(refund.amount)) == ("succeeded", "62.70 USD")
    await world.apply()
    [taken] = world.paypal.account.ledger()
    await world.paypal.act(
        lambda: world.paypal.account.refund_capture(
            taken["capture"], {"amount": {"currency_code": "USD", "value": "2.70"}}
        )
    )
    await world.apply()
    await world.apply()
    async with world.store.transaction() as unit:
        await unit.lock_payment(payment.payment_id)
        refunds = await unit.refunds_of(payment.payment_id)
    assert [(f"{each.amount.amount}", each.status.value) for each in refunds] == [
        ("62.70", "succeeded"),
        ("2.70", "succeeded"),
    ]
    assert world.paypal.account.ledger()[0]["refunded"] == "65.40"


async def test_a_dispute_is_recorded_with_how_it_ended(world: World) -> None:
    _, payment = await settle(world)
    [taken] = world.paypal.account.ledger()
    for stage, outcome in (("INQUIRY", None), ("CHARGEBACK", None), ("CHARGEBACK", "RESOLVED_BUYER_FAVOUR")):
        await world.paypal.act(
            lambda stage=stage, outcome=outcome: world.paypal.account.dispute(  # type: ignore[misc]
                taken["capture"], stage=stage, outcome=outcome
            )
        )
        await world.apply()
    async with world.store.transaction() as unit:
        await unit.lock_payment(payment.payment_id)
        [dispute] = await unit.disputes_of(payment.payment_id)
    assert (dispute.status, str(dispute.amount), dispute.reason) == ("lost", "125.40 USD", "unauthorised")
