"""What a source partition's state needs of the outside: a memory of identities, and a book of samples.

Both are functions of the journal: what they keep on disk is only there so that a restart is fast, and can be thrown
away at any time. Whoever implements them keeps the journal offset up to which they reach together with the content.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from core.journal import PeriodRow, SampleRow


class Place(NamedTuple):
    """Where an accepted event stands: offset of its record, and its index in an array (-1 = not in an array)."""

    offset: int
    index: int  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Claimed:
    """The identities one journal entry accepted, in order; three parallel packed arrays.

    `identities` has 16 bytes each; `digests` a little-endian u32 each (what the event counts, to tell a twin with
    another body); `places` a little-endian u32 each: (offset - first) << 14 | (index + 1).
    """

    identities: bytes
    digests: bytes
    places: bytes
    first: int
    day: int


class Identities(Protocol):
    """Exact memory of accepted identities of one source partition."""

    recent: dict[bytes, int]
    """Identities in memory with their digests; looked up by the hot path directly, written only by this port."""

    def __len__(self) -> int:
        """Return how many identities are remembered, recent and old."""
        ...

    def add(self, claimed: Claimed, digests: Mapping[bytes, int] | None = None) -> None:
        """Remember identities; none of them is known yet.

        `digests` is the same identities with their digests, for who has them at hand: `claimed` need then not be taken
        apart. It is read at once and not kept.
        """
        ...

    def find_old(self, identities: Sequence[bytes]) -> dict[int, int]:
        """Return {index: digest} of those remembered but no longer in `recent`; mostly empty, and fast then."""
        ...

    def place_of(self, identity: bytes) -> Place | None:
        """Return where an identity's event stands, None if the identity is not remembered; may be slow."""
        ...

    def forget_before(self, day: int) -> None:
        """Forget identities received before that day (days since 1970 UTC); cheap to call often."""
        ...

    def checkpoint_due(self) -> bool:
        """Say whether enough is only in memory that a checkpoint is worth its cost."""
        ...

    def checkpoint(self, journal_offset: int, entry: bytes, state: bytes) -> Coroutine[Any, Any, None]:
        """Make everything up to `journal_offset` durable, together with the caller's `state`.

        What it covers is fixed at the call; awaiting what it returns does the work.

        `entry` is that journal record's value: `load` compares it, so that a disk left over from another cluster is
        not taken for this one's. What is added after the call belongs to the next checkpoint.
        """
        ...

    async def load(self, entry_at: Callable[[int], Awaitable[bytes | None]]) -> Loaded | None:
        """Open the disk and return where to go on; None if there is nothing usable, and then the memory is empty.

        `entry_at` reads a journal record's value, None if it is not there (any more).
        """
        ...

    async def close(self) -> None:
        """Give the disk up for the next owner; does not checkpoint."""
        ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a checkpoint held: the journal offset it reaches to (inclusive) and the caller's state."""

    journal_offset: int
    state: bytes


class SampleBook(Protocol):
    """Samples of one source partition's sampled meters, and the absolute period totals that follow from them."""

    journal_offset: int
    """The journal offset up to which the book is durable; -1 if empty."""

    def apply(self, samples: Sequence[SampleRow], periods: PeriodsOf) -> list[PeriodRow]:
        """Take samples in (or out, if removed) and return the period totals that changed; twice is harmless."""
        ...

    def commit(self, journal_offset: int) -> None:
        """Make what was applied durable, as reaching to `journal_offset`."""
        ...

    def forget_before(self, time_us: int) -> None:
        """Drop what no live period needs any more; levels carried over are kept."""
        ...

    def reset(self) -> None:
        """Throw everything away: what the book holds is of another journal."""
        ...

    def close(self) -> None:
        """Close the book; what was applied since the last commit is forgotten."""
        ...


class PeriodsOf(Protocol):
    """How a tenant's time is cut into live periods."""

    def names(self, tenant: str, time_us: int) -> tuple[str, ...]:
        """Return the names of the live periods that hold an instant."""
        ...

    def year_name(self, tenant: str, time_us: int) -> str:
        """Return the name of the tenant's year that holds an instant; only distinct values are counted by years."""
        ...

    def bounds(self, tenant: str, name: str) -> tuple[int, int]:
        """Return a live period's half-open bounds in microseconds since 1970 UTC."""
        ...

    def aggregation(self, meter: str) -> str:
        """Return how a meter aggregates."""
        ...
