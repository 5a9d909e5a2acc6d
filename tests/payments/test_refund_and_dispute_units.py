"""Laws of refunds, disputes, card numbers, look-up times and the price list; no engine."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidInputError
from core.messages import PaymentDisputed, PaymentRefunded, decode_message
from core.money import Money
from payments.domain.announcement import announce_dispute, announce_refund
from payments.domain.card_data import holds_card_number, refuse_card_numbers
from payments.domain.dispute import Dispute, DisputeStatus, record_dispute
from payments.domain.note_refund import NoteRefund, NoteRefundStatus, Refundable, spread_refund
from payments.domain.payment import Payment, PaymentStatus, Refusal
from payments.domain.price_list import PlanDocument, list_prices, list_products
from payments.domain.refund import Refund, RefundOutcome, RefundStatus, left_to_refund, record_refund
from payments.domain.schedule import next_check_after

NOW = datetime(2026, 11, 2, 8, 30, tzinfo=UTC)
USD_100 = Money(Decimal("100.00"), "USD")
SETTLED = Payment("pay_1", "inv_1", "acme", 1, "stripe", USD_100, NOW, PaymentStatus.SUCCEEDED, "pi_1", settled_at=NOW)
REFUND = Refund("ref_1", "pay_1", "inv_1", "acme", "stripe", Money(Decimal("40.00"), "USD"), "too much", "clerk", NOW)
DISPUTE = Dispute("dsp_1", "pay_1", "inv_1", "acme", "stripe", "du_1", USD_100, "fraudulent", DisputeStatus.OPENED, NOW)


def told(status: RefundStatus, **changes: object) -> RefundOutcome:
    return RefundOutcome(**{"status": status, "reference": "re_1", "amount": REFUND.amount, **changes})  # type: ignore[arg-type]


def after(*statuses: RefundStatus) -> Refund:
    refund = REFUND
    for status in statuses:
        changed = record_refund(refund, told(status), NOW)
        assert isinstance(changed, Refund)
        refund = changed
    return refund


def test_a_refund_goes_forward_only_and_ends_alike_in_any_order() -> None:
    story = [RefundStatus.PROCESSING, RefundStatus.SUCCEEDED, RefundStatus.FAILED]
    ends = {after(*order, *order).status for order in itertools.permutations(story)}
    assert ends == {RefundStatus.FAILED}
    assert after(RefundStatus.SUCCEEDED, RefundStatus.PROCESSING).settled_at == NOW
    assert after(RefundStatus.SUCCEEDED, RefundStatus.FAILED).settled_at is None


def test_news_of_another_refund_or_amount_are_refused() -> None:
    known = after(RefundStatus.PROCESSING)
    other = record_refund(known, told(RefundStatus.SUCCEEDED, reference="re_2"), NOW)
    assert isinstance(other, Refusal)
    assert other.code == "reference_mismatch"
    less = record_refund(known, told(RefundStatus.SUCCEEDED, amount=Money(Decimal("39.99"), "USD")), NOW)
    assert isinstance(less, Refusal)
    assert less.code == "amount_mismatch"


def test_a_refund_that_came_back_is_told_and_only_then() -> None:
    done = after(RefundStatus.SUCCEEDED)
    first = announce_refund(RefundStatus.PENDING, done, NOW)
    back = announce_refund(RefundStatus.SUCCEEDED, after(RefundStatus.SUCCEEDED, RefundStatus.FAILED), NOW)
    assert first is not None
    assert back is not None
    assert first.event_id != back.event_id
    said = [decode_message(each.payload, PaymentRefunded) for each in (first, back)]
    assert [(each.amount, each.status) for each in said] == [("40.00", "succeeded"), ("40.00", "failed")]
    assert announce_refund(RefundStatus.PENDING, after(RefundStatus.FAILED), NOW) is None


@given(st.lists(st.tuples(st.integers(1, 60), st.sampled_from(list(RefundStatus))), max_size=8))
def test_what_is_left_is_never_more_than_settled_less_all_that_may_have_gone(
    parts: list[tuple[int, RefundStatus]],
) -> None:
    refunds = [
        replace(REFUND, refund_id=f"ref_{number}", amount=Money(Decimal(amount), "USD"), status=status)
        for number, (amount, status) in enumerate(parts)
    ]
    left = left_to_refund(SETTLED, refunds)
    gone = sum(amount for amount, status in parts if status not in {RefundStatus.FAILED, RefundStatus.CANCELED})
    assert left == 100 - gone
    assert left_to_refund(replace(SETTLED, status=PaymentStatus.PROCESSING, settled_at=None), refunds) == 0


@given(st.permutations([DisputeStatus.INQUIRY, DisputeStatus.OPENED, DisputeStatus.OPENED, DisputeStatus.LOST]))
def test_a_disputes_end_does_not_depend_on_the_order_of_its_news(statuses: list[DisputeStatus]) -> None:
    dispute: Dispute | None = None
    said: list[str] = []
    for status in statuses:
        news = replace(DISPUTE, status=status, evidence_due_at=NOW + timedelta(days=9))
        before = dispute.status if dispute else None
        dispute = record_dispute(dispute, news, NOW)
        said += [decode_message(a.payload, PaymentDisputed).status for a in announce_dispute(before, dispute, NOW)]
    assert dispute is not None
    assert (dispute.status, dispute.closed_at) == (DisputeStatus.LOST, NOW)
    # Money is held before it is lost, whatever was heard first.
    assert said == ["opened", "lost"]


def test_an_inquiry_moves_no_money_and_keeps_its_deadline() -> None:
    inquiry = record_dispute(None, replace(DISPUTE, status=DisputeStatus.INQUIRY, evidence_due_at=NOW), NOW)
    assert announce_dispute(None, inquiry, NOW) == []
    closed = record_dispute(inquiry, replace(DISPUTE, status=DisputeStatus.CLOSED), NOW)
    assert (closed.status, closed.evidence_due_at) == (DisputeStatus.CLOSED, NOW)
    assert announce_dispute(inquiry.status, closed, NOW) == []


# Stripe's published test numbers (page "Testing"), written in the ways people write them.
@pytest.mark.parametrize(
    "text",
    [
        "4242424242424242",
        "card 4242 4242 4242 4242 please",
        "4242-4242-4242-4242",
        "378282246310005",
        "6011.1111.1111.1117",
        "4242 4242 4242 4242 12/34",
    ],
)
def test_card_numbers_are_found_and_never_repeated(text: str) -> None:
    assert holds_card_number(text)
    with pytest.raises(InvalidInputError) as refused:
        refuse_card_numbers({"reason": text, "key": "fine"})
    assert [(fault.code, fault.path) for fault in refused.value.faults] == [("card_number", "reason")]
    assert "4242" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "MB-2026-000001", "4242424242424241", "2026-11-02 08:30", "pay_abc234", "1" * 40])
def test_other_numbers_pass(text: str) -> None:
    assert not holds_card_number(text)


def test_look_ups_come_after_five_minutes_an_hour_and_then_daily() -> None:
    first = NOW + timedelta(minutes=5)
    second = next_check_after(1, NOW, first)
    third = next_check_after(2, NOW, second)
    fourth = next_check_after(3, NOW, third)
    assert second == NOW + timedelta(hours=1)
    assert [third - second, fourth - third] == [timedelta(days=1)] * 2


def test_fixed_fees_of_every_version_are_listed_and_usage_is_not() -> None:
    lite = {
        "name": "Lite",
        "currency": "USD",
        "charges": [
            {"id": "base", "name": "Base", "model": "flat", "recurring": {"interval": "month"}, "flat_amount": "99"},
            {"id": "calls", "meter": "calls", "model": "per_unit", "unit_amount": "0.001"},
            {"id": "setup", "model": "flat", "type": "one_time", "flat_amount": "10"},
            {"id": "care", "model": "flat", "recurring": {"interval": "quarter"}, "flat_amount": "30"},
        ],
    }
    renamed = {**lite, "name": "Lite plus", "charges": lite["charges"][:1]}
    versions = [PlanDocument("lite", 1, lite), PlanDocument("lite", 2, renamed)]
    assert [(each.plan_id, each.name) for each in list_products(versions)] == [("lite", "Lite plus")]
    listed = [(price.key, str(price.amount), price.interval, price.every) for price in list_prices(versions)]
    assert listed == [
        ("meterbook:lite@1:base", "99 USD", "month", 1),
        ("meterbook:lite@1:care", "30 USD", "month", 3),
        ("meterbook:lite@1:setup", "10 USD", None, 1),
        ("meterbook:lite@2:base", "99 USD", "month", 1),
    ]


cents = st.integers(0, 10_000).map(lambda units: Decimal(units) / 100)
refundables = st.lists(
    st.tuples(cents, cents, st.booleans(), st.sampled_from(list(RefundStatus))), min_size=0, max_size=5
)


@given(cents, refundables)
def test_a_refund_is_spread_over_payments_to_the_cent_or_not_at_all(amount: Decimal, drawn: list[Any]) -> None:
    payments, left = [], {}
    for number, (settled, gone, is_held, status) in enumerate(drawn):
        payment = replace(
            SETTLED, payment_id=f"pay_{number}", amount=Money(settled, "USD"), created_at=NOW + timedelta(days=number)
        )
        refund = replace(REFUND, amount=Money(min(gone, settled), "USD"), status=status)
        payments.append(Refundable(payment, [refund], is_held))
        left[payment.payment_id] = Decimal(0) if is_held else left_to_refund(payment, [refund])
    parts = spread_refund(amount, payments)
    if parts is None:
        assert sum(left.values(), Decimal(0)) < amount
        return
    assert sum((part for _, part in parts), Decimal(0)) == amount
    assert all(0 < part <= left[payment_id] for payment_id, part in parts)
    # The newest first, and an older one only where the newer are used up.
    assert [name for name, _ in parts] == sorted((name for name, _ in parts), reverse=True)
    assert all(part == left[payment_id] for payment_id, part in parts[:-1])


@given(st.lists(st.sampled_from(list(RefundStatus)), max_size=4), st.integers(0, 4))
def test_a_note_is_owed_what_neither_a_refund_nor_a_credit_covers(statuses: list[RefundStatus], credited: int) -> None:
    refunds = tuple(replace(REFUND, amount=Money(Decimal(10), "USD"), status=status) for status in statuses)
    note = NoteRefund("inv_2", "MB-CN-1", "acme", "USD", Decimal(40), Decimal(10 * credited), "anna", refunds)
    gone = {RefundStatus.FAILED, RefundStatus.CANCELED}
    covered = credited + sum(status not in gone for status in statuses)
    assert note.owed == max(40 - 10 * covered, 0)
    assert (note.status is NoteRefundStatus.OWED) == (covered < 4)
    if covered >= 4:
        is_open = {RefundStatus.PENDING, RefundStatus.PROCESSING} & set(statuses)
        assert note.status is (NoteRefundStatus.PENDING if is_open else NoteRefundStatus.DONE)
