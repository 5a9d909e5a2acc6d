"""Keeps card numbers out: text that a person typed is refused if a card number stands in it.

Source: ISO/IEC 7812-1, numbers of 13 to 19 digits whose last is the Luhn check digit; PCI DSS 3.2.1, requirement 3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from core.errors import Fault, InvalidInputError

# People group the digits by blanks, dots or hyphens.
_RUN = re.compile(r"\d+(?:[ .\-]\d+)*", re.ASCII)
_GROUP = re.compile(r"\d+", re.ASCII)
_SHORTEST, _LONGEST = 13, 19


def holds_card_number(text: str) -> bool:
    """Whether 13 to 19 digits that stand alone, or groups of digits side by side, pass the Luhn check."""
    for run in _RUN.findall(text):
        groups = _GROUP.findall(run)
        for first in range(len(groups)):
            digits = ""
            for group in groups[first:]:
                digits += group
                if len(digits) > _LONGEST:
                    break
                if len(digits) >= _SHORTEST and _is_luhn([int(digit) for digit in digits]):
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
