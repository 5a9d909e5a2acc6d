"""Ends a subscription, now or with the end of the period that is running."""

from __future__ import annotations

from collections.abc import Sequence

from core.clock import Clock
from rating.domain.timeline import ChangeKind
from subscriptions.domain.proposals import Moment, Proposed, When, when_text
from subscriptions.ports import SubscriptionStore
from subscriptions.record_changes import Asked, Outcome, Standing, record_changes


async def cancel_subscription(
    subscription_id: str, *, asked: Asked, store: SubscriptionStore, clock: Clock, when: When = Moment.NOW
) -> Outcome:
    """End it at a moment, in place of a later end if there is one; an end at that moment already is no change.

    Raises like `record_changes` (`after_end`, `change_scheduled` for what was to happen afterwards).
    """
    body = {"verb": "cancel", "when": when_text(when)}

    async def propose(standing: Standing) -> Sequence[Proposed]:
        at = standing.at(when)
        return () if standing.ended_at == at else (Proposed(ChangeKind.CANCELED, at),)

    return await record_changes(subscription_id, body, propose, asked=asked, store=store, clock=clock)
