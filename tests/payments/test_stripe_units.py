"""Stripe's integer units (ISO 4217's minor units, but for three currencies), and what its errors say."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.money import MINOR_UNITS, Money
from payments.adapters.stripe_amounts import from_stripe_amount, to_stripe_amount
from payments.adapters.stripe_errors import read_error


@pytest.mark.parametrize(
    ("amount", "currency", "units"),
    [
        ("12.50", "USD", 1_250),
        ("1250", "JPY", 1_250),
        ("9.990", "KWD", 9_990),
        ("5", "ISK", 500),  # no minor unit, and yet Stripe counts in hundredths
        ("5", "UGX", 500),
        ("5.00", "MGA", 5),  # two places in ISO 4217, none at Stripe: 500 would be a hundredfold
        ("5.20", "MGA", None),  # a fifth, which Stripe cannot charge
    ],
)
def test_amounts_go_in_the_units_stripe_counts_in(amount: str, currency: str, units: int | None) -> None:
    assert to_stripe_amount(Money(Decimal(amount), currency)) == units


@given(st.sampled_from(sorted(MINOR_UNITS)), st.integers(0, 10**9))
def test_what_was_asked_for_comes_back(currency: str, whole: int) -> None:
    asked = Money(Decimal(whole), currency)
    units = to_stripe_amount(asked)
    assert units is not None
    assert from_stripe_amount(units, currency) == asked


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (
            {"code": "card_declined", "message": "No.", "decline_code": "do_not_honor"},
            "card_declined",
            "No. (do_not_honor)",
        ),
        ({"code": "expired_card", "message": "Expired.", "decline_code": "expired_card"}, "expired_card", "Expired."),
        # Off-session, the issuer asks twice for what nobody was there to do: the payer's lane, not a decline.
        (
            {"code": "card_declined", "message": "No.", "decline_code": "authentication_not_handled"},
            "authentication_required",
            "No. (authentication_not_handled)",
        ),
        (
            {"code": "card_declined", "message": "No.", "decline_code": "authentication_required"},
            "authentication_required",
            "No. (authentication_required)",
        ),
        (None, None, None),
    ],
)
def test_what_an_error_object_says(error: object, code: str | None, reason: str | None) -> None:
    assert read_error(error) == (code, reason)
