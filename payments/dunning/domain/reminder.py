"""What a mail of dunning says, before it is put into words. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from core.errors import must_hold
from core.ids import derive_id
from payments.domain.language import LANGUAGES


@dataclass(frozen=True, slots=True)
class Reminder:
    """One mail about one step of one invoice; amounts and days as text for programs, formatted when it is built.

    `due_on` and `next_on` are ISO dates of the tenant's calendar; `next_on` is the day of what is announced, or "".
    `reference` is what a transfer must name, "" where a method is charged.
    """

    kind: str
    language: str
    name: str
    email: str
    invoice_id: str
    number: str
    amount_open: str
    currency: str
    due_on: str
    next_on: str = ""
    reference: str = ""

    def __post_init__(self) -> None:
        must_hold(self.language in LANGUAGES, f"no texts in {self.language!r}")


def message_id_of(invoice_id: str, step: str) -> str:
    """Return the id of a step's mail, the same however often it is sent: the left part of its Message-ID."""
    return derive_id("dun", invoice_id, step)


def retry_pause_seconds(attempts: int) -> int:
    """Return how long to wait after so many tries: doubling from a second to ten minutes."""
    return min(600, 1 << min(max(attempts, 1) - 1, 12))


def is_given_up(created_at: datetime, refusals: int, now: datetime) -> bool:
    """Tell whether a refused mail is given up: after twelve tries and an hour."""
    return refusals >= 12 and (now - created_at).total_seconds() >= 3600
