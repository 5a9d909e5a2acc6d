"""References that a payer writes on a transfer. Owns how an invoice's number becomes one that a bank can check.

ISO 11649, "Structured creditor reference to remittance information": `RF`, two check digits (ISO 7064, mod 97-10), up
to 21 letters and digits.
"""

from __future__ import annotations

import base64
import hashlib
import re

from stdnum import iso11649
from stdnum.iso7064 import mod_97_10

_BODY_MAX = 21
_OTHER = re.compile(r"[^A-Z0-9]")


def creditor_reference(number: str) -> str:
    """Return the reference of an invoice number: `MB-2026-000001` gives `RF21MB2026000001`; always the same.

    The number stands in it, so that a person recognises it. One that is too long, or has no plain letters and digits,
    is replaced by 20 characters of its SHA-256 in base 32.
    """
    body = _OTHER.sub("", number.upper())
    if not 0 < len(body) <= _BODY_MAX:
        body = base64.b32encode(hashlib.sha256(number.encode()).digest())[:20].decode()
    return f"RF{mod_97_10.calc_check_digits(body + 'RF')}{body}"


def print_reference(reference: str) -> str:
    """Write a reference in groups of four, as forms show it."""
    return str(iso11649.format(reference))


def is_creditor_reference(text: str) -> bool:
    """Tell whether a text is such a reference with right check digits; blanks and case do not matter."""
    return text.isascii() and bool(iso11649.is_valid(text))
