"""What work on dead letters needs of the outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from core.usage_event import Rejection
from metering.dead_letters.domain.letter import Action, Letter, LetterHead, Place
from metering.dead_letters.domain.replay import Replay

Partition = tuple[str, int]


class Letters(Protocol):
    """The dead-letter topics. Every call raises `UnavailableError` if the broker does not answer."""

    async def bounds(self, topics: Sequence[str]) -> dict[Partition, tuple[int, int]]:
        """Return the half-open range of offsets of every partition."""
        ...

    async def offsets_at(self, partitions: Sequence[Partition], instant_ms: int) -> dict[Partition, int]:
        """Return the first offset put aside at or after an instant, the partition's end where there is none."""
        ...

    async def heads(self, partition: Partition, first: int, end: int) -> list[LetterHead]:
        """Return all letters with offsets in [first, end), in order."""
        ...

    async def load(self, places: Sequence[Place], bytes_max: int) -> list[Letter]:
        """Return the letters at these places, in order of place; fewer once `bytes_max` bytes of bodies are there.

        At least one, if there is any. What is not there (any more) is left out.
        """
        ...


class LetterSender(Protocol):
    """Puts replays back on their source topics."""

    async def send(self, replays: Sequence[Replay]) -> list[Place | str]:
        """Return where each was confirmed, or why it was not."""
        ...


class LetterActions(Protocol):
    """What became of letters."""

    async def find(self, places: Sequence[Place]) -> dict[Place, tuple[Action, ...]]:
        """Return the actions of each letter that has any, in the order they were begun."""
        ...

    async def begin(self, actions: Sequence[Action]) -> None:
        """Write actions down; all of them or none."""
        ...

    async def finish(self, sent: Mapping[str, Place], done_at: datetime) -> None:
        """Mark replays, by action id, as done: the broker has confirmed them at these places."""
        ...


@dataclass(frozen=True, slots=True)
class CodeCount:
    """How many letters of a code a topic holds: `letters` in all, `open` of them without a finished action."""

    topic: str
    code: str
    letters: int
    open: int


class LetterTallies(Protocol):
    """Letters counted by topic, code and day, and up to where."""

    async def progress(self) -> dict[Partition, int]:
        """Return the next offset to count, by partition."""
        ...

    async def add(
        self, partition: Partition, expected: int, next_offset: int, letters: Mapping[tuple[str, date], int]
    ) -> bool:
        """Add letters by (code, day) and go on to `next_offset`; returns False if it was not at `expected` any more."""
        ...

    async def start_over(self, partition: Partition, next_offset: int) -> None:
        """Forget a partition's counts, for its topic is not the one that was counted."""
        ...

    async def counts(self, kept_since: Mapping[str, date | None]) -> list[CodeCount]:
        """Return the counts by topic and code, of days not before `kept_since` of the topic."""
        ...


# Says why a body would be refused now if it came on that topic, None if it would be taken or nobody can tell.
LetterJudge = Callable[[str, bytes], Awaitable[Rejection | None]]
