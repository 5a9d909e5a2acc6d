"""Amounts and currencies as Stripe takes them (page "Supported currencies"). Integer minor units only."""

from __future__ import annotations

from typing import Any

from tests.standins.stripe_errors import invalid
from tests.standins.stripe_params import read_integer

# Page "Supported currencies", presentment currencies.
_NAMES = (
    "usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd cad cdf "
    "chf clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl htg huf "
    "idr ils inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop "
    "mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd "
    "scr sek sgd shp sle sos srd std szl thb tjs tnd top try ttd twd tzs uah ugx uyu uzs vnd vuv wst xaf xcd xof "
    "xpf yer zar zmw"
)
CURRENCIES = frozenset(_NAMES.split())
# Page "Supported currencies", three-decimal currencies: the last digit of the amount must be 0.
THREE_DECIMAL = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})
# Page "Supported currencies", minimum and maximum charge amounts.
MINIMUM = {
    "usd": 50, "aed": 200, "aud": 50, "bgn": 100, "brl": 50, "cad": 50, "chf": 50, "czk": 1500, "dkk": 250, "eur": 50,
    "gbp": 30, "hkd": 400, "huf": 17500, "inr": 50, "jpy": 50, "mxn": 1000, "myr": 200, "nok": 300, "nzd": 50,
    "pln": 200, "ron": 200, "sek": 300, "sgd": 50, "thb": 1000,
}  # fmt: skip
# API reference, PaymentIntent `amount`: up to eight digits.
MAXIMUM = 99_999_999


def read_currency(value: Any) -> str:
    """Read a currency: three letters, lower case (API reference, PaymentIntent `currency`), one Stripe supports."""
    if not isinstance(value, str) or value not in CURRENCIES:
        message = f"Invalid currency: {value}. Expected a supported three-letter code in lower case."
        raise invalid(message, param="currency")
    return value


def read_amount(value: Any, currency: str) -> int:
    """Read an amount in the currency's minor unit (page "Error codes": amount_too_small, amount_too_large)."""
    amount = read_integer(value, "amount")
    if amount < 1:
        message = "This value must be greater than or equal to 1."
        raise invalid(message, param="amount", code="parameter_invalid_integer")
    if amount < MINIMUM.get(currency, 1):
        message = f"Amount must be at least {MINIMUM[currency]} in the minor unit of {currency}"
        raise invalid(message, param="amount", code="amount_too_small")
    if amount > MAXIMUM:
        message = f"Amount must be no more than {MAXIMUM} in the minor unit of {currency}"
        raise invalid(message, param="amount", code="amount_too_large")
    if currency in THREE_DECIMAL and amount % 10:
        message = f"Amounts in {currency} must end in 0"
        raise invalid(message, param="amount", code="parameter_invalid_integer")
    return amount
