"""Tenants and subscriptions in memory: what the verbs' rules need, and nothing that a database does by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from core.errors import must_hold
from core.meters import Meter
from rating.domain.contract import Contract
from rating.domain.plan import Plan
from rating.domain.subscription import Request, Subscription
from rating.domain.timeline import Change, Timeline
from subscriptions.domain.limits import LimitPhase
from subscriptions.domain.tenant import Tenant
from subscriptions.ports import PlanVersion
from tests.rating.plans import METERS, TIERS


class MemoryStore:
    """A `SubscriptionStore`; `sell` adds a version of a plan."""

    def __init__(self) -> None:
        self._tenants: dict[str, Tenant] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._plans: dict[str, list[tuple[PlanVersion, datetime | None]]] = {}
        self.meter_list: dict[str, Meter] = dict(METERS)
        self.limits: dict[str, list[LimitPhase]] = {}
        self.phases: dict[str, Timeline] = {}
        self.contract_list: list[Contract] = []
        for plan in TIERS.values():
            self.sell(plan)

    def sell(self, plan: Plan, since: datetime | None = None) -> None:
        versions = self._plans.setdefault(plan.plan_id, [])
        versions.append((PlanVersion(plan.plan_id, len(versions) + 1, plan.document), since))

    def snapshot(self) -> tuple[Any, ...]:
        return tuple(dict(one) for one in (self._tenants, self._subscriptions, self.limits, self.phases))

    def restore(self, kept: tuple[Any, ...]) -> None:
        self._tenants, self._subscriptions, self.limits, self.phases = kept

    async def tenant(self, tenant_id: str, *, lock: bool = False) -> Tenant | None:
        return self._tenants.get(tenant_id)

    async def add_tenant(self, tenant: Tenant, now: datetime) -> bool:
        return self._tenants.setdefault(tenant.tenant_id, tenant) is tenant

    async def put_tenant(self, tenant: Tenant, *, vat_unchecked: bool) -> None:
        self._tenants[tenant.tenant_id] = tenant

    async def newest_plan(self, plan_id: str, now: datetime) -> PlanVersion | None:
        sold = [one for one, since in self._plans.get(plan_id, []) if since is None or since <= now]
        return sold[-1] if sold else None

    async def plan(self, plan_id: str, version: int) -> PlanVersion | None:
        return next((one for one, _ in self._plans.get(plan_id, []) if one.version == version), None)

    async def meters(self) -> dict[str, Meter]:
        return self.meter_list

    async def contracts(self, tenant_id: str) -> list[Contract]:
        return [one for one in self.contract_list if one.tenant_id == tenant_id]

    async def subscription(self, subscription_id: str) -> Subscription | None:
        return self._subscriptions.get(subscription_id)

    async def subscriptions(self, tenant_id: str) -> list[Subscription]:
        return [one for one in self._subscriptions.values() if one.tenant_id == tenant_id]

    async def subscribers(self, plan_id: str, now: datetime) -> list[str]:
        return sorted(
            subscription_id
            for subscription_id, timeline in self.phases.items()
            if any(one.held.plan_id == plan_id and (one.end is None or one.end > now) for one in timeline.phases)
        )

    async def add_subscription(self, subscription: Subscription) -> None:
        must_hold(subscription.subscription_id not in self._subscriptions, "added twice")
        self._subscriptions[subscription.subscription_id] = replace(subscription, entries=())

    async def add_changes(self, subscription_id: str, entries: Sequence[tuple[Change, Request]]) -> None:
        stored = self._subscriptions[subscription_id]
        taken = {change.sequence for change in stored.changes}
        must_hold(not taken & {change.sequence for change, _ in entries}, "a sequence twice")
        self._subscriptions[subscription_id] = replace(stored, entries=(*stored.entries, *entries))

    async def put_phases(self, timeline: Timeline) -> None:
        self.phases[timeline.subscription_id] = timeline

    async def put_limits(self, tenant_id: str, limits: Sequence[LimitPhase]) -> None:
        self.limits[tenant_id] = list(limits)

    async def tenants(self) -> list[tuple[Tenant, list[Subscription]]]:
        return [(tenant, await self.subscriptions(tenant.tenant_id)) for tenant in self._tenants.values()]
