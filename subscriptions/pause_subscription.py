"""Pauses a subscription: no fees are due until it is resumed; usage that still comes is rated all the same."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from core.clock import Clock
from core.errors import Fault, InvalidInputError
from core.period import format_instant
from rating.domain.timeline import ChangeKind, cut_to_minute
from subscriptions.domain.proposals import Moment, Proposed, When, when_text
from subscriptions.ports import SubscriptionStore
from subscriptions.record_changes import Asked, Outcome, Standing, record_changes


async def pause_subscription(
    subscription_id: str,
    *,
    asked: Asked,
    store: SubscriptionStore,
    clock: Clock,
    when: When = Moment.NOW,
    until: datetime | None = None,
) -> Outcome:
    """Pause from a moment on, and resume at `until` if that is given.

    Raises like `record_changes` (`already_paused`, `in_trial`); `invalid_time` for an `until` that is not later.
    """
    body = {"verb": "pause", "when": when_text(when), "until": format_instant(until) if until else None}

    async def propose(standing: Standing) -> Sequence[Proposed]:
        at = standing.at(when)
        paused = Proposed(ChangeKind.PAUSED, at)
        if until is None:
            return (paused,)
        resumed_at = cut_to_minute(until)
        if resumed_at <= at:
            raise InvalidInputError([Fault("invalid_time", f"a pause from {format_instant(at)} ends later", "until")])
        return paused, Proposed(ChangeKind.RESUMED, resumed_at)

    return await record_changes(subscription_id, body, propose, asked=asked, store=store, clock=clock)
