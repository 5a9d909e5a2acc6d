"""Money. Owns minor units and rounding: exact amounts stay exact until `round_to_minor`, once, at the line item.

Float never comes near: `core.exact_decimals` sets the process's decimal context (60 digits, mixing in floats traps).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from core.errors import Fault, InvalidInputError, must_hold

# ISO 4217, list one, as of February 2026: all current codes that have a minor unit, by its decimal places. Codes
# without one (XAU is gold, XXX no currency) and withdrawn ones are not here and refused, never guessed. Not CLDR's
# table, whose places are what people write, not what the currency has (docs/decisions/0023).
_CODES_BY_PLACES: dict[int, str] = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW "
        "CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF "
        "IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK "
        "MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP "
        "SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG "
        "YER ZAR ZMW ZWG"
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
MINOR_UNITS: dict[str, int] = {code: places for places, codes in _CODES_BY_PLACES.items() for code in codes.split()}
# One minor unit of each, made once: every line is rounded to it.
# More digits before the point than any sum of money has.
_DIGITS_MAX = 20
_STEPS = {code: Decimal(1).scaleb(-places) for code, places in MINOR_UNITS.items()}


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in a currency; exact, possibly with more digits than the currency's minor unit."""

    amount: Decimal
    currency: str

    def __post_init__(self) -> None:
        must_hold(isinstance(self.amount, Decimal) and self.amount.is_finite(), "money needs a finite Decimal")
        minor_units(self.currency)

    def __add__(self, other: Money) -> Money:
        must_hold(self.currency == other.currency, f"cannot add {other.currency} to {self.currency}")
        return Money(self.amount + other.amount, self.currency)

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency}"

    def rounded(self) -> Money:
        """Return the amount rounded half up to the currency's minor unit."""
        return Money(round_to_minor(self.amount, self.currency), self.currency)


def minor_units(currency: str) -> int:
    """Return the decimal places of `currency` (ISO 4217); raises `InvalidInputError` (`unknown_currency`)."""
    try:
        return MINOR_UNITS[currency]
    except KeyError:
        raise InvalidInputError([Fault("unknown_currency", f"unknown currency {currency!r}", "currency")]) from None


def round_to_minor(amount: Decimal, currency: str) -> Decimal:
    """Round half up (away from zero on a tie) to the currency's minor unit; raises `InvalidInputError`."""
    step = _STEPS.get(currency) or Decimal(1).scaleb(-minor_units(currency))
    return amount.quantize(step, rounding=ROUND_HALF_UP)


def is_whole_minor(amount: Decimal, currency: str) -> bool:
    """Tell whether an amount has no fraction of a minor unit; no to NaN and to what is beyond any sum of money.

    For amounts that people and providers name: what is too large to be rounded is an answer, not an error.
    """
    return amount.is_finite() and amount.adjusted() < _DIGITS_MAX and round_to_minor(amount, currency) == amount


def to_minor(amount: Decimal, currency: str) -> int:
    """Return a rounded amount as an integer of minor units (cents), as payment providers want it."""
    scaled = amount.scaleb(minor_units(currency))
    must_hold(scaled == scaled.to_integral_value(), f"{amount} {currency} has a fraction of a minor unit")
    return int(scaled)


def from_minor(minor: int, currency: str) -> Decimal:
    """Return an integer of minor units as an amount with the currency's decimal places."""
    return Decimal(minor).scaleb(-minor_units(currency))


def allocate(total: Decimal, weights: list[Decimal], currency: str) -> list[Decimal]:
    """Split a rounded total by weights so that the parts add up to it exactly.

    Largest remainder: each part is cut to the minor unit, the left-over units go to the largest fractions, earlier
    parts first on a tie. Weights must not be negative and must not all be zero.
    """
    must_hold(all(weight >= 0 for weight in weights) and sum(weights) > 0, "weights must be positive")
    units = to_minor(abs(total), currency)
    whole = sum(weights, Decimal(0))
    exact = [units * weight / whole for weight in weights]
    parts = [int(part) for part in exact]
    order = sorted(range(len(weights)), key=lambda i: (parts[i] - exact[i], i))
    for index in order[: units - sum(parts)]:
        parts[index] += 1
    sign = -1 if total < 0 else 1
    return [from_minor(sign * part, currency) for part in parts]
