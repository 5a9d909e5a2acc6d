"""Puts a tenant on its one plan, with its overrides: the short way for those who need no second subscription."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from core.clock import Clock
from core.errors import ConflictError, NotFoundError
from core.period import format_instant
from rating.domain.subscription import Subscription
from subscriptions.create_subscription import NewSubscription, create_subscription
from subscriptions.ports import SubscriptionStore
from subscriptions.record_changes import Asked


class SubscribedError(ConflictError):
    """The tenant already has an open subscription to something else."""

    code = "already_subscribed"


async def subscribe_tenant(
    tenant_id: str,
    plan_id: str,
    *,
    overrides: Mapping[str, Any],
    started_at: datetime,
    store: SubscriptionStore,
    clock: Clock,
    asked: Asked | None = None,
) -> tuple[Subscription, bool]:
    """Subscribe the tenant to the newest version of the plan; returns the subscription and whether it is new.

    Asking for the plan and overrides it has, or began with, returns what there is. Raises `NotFoundError`,
    `InvalidInputError` (overrides that make no sense, `currency_mismatch`) or `SubscribedError`.
    """
    if await store.tenant(tenant_id, lock=True) is None:
        raise NotFoundError(f"no tenant {tenant_id!r}")
    for one in await store.subscriptions(tenant_id):
        phases = one.timeline().phases
        if not phases or (phases[-1].end is not None and phases[-1].end <= clock.now()):
            continue
        begun_with, last = one.start.held, phases[-1].held
        if (plan_id, dict(overrides)) in [(held.plan_id, dict(held.overrides)) for held in (begun_with, last)]:
            return one, False
        since = format_instant(phases[-1].start)
        raise SubscribedError(f"tenant {tenant_id!r} is on plan {last.plan_id!r} since {since}")
    wanted = NewSubscription(tenant_id, plan_id, started_at, overrides=overrides)
    outcome = await create_subscription(wanted, asked=asked or Asked("tenant add"), store=store, clock=clock)
    return outcome.subscription, True
