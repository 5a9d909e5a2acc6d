"""The life of a payment: webhooks come twice and in any order, and the end is the same."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BrokenInvariantError, InvalidInputError
from core.messages import PaymentFailed, PaymentSettled, decode_message
from core.money import Money
from payments.domain.amount_due import parse_amount_due
from payments.domain.announcement import announce_change
from payments.domain.payment import (
    Outcome,
    Payment,
    PaymentStatus,
    Refusal,
    fail,
    payment_id_of,
    record_answer,
    record_webhook,
)

NOW = datetime(2026, 11, 2, 8, 30, tzinfo=UTC)
DUE = Money(Decimal("125.40"), "USD")
PENDING = Payment(
    payment_id="pay_1",
    invoice_id="inv_1",
    tenant_id="acme",
    attempt=1,
    provider="stripe",
    amount=DUE,
    created_at=NOW,
)


def outcome(status: PaymentStatus, **changes: object) -> Outcome:
    code = "card_declined" if status is PaymentStatus.FAILED else None
    return Outcome(**{"status": status, "reference": "pi_1", "amount": DUE, "failure_code": code, **changes})  # type: ignore[arg-type]


def after_webhooks(*statuses: PaymentStatus, payment: Payment = PENDING) -> Payment:
    for status in statuses:
        changed = record_webhook(payment, outcome(status), NOW)
        assert isinstance(changed, Payment)
        payment = changed
    return payment


def test_an_answer_of_success_is_only_processing_and_the_webhook_settles() -> None:
    answered = record_answer(PENDING, outcome(PaymentStatus.SUCCEEDED))
    assert isinstance(answered, Payment)
    assert (answered.status, answered.provider_reference, answered.settled_at) == ("processing", "pi_1", None)
    settled = after_webhooks(PaymentStatus.SUCCEEDED, payment=answered)
    assert (settled.status, settled.settled_at) == ("succeeded", NOW)


def test_an_answer_that_a_webhook_overtook_changes_nothing() -> None:
    for overtaken_by in (PaymentStatus.SUCCEEDED, PaymentStatus.FAILED, PaymentStatus.REQUIRES_ACTION):
        ahead = after_webhooks(overtaken_by)
        for answer in (PaymentStatus.SUCCEEDED, PaymentStatus.FAILED, PaymentStatus.PROCESSING):
            assert record_answer(ahead, outcome(answer)) is ahead


@given(
    st.lists(st.sampled_from(sorted(set(PaymentStatus) - {PaymentStatus.PENDING, PaymentStatus.CANCELED})), max_size=8)
)
def test_once_the_money_came_no_order_of_webhooks_takes_it_back(statuses: list[PaymentStatus]) -> None:
    end = after_webhooks(*statuses)
    if PaymentStatus.SUCCEEDED in statuses:
        assert end.status is PaymentStatus.SUCCEEDED
        assert end.failure_code is None
    else:
        assert end.settled_at is None


def test_every_order_and_repetition_of_one_story_ends_alike() -> None:
    story = [PaymentStatus.PROCESSING, PaymentStatus.FAILED, PaymentStatus.SUCCEEDED]
    ends = {after_webhooks(*order, *order) for order in itertools.permutations(story)}
    assert {end.status for end in ends} == {PaymentStatus.SUCCEEDED}
    assert len(ends) == 1


def test_a_decline_keeps_its_code_and_a_repeat_changes_nothing() -> None:
    declined = after_webhooks(PaymentStatus.FAILED)
    assert (declined.status, declined.failure_code) == ("failed", "card_declined")
    assert after_webhooks(PaymentStatus.FAILED, PaymentStatus.PROCESSING, payment=declined) == declined


def test_another_amount_currency_or_intent_is_refused_and_changes_nothing() -> None:
    cent_less = outcome(PaymentStatus.SUCCEEDED, amount=Money(Decimal("125.39"), "USD"))
    assert record_webhook(PENDING, cent_less, NOW) == Refusal(
        "amount_mismatch", "125.40 USD is due, the provider says 125.39 USD"
    )
    in_euro = record_webhook(PENDING, outcome(PaymentStatus.SUCCEEDED, amount=Money(Decimal("125.40"), "EUR")), NOW)
    assert isinstance(in_euro, Refusal)
    assert in_euro.code == "amount_mismatch"
    known = after_webhooks(PaymentStatus.PROCESSING)
    other = record_webhook(known, outcome(PaymentStatus.SUCCEEDED, reference="pi_2"), NOW)
    assert isinstance(other, Refusal)
    assert other.code == "reference_mismatch"
    without_amount = record_webhook(PENDING, outcome(PaymentStatus.SUCCEEDED, amount=None), NOW)
    assert isinstance(without_amount, Refusal)


def test_only_a_pending_payment_can_be_failed_without_the_provider() -> None:
    assert fail(PENDING, "no_payment_method", "none").status is PaymentStatus.FAILED
    settled = after_webhooks(PaymentStatus.SUCCEEDED)
    assert fail(settled, "no_payment_method", "none") is settled


def test_each_change_has_one_announcement_with_one_identity() -> None:
    settled = after_webhooks(PaymentStatus.SUCCEEDED)
    told = announce_change(PaymentStatus.PROCESSING, settled, NOW)
    assert told is not None
    assert told == announce_change(PaymentStatus.FAILED, settled, NOW)
    message = decode_message(told.payload, PaymentSettled)
    assert (message.amount, message.currency, message.settled_at) == ("125.40", "USD", "2026-11-02T08:30:00Z")
    failed = fail(PENDING, "no_payment_method", "none")
    told = announce_change(PaymentStatus.PENDING, failed, NOW)
    assert told is not None
    assert decode_message(told.payload, PaymentFailed).code == "no_payment_method"
    assert announce_change(PaymentStatus.FAILED, failed, NOW) is None
    assert announce_change(PaymentStatus.PENDING, after_webhooks(PaymentStatus.PROCESSING), NOW) is None


def test_success_without_an_instant_stops_the_work() -> None:
    from dataclasses import replace

    broken = replace(PENDING, status=PaymentStatus.SUCCEEDED)
    with pytest.raises(BrokenInvariantError):
        announce_change(PaymentStatus.PENDING, broken, NOW)


def test_one_attempt_has_one_key() -> None:
    assert payment_id_of("inv_1", 1) == payment_id_of("inv_1", 1)
    assert len({payment_id_of("inv_1", 1), payment_id_of("inv_1", 2), payment_id_of("inv_11", 1)}) == 3


@pytest.mark.parametrize(
    ("amount", "currency", "code"),
    [
        ("12.345", "USD", "invalid_amount"),
        ("0.5", "JPY", "invalid_amount"),
        ("-1.00", "USD", "invalid_amount"),
        ("1e400", "USD", "invalid_amount"),
        ("NaN", "USD", "invalid_amount"),
        ("", "USD", "invalid_amount"),
        ("1,5", "USD", "invalid_amount"),
        ("٣.00", "USD", "invalid_amount"),
        ("1.00", "XXX", "unknown_currency"),
    ],
)
def test_an_amount_that_cannot_be_due_is_refused(amount: str, currency: str, code: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse_amount_due(amount, currency)
    assert refused.value.faults[0].code == code


def test_amounts_keep_their_currencys_minor_units() -> None:
    assert str(parse_amount_due("12.5", "USD")) == "12.50 USD"
    assert str(parse_amount_due("12.0", "JPY")) == "12 JPY"
    assert str(parse_amount_due("1.234", "KWD")) == "1.234 KWD"
    assert parse_amount_due("0.00", "USD").amount == 0
