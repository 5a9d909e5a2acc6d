"""Adds a further plan to a subscription, or takes one away."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from core.clock import Clock
from rating.domain.price import plain
from rating.domain.timeline import ONE, ChangeKind
from subscriptions.change_plan import find_plan
from subscriptions.domain.proposals import Moment, Proposed, When, when_text
from subscriptions.ports import SubscriptionStore
from subscriptions.record_changes import Asked, Outcome, Standing, record_changes


async def add_add_on(
    subscription_id: str,
    plan_id: str,
    *,
    asked: Asked,
    store: SubscriptionStore,
    clock: Clock,
    when: When = Moment.NOW,
    version: int | None = None,
    quantity: Decimal = ONE,
) -> Outcome:
    """Hold a plan beside the subscription's own from a moment on: its newest version unless one is named.

    Raises like `record_changes` (`add_on_exists`, `meter_priced_twice`).
    """
    body = {
        "verb": "add_add_on",
        "plan": plan_id,
        "version": version,
        "quantity": plain(quantity),
        "when": when_text(when),
    }

    async def propose(standing: Standing) -> Sequence[Proposed]:
        sold = await find_plan(plan_id, version, store, clock)
        payload = {"plan_id": plan_id, "plan_version": sold.version, "quantity": plain(quantity)}
        return (Proposed(ChangeKind.ADD_ON_ADDED, standing.at(when), payload),)

    return await record_changes(subscription_id, body, propose, asked=asked, store=store, clock=clock)


async def remove_add_on(
    subscription_id: str,
    plan_id: str,
    *,
    asked: Asked,
    store: SubscriptionStore,
    clock: Clock,
    when: When = Moment.NOW,
) -> Outcome:
    """Hold an add-on no longer from a moment on; raises like `record_changes` (`unknown_add_on`)."""
    body = {"verb": "remove_add_on", "plan": plan_id, "when": when_text(when)}

    async def propose(standing: Standing) -> Sequence[Proposed]:
        return (Proposed(ChangeKind.ADD_ON_REMOVED, standing.at(when), {"plan_id": plan_id}),)

    return await record_changes(subscription_id, body, propose, asked=asked, store=store, clock=clock)
