"""Digests that a third party can recompute: SHA-256 over canonical JSON (RFC 8785).

RFC 8785 knows no decimals, so amounts and quantities go in as strings; a `Decimal` or a float is a mistake of ours.
"""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785


def canonical_json(document: Any) -> bytes:
    """Return the document's canonical JSON; the same content gives the same bytes, whatever the key order was."""
    return rfc8785.dumps(document)


def digest_of(document: Any) -> str:
    """Return the SHA-256 of the document's canonical JSON in hexadecimal."""
    return hashlib.sha256(canonical_json(document)).hexdigest()
