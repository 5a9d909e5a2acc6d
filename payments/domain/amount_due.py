"""Reads an amount due from `invoice.finalized`. Owns which amounts may be asked of a provider."""

from __future__ import annotations

import re
from decimal import Decimal

from core.errors import Fault, InvalidInputError
from core.money import Money, minor_units, round_to_minor

# Twelve digits before the point is beyond any invoice, and no exponent, sign or blank gets through.
_AMOUNT = re.compile(r"\d{1,12}(\.\d{1,6})?", re.ASCII)


def parse_amount_due(amount: str, currency: str) -> Money:
    """Return the amount due; raises `InvalidInputError` (`unknown_currency`, `invalid_amount`).

    An invoice's total is rounded already, so a fraction of a minor unit means that the message is wrong.
    """
    minor_units(currency)
    if not _AMOUNT.fullmatch(amount):
        raise InvalidInputError([Fault("invalid_amount", f"expected such as 12.50, got {amount[:40]!r}", "amount_due")])
    value = Decimal(amount)
    rounded = round_to_minor(value, currency)
    if rounded != value:
        raise InvalidInputError(
            [Fault("invalid_amount", f"{amount} {currency} has a fraction of a minor unit", "amount_due")]
        )
    return Money(rounded, currency)
