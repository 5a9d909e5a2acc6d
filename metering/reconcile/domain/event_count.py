"""How many events a raw record holds, counted apart from the stream that judged it."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from core.usage_event import BACKFILL


class _Typed(msgspec.Struct, gc=False):
    type: str = ""


class _Body(msgspec.Struct, gc=False):
    events: list[msgspec.Raw]


class _Backfill(msgspec.Struct, gc=False):
    data: _Body


_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_type = msgspec.json.Decoder(_Typed).decode
_backfill = msgspec.json.Decoder(_Backfill).decode


def count_events(offset: int, value: bytes | None, refused: Collection[tuple[int, int]]) -> int:
    """Return how many events the record at `offset` stands for.

    One, unless it is an array or a backfill of which the parts were judged; those refused as a whole (`refused` has
    index -1) are one refusal. A record that cannot be read as what it looks like is one event, too: somebody must have
    refused it, and if nobody did, that is the gap.
    """
    if value is None or (offset, -1) in refused:
        return 1
    first = value.lstrip()[:1]
    try:
        if first == b"[":
            return len(_items(value))
        # The decoder runs only where the type may be that of a backfill.
        if (b"backfill" in value or b"\\u" in value) and _type(value).type == BACKFILL:
            return len(_backfill(value).data.events)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 1
    return 1
