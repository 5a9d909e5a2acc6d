"""Renews a subscription that has a term: it goes on from its end for further periods, or without an end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from core.clock import Clock
from core.errors import Fault, InvalidInputError
from core.period import format_instant
from rating.domain.cycle import Cycle
from rating.domain.timeline import ChangeKind
from subscriptions.domain.proposals import Moment, Proposed
from subscriptions.ports import SubscriptionStore
from subscriptions.record_changes import Asked, Outcome, Standing, record_changes

TERM_PERIODS_MAX = 1_200


async def renew_subscription(
    subscription_id: str, *, asked: Asked, store: SubscriptionStore, clock: Clock, periods: int | None = None
) -> Outcome:
    """Let it go on from the end of its term for so many billing periods more; without an end if None.

    Raises like `record_changes`; `no_term` if it has no end, `after_end` if that has passed: it may be reactivated.
    """
    body = {"verb": "renew", "periods": periods}

    async def propose(standing: Standing) -> Sequence[Proposed]:
        ended_at = standing.ended_at
        if ended_at is None:
            raise InvalidInputError([Fault("no_term", "the subscription has no end: it renews by itself", "at")])
        if ended_at <= standing.at(Moment.NOW):
            reason = f"the subscription ended at {format_instant(ended_at)}: reactivate it"
            raise InvalidInputError([Fault("after_end", reason, "at")])
        renewed = Proposed(ChangeKind.RENEWED, ended_at)
        if periods is None:
            return (renewed,)
        return renewed, Proposed(ChangeKind.CANCELED, term_end(standing.timeline.cycle, ended_at, periods))

    return await record_changes(subscription_id, body, propose, asked=asked, store=store, clock=clock)


def term_end(cycle: Cycle, start: datetime, periods: int) -> datetime:
    """Return the end of the n-th billing period, counting the one that holds `start`.

    Raises `InvalidInputError` (`invalid_term`) for a term of no period or of more than a hundred years of months.
    """
    if not 1 <= periods <= TERM_PERIODS_MAX:
        raise InvalidInputError([Fault("invalid_term", f"expected 1 to {TERM_PERIODS_MAX} periods", "term")])
    for _ in range(periods):
        start = cycle.period_at(start).end
    return start
