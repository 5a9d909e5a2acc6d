"""JSON written fast, of nothing but what JSON knows."""

from __future__ import annotations

import marshal
from typing import Any

import msgspec

from core.errors import BrokenInvariantError

_encoder = msgspec.json.Encoder()


def write_plain_json(document: Any) -> bytes:
    """Return a document of built-in types as JSON.

    Raises `BrokenInvariantError` for any other type, such as a `Decimal` or an instant, which the encoder by itself
    would write as a text of its own choice. Bytes and sets, which are built in too, become texts and lists. Takes a
    third of what Python's encoder does.
    """
    try:
        # The one thing in Python that looks through a document as fast as it is written and takes exactly the built-in
        # types; what it makes is not used.
        marshal.dumps(document)
    except ValueError as error:
        raise BrokenInvariantError(f"no JSON: {error}") from error
    return _encoder.encode(document)
