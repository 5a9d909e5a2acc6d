"""Digests that a third party can recompute: SHA-256 over canonical JSON (RFC 8785).

RFC 8785 knows no decimals, so amounts and quantities go in as strings; a `Decimal` or a float is a mistake of ours.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import rfc8785

# Integers beyond these are no JSON numbers to RFC 8785.
_INTEGER_MAX = 2**53 - 1
_TEXT = frozenset((str,))
# For what `_is_simple` lets through this writes what RFC 8785 asks for (a law in the tests), hundreds of times as fast.
_encoder = msgspec.json.Encoder(order="sorted")


def canonical_json(document: Any) -> bytes:
    """Return the document's canonical JSON; the same content gives the same bytes, whatever the key order was."""
    if not _is_simple(document):
        return rfc8785.dumps(document)
    return _encoder.encode(document)


def digest_of(document: Any) -> str:
    """Return the SHA-256 of the document's canonical JSON in hexadecimal."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def _is_simple(value: Any) -> bool:
    """Tell whether a document holds nothing that msgspec's encoder writes otherwise than RFC 8785 does.

    That is: no float, no integer too large, no key but ASCII (others sort by their UTF-16), no type of one's own.
    """
    # It grows while it is walked through: what stands in a list or an object comes to the end.
    found = [value]
    for one in found:
        kind = type(one)
        if kind is str:
            if not (one.isascii() or one.isprintable()):
                return False
        elif kind is list or kind is tuple:
            found += one
        elif kind is dict:
            if not (set(map(type, one)) <= _TEXT and "".join(one).isascii()):
                return False
            found += one.values()
        elif kind is int:
            if not -_INTEGER_MAX <= one <= _INTEGER_MAX:
                return False
        elif one is not None and kind is not bool:
            return False
    return True
