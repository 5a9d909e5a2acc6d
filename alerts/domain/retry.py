"""When a delivery is tried again. Owns which answers of a receiver end it and how long the pauses are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

_FIRST_PAUSE = timedelta(seconds=0.5)
LONGEST_PAUSE = timedelta(minutes=1)
LONGEST_RETRY_AFTER = timedelta(hours=1)
# A receiver that answers and says no (wrong address, unknown mailbox) gets time to be put right, about five minutes.
REFUSALS_MAX = 12
# About a week of a receiver that is down; then a person has to look, and can send it again.
TRIES_MAX = 10_080


class Answer(Enum):
    """What became of one try."""

    SENT = "sent"
    # Down, overloaded or cut off: it will be back, and nothing may be lost meanwhile.
    UNAVAILABLE = "unavailable"
    # It answers and does not want the message.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of one try; `retry_after` is what the receiver asked for."""

    answer: Answer
    error: str = ""
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with a delivery: its status from now on, and when it is due again if it is still pending."""

    status: str
    next_attempt_at: datetime


def plan_next(attempt: Attempt, *, attempts: int, now: datetime) -> Plan:
    """Decide after try number `attempts`: sent, refused for good, or due again later.

    Pauses double from half a second to a minute; `Retry-After` is respected up to an hour. An unavailable receiver is
    tried for a week. What was given up is kept with its reason and can be sent again by command.
    """
    if attempt.answer is Answer.SENT:
        return Plan("sent", now)
    if attempts >= (REFUSALS_MAX if attempt.answer is Answer.REFUSED else TRIES_MAX):
        return Plan("refused", now)
    pause = min(LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempts - 1, 10))
    if attempt.retry_after is not None:
        pause = max(pause, min(attempt.retry_after, LONGEST_RETRY_AFTER))
    return Plan("pending", now + pause)
