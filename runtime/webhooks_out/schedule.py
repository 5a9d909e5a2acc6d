"""When an outgoing webhook is tried again. Owns the schedule and which answers end it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

# Pauses before the tries: ten of them within about 75 hours (Standard Webhooks, "Retries").
PAUSES = (
    timedelta(0), timedelta(seconds=5), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2),
    timedelta(hours=5), timedelta(hours=10), timedelta(hours=14), timedelta(hours=20), timedelta(hours=24),
)  # fmt: skip
LONGEST_RETRY_AFTER = timedelta(hours=1)
# An endpoint that does not answer is left alone for a moment: it must not hold up what goes to others.
LONGEST_ENDPOINT_PAUSE = timedelta(minutes=1)
_GONE = 410


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one try: the receiver's status, or 0 and why there was none; `retry_after` as it asked."""

    status: int
    error: str = ""
    retry_after: timedelta | None = None

    @property
    def is_taken(self) -> bool:
        """Whether the receiver has it."""
        return 200 <= self.status < 300

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants nothing any more."""
        return self.status == _GONE


@dataclass(frozen=True, slots=True)
class Plan:
    """The delivery from now on: `sent`, `refused` (given up), or `pending` until `next_attempt_at`."""

    status: str
    next_attempt_at: datetime


def plan_next(attempt: Attempt, *, attempts: int, now: datetime) -> Plan:
    """Decide after try number `attempts`, from 1. A receiver that is gone keeps the delivery waiting for a person."""
    if attempt.is_taken:
        return Plan("sent", now)
    if attempt.is_gone:
        return Plan("pending", now)
    if attempts >= len(PAUSES):
        return Plan("refused", now)
    asked = min(attempt.retry_after or timedelta(0), LONGEST_RETRY_AFTER)
    return Plan("pending", now + max(PAUSES[attempts], asked))
