"""When a document is sent again. Owns which answers of a mail server end it and how long the pauses are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

_FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(hours=1)
# Some servers refuse a stranger first and take the same mail later; after half an hour no means no.
REFUSALS_MAX = 6
# About a week of a server that is down; then a person has to look, and can send it again.
TRIES_MAX = 175


class Answer(Enum):
    """What became of one try."""

    SENT = "sent"
    # Down, overloaded or cut off: it will be back, and nothing may be lost meanwhile.
    UNAVAILABLE = "unavailable"
    # It answers and does not want the message.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of one try."""

    answer: Answer
    error: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with a delivery: its status from now on, and when it is due again if it is still pending."""

    status: str
    next_attempt_at: datetime


def plan_next(attempt: Attempt, *, attempts: int, now: datetime) -> Plan:
    """Decide after try number `attempts`: sent, refused for good, or due after a pause that doubles to an hour."""
    if attempt.answer is Answer.SENT:
        return Plan("sent", now)
    if attempts >= (REFUSALS_MAX if attempt.answer is Answer.REFUSED else TRIES_MAX):
        return Plan("refused", now)
    return Plan("pending", now + min(LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempts - 1, 10)))
