"""Puts a tenant on a plan, with its contract's overrides and the quota limits that follow."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from core.errors import ConflictError, Fault, InvalidInputError, NotFoundError
from rating.domain.override_plan import override_plan
from rating.domain.plan import parse_plan
from subscriptions.domain.subscription import Subscription, start_subscription
from subscriptions.ports import SubscriptionStore


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
) -> tuple[Subscription, bool]:
    """Subscribe the tenant to the newest version of the plan; returns the subscription and whether it is new.

    Asking for the plan and overrides it already has returns what there is, with the version it was sold. Raises
    `NotFoundError`, `InvalidInputError` (overrides that make no sense, `currency_mismatch`) or `SubscribedError`.
    """
    tenant = await store.tenant(tenant_id, lock=True)
    if tenant is None:
        raise NotFoundError(f"no tenant {tenant_id!r}")
    existing = await store.open_subscription(tenant_id)
    if existing is not None:
        if existing.plan_id == plan_id and existing.overrides == overrides:
            return existing, False
        raise SubscribedError(f"tenant {tenant_id!r} is on plan {existing.plan_id!r} since {existing.started_at}")
    version = await store.newest_plan(plan_id)
    if version is None:
        raise NotFoundError(f"no plan {plan_id!r}: apply a catalogue that has it")
    document = override_plan(version.document, overrides)
    path = f"plans.{plan_id} (with overrides)" if overrides else ""
    plan = parse_plan(plan_id, document, await store.meters(), path=path)
    if plan.currency != tenant.currency:
        reason = f"the plan is priced in {plan.currency}, the tenant pays in {tenant.currency}"
        raise InvalidInputError([Fault("currency_mismatch", reason, "currency")])
    subscription = start_subscription(tenant_id, plan_id, version.version, overrides, started_at)
    await store.add_subscription(subscription)
    await store.put_limits(tenant_id, plan.limits)
    return subscription, True
