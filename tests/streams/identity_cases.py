"""What the tests of identities share: entries of chosen identities, and a journal to compare a checkpoint with."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Iterable
from hashlib import blake2b

from streams.ports import Claimed

DAY = 20_400


def identity(number: int) -> bytes:
    """Return the sixteen bytes of a made-up event; spread evenly, as real ones are."""
    return blake2b(number.to_bytes(8, "little"), digest_size=16).digest()


def twin(number: int) -> bytes:
    """Return another identity that begins with the same eight bytes as that of `number`."""
    original = identity(number)
    return original[:8] + bytes(byte ^ 0xFF for byte in original[8:])


def digest(name: bytes) -> int:
    return struct.unpack_from("<I", name, 12)[0] ^ 0xA5A5A5A5


def claim(identities: Iterable[bytes], *, first: int = 0, day: int = DAY, in_array: bool = False) -> Claimed:
    """Return an entry that accepted these, one record each from offset `first`, or all in one record's array."""
    names = list(identities)
    places = [1 + number if in_array else number << 14 for number in range(len(names))]
    return Claimed(
        b"".join(names),
        struct.pack(f"<{len(names)}I", *map(digest, names)),
        struct.pack(f"<{len(names)}I", *places),
        first,
        day,
    )


def journal(entries: dict[int, bytes]) -> Callable[[int], Awaitable[bytes | None]]:
    async def entry_at(offset: int) -> bytes | None:
        return entries.get(offset)

    return entry_at


async def nothing_at(offset: int) -> bytes | None:
    return None
