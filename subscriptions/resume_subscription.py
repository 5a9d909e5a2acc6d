"""Resumes a paused subscription."""

from __future__ import annotations

from collections.abc import Sequence

from core.clock import Clock
from rating.domain.timeline import ChangeKind
from subscriptions.domain.proposals import Moment, Proposed, When, when_text
from subscriptions.ports import SubscriptionStore
from subscriptions.record_changes import Asked, Outcome, Standing, record_changes


async def resume_subscription(
    subscription_id: str, *, asked: Asked, store: SubscriptionStore, clock: Clock, when: When = Moment.NOW
) -> Outcome:
    """Let fees be due again from a moment on, in place of a later resumption.

    Raises like `record_changes` (`not_paused`).
    """
    body = {"verb": "resume", "when": when_text(when)}

    async def propose(standing: Standing) -> Sequence[Proposed]:
        return (Proposed(ChangeKind.RESUMED, standing.at(when)),)

    return await record_changes(subscription_id, body, propose, asked=asked, store=store, clock=clock)
