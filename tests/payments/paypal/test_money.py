"""PayPal's decimals: its own list, not ISO 4217's."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidInputError
from core.money import Money
from payments.adapters.paypal_money import PAYPAL_CURRENCIES, from_paypal_amount, to_paypal_amount


@pytest.mark.parametrize(
    ("amount", "currency", "value"),
    [
        ("12.50", "USD", "12.50"),
        ("12", "EUR", "12.00"),
        ("1250", "JPY", "1250"),
        # Two places in ISO 4217, none at PayPal: 1,250 forint go, 12 forint 50 fillér do not.
        ("1250.00", "HUF", "1250"),
        ("12.50", "HUF", None),
        ("300.00", "TWD", "300"),
        ("300.10", "TWD", None),
        # PayPal does not take them at all.
        ("1.234", "KWD", None),
        ("100", "KRW", None),
        ("12.50", "RON", None),
    ],
)
def test_amounts_go_with_paypals_decimals(amount: str, currency: str, value: str | None) -> None:
    found = to_paypal_amount(Money(Decimal(amount), currency))
    assert found == (None if value is None else {"currency_code": currency, "value": value})


@given(st.sampled_from(sorted(PAYPAL_CURRENCIES)), st.integers(1, 10**9))
def test_what_was_asked_for_comes_back(currency: str, whole: int) -> None:
    asked = Money(Decimal(whole), currency).rounded()
    sent = to_paypal_amount(asked)
    assert from_paypal_amount(sent) == asked


@pytest.mark.parametrize(
    "found",
    [
        None,
        {},
        {"currency_code": "USD"},
        {"currency_code": "USD", "value": 12.5},
        {"currency_code": "USD", "value": "1e3"},
        {"currency_code": "USD", "value": "-1.00"},
        {"currency_code": "USD", "value": "1,00"},
        {"currency_code": "USD", "value": "NaN"},
        {"currency_code": "USD", "value": "1.005"},
        {"currency_code": "JPY", "value": "1.5"},
        {"currency_code": "ZZZ", "value": "1.00"},
        {"currency_code": None, "value": "1.00"},
        {"currency_code": "USD", "value": "٣.00"},
    ],
)
def test_an_amount_that_cannot_be_one_is_refused(found: object) -> None:
    with pytest.raises((ValueError, InvalidInputError)):
        from_paypal_amount(found)
