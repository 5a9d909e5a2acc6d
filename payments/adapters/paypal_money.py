"""Amounts as PayPal writes them. Owns which currencies PayPal takes and with how many decimals.

Source: PayPal's page "Currency codes" (developer.paypal.com/api/rest/reference/currency-codes/): forint, yen and
New Taiwan dollars "do not support decimals", whatever ISO 4217 gives them; every other listed currency has two. A
currency that is not listed cannot be charged. `amount.value` has up to 15 digits before the point (Orders v2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from core.money import Money, minor_units, round_to_minor

_WITHOUT_DECIMALS = frozenset({"HUF", "JPY", "TWD"})
_WITH_DECIMALS = frozenset(
    {
        "AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "ILS", "MXN", "MYR", "NOK", "NZD", "PHP",
        "PLN", "SEK", "SGD", "THB", "USD",
    }
)  # fmt: skip
PAYPAL_CURRENCIES = _WITHOUT_DECIMALS | _WITH_DECIMALS
_VALUE = re.compile(r"\d{1,15}(\.\d{1,4})?", re.ASCII)


def to_paypal_amount(amount: Money) -> dict[str, str] | None:
    """Return an amount in PayPal's form; None if PayPal cannot charge it (currency, or decimals it does not have)."""
    if amount.currency not in PAYPAL_CURRENCIES:
        return None
    places = 0 if amount.currency in _WITHOUT_DECIMALS else 2
    value = amount.amount.quantize(Decimal(1).scaleb(-places))
    if value != amount.amount:
        return None
    return {"currency_code": amount.currency, "value": f"{value:f}"}


def from_paypal_amount(found: Any) -> Money:
    """Return PayPal's amount as money with the currency's ISO places; raises `ValueError` or `InvalidInputError`."""
    if not isinstance(found, Mapping):
        raise ValueError("amount is no object")
    currency, value = found.get("currency_code"), found.get("value")
    if not isinstance(currency, str) or not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise ValueError("currency_code or value is missing or malformed")
    minor_units(currency)
    exact = Decimal(value)
    rounded = round_to_minor(exact, currency)
    if rounded != exact:
        raise ValueError(f"{value} {currency} has a fraction of a minor unit")
    return Money(rounded, currency)
