"""Where a list goes on: one offset per partition, as an opaque text that belongs to one filter and order."""

from __future__ import annotations

import base64
import binascii

import msgspec

from core.errors import Fault, InvalidInputError
from metering.dead_letters.domain.letter_filter import LetterFilter, Order

_VERSION = 1


class _Cursor(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    filter: str
    order: Order
    bounds: list[tuple[str, int, int]]


Bounds = dict[tuple[str, int], int]


def write_cursor(wanted: LetterFilter, order: Order, bounds: Bounds) -> str:
    """Return the cursor; a bound is the next offset to look at (oldest first), or the one below which to go on."""
    places = [(topic, partition, offset) for (topic, partition), offset in sorted(bounds.items())]
    raw = msgspec.msgpack.encode(_Cursor(_VERSION, wanted.digest, order, places))
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def read_cursor(text: str, wanted: LetterFilter, order: Order) -> Bounds:
    """Read a cursor; raises `InvalidInputError` (`invalid_cursor`, `cursor_of_another_list`)."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = msgspec.msgpack.decode(raw, type=_Cursor)
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        raise InvalidInputError([Fault("invalid_cursor", "this is no cursor of ours", "cursor")]) from None
    if (cursor.version, cursor.filter, cursor.order) != (_VERSION, wanted.digest, order):
        reason = "the cursor belongs to a list with other conditions"
        raise InvalidInputError([Fault("cursor_of_another_list", reason, "cursor")])
    return {(topic, partition): offset for topic, partition, offset in cursor.bounds}
