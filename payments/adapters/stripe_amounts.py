"""Amounts as Stripe counts them. Source: page "Supported currencies", zero-decimal currencies and special cases."""

from __future__ import annotations

from decimal import Decimal

from core.money import Money, from_minor, minor_units, to_minor

# Where Stripe counts in other units than ISO 4217: ariary without their fifths, krónur and Ugandan shillings in
# hundredths that must be whole.
_STRIPES_PLACES = {"ISK": 2, "MGA": 0, "UGX": 2}


def to_stripe_amount(amount: Money) -> int | None:
    """Return an amount in the integer units Stripe counts in; None if it has a fraction of them."""
    more = _STRIPES_PLACES.get(amount.currency, minor_units(amount.currency)) - minor_units(amount.currency)
    units = to_minor(amount.amount, amount.currency)
    if more >= 0:
        return int(units * 10**more)
    whole, rest = divmod(units, 10**-more)
    return None if rest else whole


def from_stripe_amount(units: int, currency: str) -> Money:
    """Return Stripe's integer units as money; raises `InvalidInputError` (`unknown_currency`)."""
    places = _STRIPES_PLACES.get(currency)
    if places is None:
        return Money(from_minor(units, currency), currency)
    return Money(Decimal(units).scaleb(-places), currency)


def to_stripe_decimal(amount: Money) -> Decimal | None:
    """Return a price in Stripe's units, exactly; None beyond the 12 decimal places Stripe keeps of a price."""
    places = _STRIPES_PLACES.get(amount.currency, minor_units(amount.currency))
    units = amount.amount.scaleb(places).normalize()
    exponent = units.as_tuple().exponent
    return units if isinstance(exponent, int) and exponent >= -12 else None
