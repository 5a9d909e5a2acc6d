"""Moves a subscription to another plan: now (an upgrade), with the period's end (a downgrade), or at an instant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from core.clock import Clock
from core.errors import NotFoundError
from rating.domain.price import plain
from rating.domain.timeline import ChangeKind
from subscriptions.domain.proposals import Moment, Proposed, When, when_text
from subscriptions.ports import PlanVersion, SubscriptionStore
from subscriptions.record_changes import Asked, Outcome, Standing, record_changes


async def change_plan(
    subscription_id: str,
    plan_id: str,
    *,
    asked: Asked,
    store: SubscriptionStore,
    clock: Clock,
    when: When = Moment.NOW,
    version: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    quantity: Decimal | None = None,
) -> Outcome:
    """Hold a plan from a moment on, its newest version unless one is named, under these overrides and no others.

    The quantity stays unless another is given; so do add-ons. Raises like `record_changes`; for what is held at that
    moment already there is no change.
    """
    body = {
        "verb": "change_plan",
        "plan": plan_id,
        "version": version,
        "overrides": dict(overrides or {}),
        "quantity": None if quantity is None else plain(quantity),
        "when": when_text(when),
    }

    async def propose(standing: Standing) -> Sequence[Proposed]:
        at = standing.at(when)
        sold = await find_plan(plan_id, version, store, clock)
        held = standing.timeline.at(at)
        payload: dict[str, Any] = {"plan_id": plan_id, "plan_version": sold.version, "overrides": dict(overrides or {})}
        if held is not None and quantity in (None, held.quantity):
            present = {"plan_id": held.plan_id, "plan_version": held.plan_version, "overrides": dict(held.overrides)}
            if present == payload:
                return ()
        if quantity is not None:
            payload["quantity"] = plain(quantity)
        return (Proposed(ChangeKind.PLAN_CHANGED, at, payload),)

    return await record_changes(subscription_id, body, propose, asked=asked, store=store, clock=clock)


async def find_plan(plan_id: str, version: int | None, store: SubscriptionStore, clock: Clock) -> PlanVersion:
    """Return a version of a plan, the newest that is sold if None; raises `NotFoundError`."""
    if version is None:
        found = await store.newest_plan(plan_id, clock.now())
    else:
        found = await store.plan(plan_id, version)
    if found is None:
        what = f"plan {plan_id!r}" if version is None else f"version {version} of plan {plan_id!r}"
        raise NotFoundError(f"no {what}: apply a catalogue that has it")
    return found
