"""Quantities of usage. Owns their bounds and their exact scaled-integer form used in hot loops and in stores.

A quantity is `value x 10^12` as a Python integer (`Decimal(38, 12)` in ClickHouse, a decimal string in JSON, Redis and
the journal), so sums are exact however many events there are.
"""

from __future__ import annotations

from decimal import Decimal

SCALE = 12
UNIT = 10**SCALE
# 10^15 units an event leaves room for 10^11 such events in Decimal(38, 12).
LIMIT = 10**15


def scale_quantity(value: object) -> int | str:
    """Return a JSON quantity as a scaled integer, or the code of its fault.

    Takes an integer, a `Decimal` (how JSON numbers with a fraction arrive) or a decimal string such as "0.25".
    Codes: `invalid_quantity` (not a number, a boolean, NaN), `negative_quantity`, `quantity_out_of_range` (10^15 or
    more), `too_many_digits` (more than 12 decimal places).
    """
    if type(value) is int:
        return value * UNIT if 0 <= value < LIMIT else ("negative_quantity" if value < 0 else "quantity_out_of_range")
    if type(value) is str:
        if len(value) > 64 or not value.isascii():
            return "invalid_quantity"
        if value.isdigit():
            return scale_quantity(int(value))
        try:
            value = Decimal(value)
        except ArithmeticError:
            return "invalid_quantity"
    if type(value) is not Decimal or value.is_nan():
        return "invalid_quantity"
    if value < 0:
        return "negative_quantity"
    if not value < LIMIT:
        return "quantity_out_of_range"
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return "invalid_quantity"
    shift = exponent + SCALE
    number = int("".join(map(str, digits)))
    if shift >= 0:
        # value < LIMIT bounds the shift unless the number is zero (0E+400).
        return number * 10**shift if number else 0
    if shift < -64:
        return "too_many_digits" if number else 0
    whole, rest = divmod(number, 10**-shift)
    return "too_many_digits" if rest else whole


def unscale(scaled: int) -> Decimal:
    """Return a scaled integer as the `Decimal` it stands for, without trailing zeros."""
    whole, rest = divmod(scaled, UNIT)
    if rest == 0:
        return Decimal(whole)
    return Decimal(scaled).scaleb(-SCALE).normalize()


def format_scaled(scaled: int) -> str:
    """Return a scaled integer as a plain decimal string ("1234.5")."""
    return f"{unscale(scaled):f}"
