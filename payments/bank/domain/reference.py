"""Finds invoices in what a payer wrote. Owns how tolerant that is: blanks, dashes, case, broken lines do not matter."""

from __future__ import annotations

import re
from functools import lru_cache

from rapidfuzz import fuzz

from core.creditor_reference import creditor_reference

_OTHER = re.compile(r"[^A-Z0-9]")
# What may stand between two characters of a reference: how it was grouped, or where a bank broke the line.
_GAP = r"[^A-Z0-9]{0,3}"
_NEAR_PERCENT = 88


def compact(text: str) -> str:
    """Return the letters and digits of a text, in capitals."""
    return _OTHER.sub("", text.upper())


def names_invoice(number: str, text: str, compacted: str) -> str | None:
    """Return how a text names an invoice: `reference` (RF), `number`, or None. `compacted` is `compact(text)`.

    What follows must not be a digit, or MB-2026-00001 would be found in MB-2026-000012.
    """
    reference, plain = _known_as(number)
    if reference in compacted and _pattern(reference).search(text.upper()):
        return "reference"
    if plain in compacted and _pattern(plain).search(text.upper()):
        return "number"
    return None


def nearly_names_invoice(number: str, compacted: str) -> bool:
    """Tell whether something in the text looks like the invoice's number or reference with a slip of the pen."""
    _, plain = _known_as(number)
    # Behind the series' letters and year numbers differ in their last digits only: a slip there is another number.
    if plain[-3:] not in compacted or len(plain) < 8 or len(compacted) < len(plain) - 1:
        return False
    return fuzz.partial_ratio(plain, compacted) >= _NEAR_PERCENT


@lru_cache(maxsize=65_536)
def _known_as(number: str) -> tuple[str, str]:
    """Return an invoice's reference and its number as compacted texts have them; every entry is held against all."""
    return creditor_reference(number), compact(number)


@lru_cache(maxsize=4096)
def _pattern(plain: str) -> re.Pattern[str]:
    return re.compile(_GAP.join(plain) + r"(?!\d)")
