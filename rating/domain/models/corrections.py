"""Corrections: what a negative entry of usage does to a price that is not simply of the total."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from core.errors import Fault, InvalidInputError
from rating.domain.price import ZERO, UsageEntry, plain


def refuse_negative(quantity: Decimal, what: str) -> None:
    """Refuse (`negative_usage`) a negative total of what one price is for: more was taken back than was used there."""
    if quantity < 0:
        reason = f"usage of {what} comes to {plain(quantity)}: corrections take back more than was used"
        raise InvalidInputError([Fault("negative_usage", reason, "usage")])


def amounts_in_order(entries: Iterable[UsageEntry]) -> list[Decimal]:
    """Return the events' quantities in order of their times, after corrections, which take back the newest first.

    An event that is taken back whole is gone, as if it had never been; one that was of nothing from the start stays.
    Events of one instant are ordered by quantity, so the order in which they are given cannot matter. Raises
    `InvalidInputError` (`negative_usage`) when corrections take back more than there is, and `single_events_needed`
    for an entry that stands for several events.
    """
    events: list[Decimal] = []
    taken_back = ZERO
    for entry in sorted(entries, key=lambda entry: (entry.at, entry.quantity)):
        if entry.events > 1:
            reason = f"this price is per event, and the entry at {entry.at.isoformat()} stands for {entry.events}"
            raise InvalidInputError([Fault("single_events_needed", reason, "usage")])
        if entry.quantity < 0:
            taken_back -= entry.quantity
        else:
            events.append(entry.quantity)
    kept: list[Decimal] = []
    for amount in reversed(events):
        lowered = min(amount, taken_back)
        taken_back -= lowered
        if amount == 0 or amount > lowered:
            kept.append(amount - lowered)
    refuse_negative(-taken_back, "single events")
    return kept[::-1]
