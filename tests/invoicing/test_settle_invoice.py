"""Money that came in goes onto its invoice, once; money that does not fit is refused with its code."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import ManualClock
from core.errors import InvalidInputError
from core.messages import RETURNED_TRANSFER, PaymentDisputed, PaymentRefunded, PaymentSettled
from invoicing.record_money_back import record_dispute, record_refund
from invoicing.settle_invoice import settle_invoice
from invoicing.settlement_ports import Payable
from tests.invoicing.memory import MemorySettlements

CLOCK = ManualClock(datetime(2026, 11, 4, 10, 5, tzinfo=UTC))


def payable(**changes: Any) -> Payable:
    facts = {"invoice_id": "inv_1", "tenant_id": "acme", "status": "finalized", "currency": "USD"}
    return Payable(**{**facts, "amount_due": Decimal("12.30"), "amount_paid": Decimal(0), **changes})


def settled(**changes: str) -> PaymentSettled:
    facts = {
        "payment_id": "pay_1",
        "invoice_id": "inv_1",
        "tenant_id": "acme",
        "provider": "stripe",
        "provider_reference": "pi_1",
        "currency": "USD",
        "amount": "12.30",
        "settled_at": "2026-11-04T10:00:00Z",
    }
    return PaymentSettled(**{**facts, **changes})


async def settle(settlements: MemorySettlements, **changes: str) -> bool:
    return await settle_invoice(settled(**changes), settlements=settlements, clock=CLOCK)


def state(settlements: MemorySettlements) -> tuple[str, str]:
    invoice = settlements.payables["inv_1"]
    return invoice.status, f"{invoice.amount_paid:f}"


@pytest.mark.parametrize("status", ["finalized", "overdue", "uncollectible"])
async def test_an_open_invoice_is_paid_once(status: str) -> None:
    settlements = MemorySettlements(payable(status=status))
    assert await settle(settlements)
    assert not await settle(settlements), "told again, nothing changes"
    assert state(settlements) == ("paid", "12.30")
    assert settlements.settlements["pay_1"].settled_at.isoformat() == "2026-11-04T10:00:00+00:00"


@pytest.mark.parametrize("status", ["finalized", "overdue", "uncollectible"])
async def test_parts_leave_the_invoice_open_until_the_last(status: str) -> None:
    settlements = MemorySettlements(payable(status=status))
    assert await settle(settlements, payment_id="pay_1", amount="5.00")
    assert await settle(settlements, payment_id="pay_2", amount="7.00")
    assert not await settle(settlements, payment_id="pay_1", amount="5.00")
    assert state(settlements) == (status, "12.00")  # 5.00 + 7.00 of 12.30
    with pytest.raises(InvalidInputError, match="amount_mismatch"):
        await settle(settlements, payment_id="pay_3", amount="0.31")
    assert await settle(settlements, payment_id="pay_3", amount="0.30")
    assert state(settlements) == ("paid", "12.30")
    with pytest.raises(InvalidInputError, match="amount_mismatch"):
        await settle(settlements, payment_id="pay_4", amount="0.01")


@given(st.lists(st.integers(min_value=1, max_value=400), min_size=1, max_size=12), st.randoms())
async def test_parts_in_any_order_with_repeats_pay_at_most_what_is_due(cents: list[int], random: Any) -> None:
    settlements = MemorySettlements(payable())
    parts = [(f"pay_{place}", f"{Decimal(one).scaleb(-2)}") for place, one in enumerate(cents)]
    told = parts + parts
    random.shuffle(told)
    for payment_id, amount in told:
        known, left = payment_id in settlements.settlements, settlements.payables["inv_1"].amount_open
        if known or Decimal(amount) <= left:
            assert await settle(settlements, payment_id=payment_id, amount=amount) is not known
        else:
            with pytest.raises(InvalidInputError, match="amount_mismatch"):
                await settle(settlements, payment_id=payment_id, amount=amount)
    invoice = settlements.payables["inv_1"]
    assert invoice.amount_paid == sum(one.amount for one in settlements.settlements.values()) <= invoice.amount_due
    assert (invoice.status == "paid") == (invoice.amount_paid == invoice.amount_due)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"invoice_id": "inv_2"}, "unknown_invoice"),
        ({"tenant_id": "other"}, "tenant_mismatch"),
        ({"currency": "EUR"}, "currency_mismatch"),
        ({"currency": "usd"}, "unknown_currency"),
        ({"amount": "12.31"}, "amount_mismatch"),
        ({"amount": "twelve"}, "invalid_amount"),
        ({"amount": "NaN"}, "invalid_amount"),
        ({"amount": "Infinity"}, "invalid_amount"),
        ({"amount": "1e400"}, "invalid_amount"),
        ({"amount": "0"}, "invalid_amount"),
        ({"amount": "-12.30"}, "invalid_amount"),
        ({"amount": "12.301"}, "invalid_amount"),
        ({"settled_at": "yesterday"}, "invalid_time"),
        ({"settled_at": "2026-11-04T10:00:00"}, "invalid_time"),
    ],
)
async def test_money_that_does_not_fit_is_refused(change: dict[str, str], code: str) -> None:
    settlements = MemorySettlements(payable())
    with pytest.raises(InvalidInputError) as refused:
        await settle(settlements, **change)
    assert refused.value.faults[0].code == code
    assert settlements.settlements == {}


@pytest.mark.parametrize("change", [{"amount": "12.29"}, {"provider": "paypal"}, {"invoice_id": "inv_2"}])
async def test_a_payment_known_otherwise_is_refused(change: dict[str, str]) -> None:
    settlements = MemorySettlements(payable(), payable(invoice_id="inv_2"))
    await settle(settlements)
    with pytest.raises(InvalidInputError, match="settled_otherwise"):
        await settle(settlements, **change)


@pytest.mark.parametrize("status", ["void", "draft"])
async def test_a_closed_invoice_takes_no_money(status: str) -> None:
    settlements = MemorySettlements(payable(status=status))
    with pytest.raises(InvalidInputError, match="not_payable"):
        await settle(settlements)


# Afterwards


def refunded(**changes: Any) -> PaymentRefunded:
    facts = {
        "refund_id": "ref_1",
        "payment_id": "pay_1",
        "invoice_id": "inv_1",
        "tenant_id": "acme",
        "provider": "stripe",
        "provider_reference": "re_1",
        "currency": "USD",
        "amount": "6.15",
        "reason": "half of it did not work",
        "at": "2026-11-05T10:00:00Z",
    }
    return PaymentRefunded(**{**facts, **changes})


def disputed(**changes: Any) -> PaymentDisputed:
    facts = {
        "dispute_id": "dsp_1",
        "payment_id": "pay_1",
        "invoice_id": "inv_1",
        "tenant_id": "acme",
        "provider": "stripe",
        "provider_reference": "du_1",
        "currency": "USD",
        "amount": "12.30",
        "status": "opened",
        "reason": "fraudulent",
        "evidence_due_at": "",
        "at": "2026-11-06T10:00:00Z",
    }
    return PaymentDisputed(**{**facts, **changes})


async def test_refunds_and_disputes_are_recorded_once_and_open_nothing_again() -> None:
    settlements = MemorySettlements(payable())
    await settle(settlements)
    for message in (refunded(), refunded(status="failed", at="2026-11-09T10:00:00Z")):
        assert await record_refund(message, settlements=settlements, clock=CLOCK)
        assert not await record_refund(message, settlements=settlements, clock=CLOCK)
    # The bank names another amount at the end: the end is over what the dispute was opened for.
    for message in (disputed(), disputed(status="lost", amount="11.90", currency="EUR")):
        assert await record_dispute(message, settlements=settlements, clock=CLOCK)
        assert not await record_dispute(message, settlements=settlements, clock=CLOCK)
    assert [(kind, f"{one.amount} {one.currency}") for (kind, _), one in settlements.changes.items()] == [
        ("refund", "6.15 USD"),
        ("refund_failed", "6.15 USD"),
        ("dispute_opened", "12.30 USD"),
        ("dispute_lost", "12.30 USD"),
    ]
    assert state(settlements) == ("paid", "12.30")


async def test_a_transfer_that_its_bank_took_back_is_owed_again() -> None:
    settlements = MemorySettlements(payable())
    await settle(settlements, provider="wire")
    # Somebody wrote the same words about a card payment: that is a refund.
    assert await record_refund(refunded(reason=RETURNED_TRANSFER), settlements=settlements, clock=CLOCK)
    assert state(settlements) == ("paid", "12.30")
    back = refunded(refund_id="ref_2", provider="wire", reason=RETURNED_TRANSFER)
    assert await record_refund(back, settlements=settlements, clock=CLOCK)
    assert not await record_refund(back, settlements=settlements, clock=CLOCK)
    # 12.30 - 6.15 = 6.15
    assert state(settlements) == ("finalized", "6.15")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (refunded(invoice_id="inv_2"), "unknown_invoice"),
        (refunded(tenant_id="other"), "tenant_mismatch"),
        (refunded(currency="EUR"), "currency_mismatch"),
        (refunded(amount="6.155"), "invalid_amount"),
        (refunded(amount="7.00"), "recorded_otherwise"),
        (refunded(refund_id="ref_2", status="failed"), "unknown_refund"),
        (refunded(at="soon"), "invalid_time"),
        (disputed(tenant_id="other"), "tenant_mismatch"),
        (disputed(status="won"), "unknown_dispute"),
    ],
)
async def test_what_does_not_fit_is_refused(message: PaymentRefunded | PaymentDisputed, code: str) -> None:
    settlements = MemorySettlements(payable())
    await settle(settlements)
    await record_refund(refunded(), settlements=settlements, clock=CLOCK)
    record: Any = record_refund if isinstance(message, PaymentRefunded) else record_dispute
    with pytest.raises(InvalidInputError) as refused:
        await record(message, settlements=settlements, clock=CLOCK)
    assert refused.value.faults[0].code == code
    assert len(settlements.changes) == 1
