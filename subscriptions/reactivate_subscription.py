"""Takes back an end that has not come yet, or begins again after one that has."""

from __future__ import annotations

from collections.abc import Sequence

from core.clock import Clock
from core.errors import Fault, InvalidInputError
from rating.domain.timeline import ChangeKind, standing_changes
from subscriptions.domain.proposals import Moment, Proposed
from subscriptions.ports import SubscriptionStore
from subscriptions.record_changes import Asked, Outcome, Standing, record_changes


async def reactivate_subscription(
    subscription_id: str, *, asked: Asked, store: SubscriptionStore, clock: Clock
) -> Outcome:
    """Let it go on without an end, as if none had been asked for; after its end, from now on with a gap between.

    What was withdrawn for the end's sake stays withdrawn. Raises like `record_changes`; `not_canceled` if there is no
    end.
    """
    body = {"verb": "reactivate"}

    async def propose(standing: Standing) -> Sequence[Proposed]:
        ended_at, now = standing.ended_at, standing.at(Moment.NOW)
        if ended_at is None:
            raise InvalidInputError([Fault("not_canceled", "the subscription has no end", "at")])
        if ended_at <= standing.now:
            return (Proposed(ChangeKind.REACTIVATED, now),)
        ends = [one for one in standing_changes(standing.subscription.changes) if one.kind is ChangeKind.CANCELED]
        return tuple(
            Proposed(ChangeKind.WITHDRAWN, one.effective_at, {"sequence": one.sequence})
            for one in ends
            if one.effective_at == ended_at
        )

    return await record_changes(subscription_id, body, propose, asked=asked, store=store, clock=clock)
