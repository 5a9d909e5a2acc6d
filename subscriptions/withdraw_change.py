"""Takes a scheduled change back before it counts."""

from __future__ import annotations

from collections.abc import Sequence

from core.clock import Clock
from core.errors import Fault, InvalidInputError
from core.period import format_instant
from rating.domain.timeline import ChangeKind, standing_changes
from subscriptions.domain.proposals import Proposed
from subscriptions.ports import SubscriptionStore
from subscriptions.record_changes import Asked, Outcome, Standing, record_changes


async def withdraw_change(
    subscription_id: str, sequence: int, *, asked: Asked, store: SubscriptionStore, clock: Clock
) -> Outcome:
    """Let a change never have been made, as known from now on.

    Raises like `record_changes`; `unknown_change`, and `already_effective` unless backdating is asked for.
    """
    body = {"verb": "withdraw", "sequence": sequence}

    async def propose(standing: Standing) -> Sequence[Proposed]:
        standing_ones = {one.sequence: one for one in standing_changes(standing.subscription.changes)}
        change = standing_ones.get(sequence)
        if change is None:
            raise InvalidInputError([Fault("unknown_change", f"no change {sequence} stands", "sequence")])
        if change.effective_at <= standing.now and not asked.allow_backdated:
            reason = f"change {sequence} counts since {format_instant(change.effective_at)}: ask for backdating"
            raise InvalidInputError([Fault("already_effective", reason, "sequence")])
        return (Proposed(ChangeKind.WITHDRAWN, change.effective_at, {"sequence": sequence}),)

    return await record_changes(subscription_id, body, propose, asked=asked, store=store, clock=clock)
