"""Identities in memory and nowhere else: the plain meaning of `streams.ports.Identities`, for tests."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence

from core.errors import must_hold
from core.usage_event import IDENTITY_BYTES
from streams.ports import Claimed, Loaded, Place


class MemoryIdentities:
    """All identities are recent; nothing survives, so every start reads the journal."""

    def __init__(self) -> None:
        self.recent: dict[bytes, int] = {}
        self._places: dict[bytes, Place] = {}
        self._by_day: dict[int, list[bytes]] = {}

    def __len__(self) -> int:
        """Return how many identities are remembered."""
        return len(self.recent)

    def add(self, claimed: Claimed, digests: Mapping[bytes, int] | None = None) -> None:
        """Remember identities; none of them is known yet."""
        must_hold(
            digests is None
            or (b"".join(digests), array("I", digests.values()).tobytes()) == (claimed.identities, claimed.digests),
            "what was accepted must be told alike in both forms",
        )
        for number in range(len(claimed.identities) // IDENTITY_BYTES):
            identity = claimed.identities[IDENTITY_BYTES * number : IDENTITY_BYTES * (number + 1)]
            must_hold(identity not in self.recent, "an identity was accepted twice")
            place = int.from_bytes(claimed.places[4 * number : 4 * number + 4], "little")
            self.recent[identity] = int.from_bytes(claimed.digests[4 * number : 4 * number + 4], "little")
            self._places[identity] = Place(claimed.first + (place >> 14), (place & 0x3FFF) - 1)
            self._by_day.setdefault(claimed.day, []).append(identity)

    def find_old(self, identities: Sequence[bytes]) -> dict[int, int]:
        """Return nothing: there are no old ones."""
        return {}

    def place_of(self, identity: bytes) -> Place | None:
        """Return where an identity's event stands, None if it is not remembered."""
        return self._places.get(identity)

    def forget_before(self, day: int) -> None:
        """Forget identities received before that day."""
        for old in [known for known in self._by_day if known < day]:
            for identity in self._by_day.pop(old):
                del self.recent[identity], self._places[identity]

    def checkpoint_due(self) -> bool:
        """Never: there is no disk."""
        return False

    async def checkpoint(self, journal_offset: int, entry: bytes, state: bytes) -> None:
        """Do nothing: there is no disk."""

    async def load(self, entry_at: Callable[[int], Awaitable[bytes | None]]) -> Loaded | None:
        """Begin empty."""
        self.recent.clear()
        self._places.clear()
        self._by_day.clear()
        return None

    async def close(self) -> None:
        """Nothing to give up."""
