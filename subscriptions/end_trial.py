"""Ends a trial before its time: the subscription becomes a paid one."""

from __future__ import annotations

from collections.abc import Sequence

from core.clock import Clock
from rating.domain.timeline import ChangeKind
from subscriptions.domain.proposals import Moment, Proposed, When, when_text
from subscriptions.ports import SubscriptionStore
from subscriptions.record_changes import Asked, Outcome, Standing, record_changes


async def end_trial(
    subscription_id: str, *, asked: Asked, store: SubscriptionStore, clock: Clock, when: When = Moment.NOW
) -> Outcome:
    """Let fees be due from a moment on; raises like `record_changes` (`not_in_trial`)."""
    body = {"verb": "end_trial", "when": when_text(when)}

    async def propose(standing: Standing) -> Sequence[Proposed]:
        return (Proposed(ChangeKind.TRIAL_ENDED, standing.at(when)),)

    return await record_changes(subscription_id, body, propose, asked=asked, store=store, clock=clock)
