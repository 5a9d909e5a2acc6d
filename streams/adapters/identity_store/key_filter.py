"""A filter in front of the runs: says "surely not there" for nearly every new identity. Owns its bits, nothing else.

A Bloom filter in blocks of 64 bits: an identity's first eight bytes choose one word and five bits in it. One look at
memory per identity, all of a batch in a handful of numpy calls. It never says no to what was put in.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

# At 16 bits a key and full, about 0.4 % of unknown identities pass; they then cost a look at the runs.
BITS_PER_KEY = 16
_BITS_SET = 5
_HALF = np.uint64(32)
_PATTERNS_MASK = np.uint64(0xFFFF)


def _bit_patterns() -> Keys:
    # The generator is only there to spread bits evenly; which patterns come out is without meaning, and never stored.
    numbers = np.random.Generator(np.random.PCG64(20_26)).integers(0, 64, size=(0x1_0000, _BITS_SET), dtype=np.uint64)
    patterns: Keys = np.bitwise_or.reduce(np.uint64(1) << numbers, axis=1)
    return patterns


_PATTERNS = _bit_patterns()


class KeyFilter:
    """Holds keys, of which it can tell those that it surely does not hold."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.added = 0
        self._words = np.zeros(max(64, capacity * BITS_PER_KEY // 64), dtype=np.uint64)
        self._length = np.uint64(len(self._words))

    @property
    def size_bytes(self) -> int:
        """Memory of the bits."""
        return self._words.nbytes

    def add(self, keys: Keys) -> None:
        """Put keys in that are sorted ascending; more than `capacity` still works, only less sharply."""
        if not len(keys):
            return
        places, patterns = self._place(keys)
        # Sorted keys have sorted places: those that share a word lie side by side.
        starts = np.flatnonzero(np.concatenate(([True], places[1:] != places[:-1])))
        words = places[starts]
        # In one assignment: a reader in another thread sees a word before or after, and either has all earlier keys.
        self._words[words] |= np.bitwise_or.reduceat(patterns, starts)
        self.added += len(keys)

    def may_hold(self, keys: Keys) -> npt.NDArray[np.intp]:
        """Return the positions of the keys that may be in it, ascending; no key that is in it is left out."""
        places, patterns = self._place(keys)
        return np.flatnonzero((self._words.take(places) & patterns) == patterns)

    def _place(self, keys: Keys) -> tuple[npt.NDArray[np.int64], Keys]:
        # The upper half scaled to the number of words keeps the order; the lowest bits choose the pattern.
        places = (((keys >> _HALF) * self._length) >> _HALF).view(np.int64)
        return places, _PATTERNS.take((keys & _PATTERNS_MASK).view(np.int64))
