"""Finds invoices in what a payer wrote. Owns how tolerant that is: blanks, dashes, case, broken lines do not matter."""

from __future__ import annotations

import re
from functools import lru_cache

from rapidfuzz import fuzz

from core.creditor_reference import creditor_reference

_OTHER = re.compile(r"[^A-Z0-9]")
# What may stand between two characters of a reference: how it was grouped, or where a bank broke the line.
_GAP = r"[^A-Z0-9]{0,3}"
# A reference as somebody meant it: RF, two digits and more. Its check digits tell whether it was mistyped.
_MEANT = re.compile(r"RF\d{2}[A-Z0-9]{1,21}")
_NEAR_PERCENT = 88.0


def compact(text: str) -> str:
    """Return the letters and digits of a text, in capitals."""
    return _OTHER.sub("", text.upper())


def names_invoice(number: str, text: str, compacted: str) -> str | None:
    """Return how a text names an invoice: `reference` (RF), `number`, or None. `compacted` is `compact(text)`.

    What follows must not be a digit, or MB-2026-00001 would be found in MB-2026-000012.
    """
    reference = creditor_reference(number)
    if reference in compacted and _pattern(reference).search(text.upper()):
        return "reference"
    plain = compact(number)
    if plain in compacted and _pattern(plain).search(text.upper()):
        return "number"
    return None


def nearly_names_invoice(number: str, compacted: str) -> bool:
    """Tell whether something in the text looks like the invoice's number or reference with a slip of the pen."""
    plain = compact(number)
    # Behind the series' letters and year numbers differ in their last digits only: a slip there is another number.
    if len(plain) < 8 or len(compacted) < len(plain) - 1:
        return False
    return fuzz.partial_ratio(plain, compacted) >= _NEAR_PERCENT and plain[-3:] in compacted


def meant_references(compacted: str) -> list[str]:
    """Return what looks like a creditor reference in a compacted text, right or wrong."""
    return _MEANT.findall(compacted)


@lru_cache(maxsize=4096)
def _pattern(plain: str) -> re.Pattern[str]:
    return re.compile(_GAP.join(plain) + r"(?!\d)")
