"""Money. Owns minor units and rounding: exact amounts stay exact until `round_to_minor`, once, at the line item.

Float never comes near: `core.exact_decimals` sets the process's decimal context (60 digits, mixing in floats traps).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from core.errors import Fault, InvalidInputError, must_hold

# ISO 4217 minor units of the currencies that can be priced in now; an unknown currency is refused, never guessed.
MINOR_UNITS: dict[str, int] = {
    "BRL": 2, "CAD": 2, "CHF": 2, "CLF": 4, "CLP": 0, "EUR": 2, "GBP": 2, "JPY": 0, "KWD": 3, "MXN": 2, "USD": 2,
}  # fmt: skip


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
    """Round half up (away from zero on a tie) to the currency's minor unit."""
    return amount.quantize(Decimal(1).scaleb(-minor_units(currency)), rounding=ROUND_HALF_UP)


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
