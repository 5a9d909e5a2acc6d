"""Keeps card numbers out: text that a person typed is refused if a card number stands in it.

Source: ISO/IEC 7812-1, numbers of 13 to 19 digits whose last is the Luhn check digit; PCI DSS 3.2.1, requirement 3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from core.errors import Fault, InvalidInputError

# People group the digits by blanks, dots or hyphens.
_RUN = re.compile(r"\d(?:[ .\-]?\d){12,}")
_SHORTEST, _LONGEST = 13, 19


def holds_card_number(text: str) -> bool:
    """Whether a run of 13 to 19 digits in the text passes the Luhn check; also inside a longer run of digits."""
    for run in _RUN.findall(text):
        digits = [int(letter) for letter in run if letter.isdigit()]
        for length in range(_SHORTEST, min(_LONGEST, len(digits)) + 1):
            if any(_is_luhn(digits[start : start + length]) for start in range(len(digits) - length + 1)):
                return True
    return False


def refuse_card_numbers(fields: Mapping[str, str]) -> None:
    """Raise `InvalidInputError` (`card_number`) naming every field that holds one; the value is never repeated."""
    faults = [
        Fault("card_number", "card numbers are never taken here: use the payment provider's own form", name)
        for name, value in fields.items()
        if holds_card_number(value)
    ]
    if faults:
        raise InvalidInputError(faults)


def _is_luhn(digits: list[int]) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0
