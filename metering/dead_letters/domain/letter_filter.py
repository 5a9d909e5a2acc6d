"""Which letters are meant. Owns the conditions of a list, a replay or a discard of many."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, get_args

from core.errors import Fault, InvalidInputError
from core.topics import BILLING_REJECTED, USAGE_REJECTED
from metering.dead_letters.domain.letter import LetterHead, State

Order = Literal["newest", "oldest"]
LETTER_TOPICS = (USAGE_REJECTED.name, BILLING_REJECTED.name)
_STATES = get_args(State)


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """All that is given must hold. `since_ms` and `until_ms` bound, half-open, when a letter was put aside."""

    topic: str | None = None
    code: str | None = None
    tenant: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    state: State | None = "open"

    def __post_init__(self) -> None:
        faults = []
        if self.topic is not None and self.topic not in LETTER_TOPICS:
            known = " and ".join(LETTER_TOPICS)
            faults.append(Fault("unknown_topic", f"dead letters are on {known}, not on {self.topic[:80]!r}", "topic"))
        if self.state is not None and self.state not in _STATES:
            faults.append(Fault("unknown_state", f"a letter is {', '.join(_STATES)}, not {self.state!r}", "state"))
        if self.since_ms is not None and self.until_ms is not None and self.since_ms >= self.until_ms:
            faults.append(Fault("invalid_period", "the end is not after the start", "until"))
        if faults:
            raise InvalidInputError(faults)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics to look on."""
        return LETTER_TOPICS if self.topic is None else (self.topic,)

    @property
    def digest(self) -> str:
        """Names the filter, so that a cursor of another list is told apart."""
        return sha256(repr(self).encode()).hexdigest()[:16]

    def wants(self, head: LetterHead) -> bool:
        """Say whether a letter is meant, as far as the letter itself tells (not its state)."""
        return (
            (self.code is None or head.code == self.code)
            and (self.tenant is None or head.tenant == self.tenant)
            and (self.since_ms is None or head.at_ms >= self.since_ms)
            and (self.until_ms is None or head.at_ms < self.until_ms)
        )
