"""A settled payment closes its invoice, once; money that does not fit is refused with its code."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from core.errors import InvalidInputError
from core.messages import PaymentSettled
from invoicing.mark_invoice_paid import mark_invoice_paid
from invoicing.ports import Payable
from tests.invoicing.memory import MemorySettlements


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


@pytest.mark.parametrize("status", ["finalized", "overdue"])
async def test_an_open_invoice_is_paid_once(status: str) -> None:
    settlements = MemorySettlements(payable(status=status))
    assert await mark_invoice_paid(settled(), settlements=settlements)
    assert not await mark_invoice_paid(settled(), settlements=settlements), "told again, nothing changes"
    assert [(invoice, str(amount), at.isoformat()) for invoice, amount, at in settlements.paid] == [
        ("inv_1", "12.30", "2026-11-04T10:00:00+00:00")
    ]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"invoice_id": "inv_2"}, "unknown_invoice"),
        ({"tenant_id": "other"}, "tenant_mismatch"),
        ({"currency": "EUR"}, "currency_mismatch"),
        ({"amount": "12.29"}, "amount_mismatch"),
        ({"amount": "12.31"}, "amount_mismatch"),
        ({"amount": "twelve"}, "invalid_amount"),
        ({"amount": "NaN"}, "invalid_amount"),
        ({"settled_at": "yesterday"}, "invalid_time"),
        ({"settled_at": "2026-11-04T10:00:00"}, "invalid_time"),
    ],
)
async def test_money_that_does_not_fit_is_refused(change: dict[str, str], code: str) -> None:
    settlements = MemorySettlements(payable())
    with pytest.raises(InvalidInputError) as refused:
        await mark_invoice_paid(settled(**change), settlements=settlements)
    assert refused.value.faults[0].code == code
    assert settlements.paid == []


@pytest.mark.parametrize("status", ["void", "uncollectible", "draft"])
async def test_a_closed_invoice_takes_no_money(status: str) -> None:
    settlements = MemorySettlements(payable(status=status))
    with pytest.raises(InvalidInputError) as refused:
        await mark_invoice_paid(settled(), settlements=settlements)
    assert refused.value.faults[0].code == "not_payable"
