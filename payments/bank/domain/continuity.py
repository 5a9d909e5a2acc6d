"""Whether an account's statements follow each other without a hole. Owns what the gap of books and bank is; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Span:
    """From where to where a statement goes; `series` is its format if it is numbered, "" for one that may overlap."""

    opened_on: date
    opening: Decimal
    closed_on: date
    closing: Decimal
    series: str


def first_of(spans: Sequence[Span]) -> Span:
    """Return where the account's books begin: the earliest day, of several that whose opening no other one reaches."""
    day = min(span.opened_on for span in spans)
    ties = [span for span in spans if span.opened_on == day]
    reached = {span.closing for span in ties if span.opening != span.closing}
    return next((span for span in ties if span.opening not in reached), ties[0])


def last_of(spans: Sequence[Span]) -> Span:
    """Return where they end: the latest day, of several that from whose closing no other one goes on."""
    day = max(span.closed_on for span in spans)
    ties = [span for span in spans if span.closed_on == day]
    left = {span.opening for span in ties if span.opening != span.closing}
    return next((span for span in reversed(ties) if span.closing not in left), ties[-1])


def gap(spans: Sequence[Span], moved: Decimal) -> Decimal:
    """Return how far the bank's last balance is from the first one and all entries known; 0 without statements.

    Not zero: a statement is missing between, or entries were counted twice or taken for one.
    """
    if not spans:
        return Decimal(0)
    return last_of(spans).closing - first_of(spans).opening - moved


def overlaps(span: Span, others: Sequence[Span]) -> bool:
    """Tell whether a statement's days lie within those of others that may show the same entries."""
    foreign = [other for other in others if not span.series or other.series != span.series]
    return any(span.opened_on <= other.closed_on and other.opened_on <= span.closed_on for other in foreign)
