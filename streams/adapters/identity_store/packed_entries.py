"""What an entry accepted, packed as the journal has it: how it becomes rows, and how one identity is found in it."""

from __future__ import annotations

import numpy as np

from core.usage_event import IDENTITY_BYTES
from streams.adapters.identity_store.key_filter import Keys
from streams.adapters.identity_store.sorted_run import ROW, Rows
from streams.ports import Claimed, Place

_INDEX_BITS = 14
_INDEX_MASK = (1 << _INDEX_BITS) - 1


def halves_of(identities: bytes) -> tuple[Keys, Keys]:
    """Return the first and second eight bytes of packed identities as numbers."""
    words = np.frombuffer(identities, dtype="<u8").reshape(-1, 2)
    return np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])


def identities_of(claimed: Claimed) -> list[bytes]:
    """Return the identities, each its own."""
    identities: list[bytes] = np.frombuffer(claimed.identities, dtype="V16").tolist()
    return identities


def count_of(claimed: Claimed) -> int:
    """Return how many identities an entry accepted."""
    return len(claimed.identities) // IDENTITY_BYTES


def digests_of(claimed: Claimed) -> list[int]:
    """Return what each identity's event counts, as its digest."""
    digests: list[int] = np.frombuffer(claimed.digests, dtype="<u4").tolist()
    return digests


def sorted_rows(entries: list[Claimed]) -> Rows:
    """Return the entries' identities as rows, in ascending order of key."""
    counts = [count_of(claimed) for claimed in entries]
    rows = np.empty(sum(counts), dtype=ROW)
    keys, rows["rest"] = halves_of(b"".join(claimed.identities for claimed in entries))
    rows["key"] = keys
    places = np.frombuffer(b"".join(claimed.places for claimed in entries), dtype="<u4")
    firsts = np.repeat(np.array([claimed.first for claimed in entries], dtype=np.uint64), counts)
    rows["offset"] = firsts + (places >> _INDEX_BITS)
    rows["index"] = places & _INDEX_MASK
    rows["digest"] = np.frombuffer(b"".join(claimed.digests for claimed in entries), dtype="<u4")
    rows["day"] = np.repeat(np.array([claimed.day for claimed in entries], dtype=np.uint16), counts)
    words = np.take(rows.view(np.uint64).reshape(-1, 4), np.argsort(keys), axis=0)
    return words.reshape(-1).view(ROW)


def place_in(claimed: Claimed, identity: bytes) -> Place | None:
    """Return where an identity's event stands, None if this entry did not accept it."""
    at = claimed.identities.find(identity)
    while at >= 0 and at % IDENTITY_BYTES:
        at = claimed.identities.find(identity, at + 1)
    if at < 0:
        return None
    number = at // IDENTITY_BYTES
    place = int.from_bytes(claimed.places[4 * number : 4 * number + 4], "little")
    return Place(claimed.first + (place >> _INDEX_BITS), (place & _INDEX_MASK) - 1)
