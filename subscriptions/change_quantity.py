"""Changes how many of a plan, or of an add-on, a subscription holds: seats."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from core.clock import Clock
from rating.domain.price import plain
from rating.domain.timeline import ChangeKind
from subscriptions.domain.proposals import Moment, Proposed, When, when_text
from subscriptions.ports import SubscriptionStore
from subscriptions.record_changes import Asked, Outcome, Standing, record_changes


async def change_quantity(
    subscription_id: str,
    quantity: Decimal,
    *,
    asked: Asked,
    store: SubscriptionStore,
    clock: Clock,
    when: When = Moment.NOW,
    add_on: str | None = None,
) -> Outcome:
    """Hold this quantity from a moment on, of an add-on if one is named.

    Raises like `record_changes` (`unknown_add_on`); for what is held at that moment already there is no change.
    """
    body = {"verb": "change_quantity", "quantity": plain(quantity), "add_on": add_on, "when": when_text(when)}

    async def propose(standing: Standing) -> Sequence[Proposed]:
        at = standing.at(when)
        held = standing.timeline.at(at)
        present = held.add_on(add_on) if held and add_on else held
        if present is not None and present.quantity == quantity:
            return ()
        payload: dict[str, Any] = {"quantity": plain(quantity)}
        if add_on is not None:
            payload["add_on"] = add_on
        return (Proposed(ChangeKind.QUANTITY_CHANGED, at, payload),)

    return await record_changes(subscription_id, body, propose, asked=asked, store=store, clock=clock)
