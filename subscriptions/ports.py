"""What subscriptions need from a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from core.meters import Meter
from rating.domain.contract import Contract
from rating.domain.subscription import Request, Subscription
from rating.domain.timeline import Change, Timeline
from subscriptions.domain.limits import LimitPhase
from subscriptions.domain.tenant import Tenant


@dataclass(frozen=True, slots=True)
class PlanVersion:
    """A stored plan version."""

    plan_id: str
    version: int
    document: Mapping[str, Any]


class SubscriptionStore(Protocol):
    """Tenants, subscriptions and quota limits, within one transaction."""

    async def tenant(self, tenant_id: str, *, lock: bool = False) -> Tenant | None:
        """Return a tenant, None if unknown; `lock` keeps others from changing its subscriptions meanwhile."""
        ...

    async def add_tenant(self, tenant: Tenant, now: datetime) -> bool:
        """Store a tenant unless its id is taken; tells whether it was new."""
        ...

    async def put_tenant(self, tenant: Tenant, *, vat_unchecked: bool) -> None:
        """Replace a tenant's particulars; `vat_unchecked` forgets what VIES said of its number."""
        ...

    async def newest_plan(self, plan_id: str, now: datetime) -> PlanVersion | None:
        """Return the newest version of a plan that is sold, None if there is none."""
        ...

    async def plan(self, plan_id: str, version: int) -> PlanVersion | None:
        """Return a version of a plan, None if unknown."""
        ...

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        ...

    async def contracts(self, tenant_id: str) -> list[Contract]:
        """Return the tenant's contracts of all times."""
        ...

    async def subscription(self, subscription_id: str) -> Subscription | None:
        """Return a subscription with all its changes, None if unknown."""
        ...

    async def subscriptions(self, tenant_id: str) -> list[Subscription]:
        """Return all of a tenant's subscriptions, ended ones too, by start."""
        ...

    async def subscribers(self, plan_id: str, now: datetime) -> list[str]:
        """Return the ids of subscriptions that hold a plan as their own now or later, in order."""
        ...

    async def add_subscription(self, subscription: Subscription) -> None:
        """Store how a subscription begins; its entries are added by `add_changes`."""
        ...

    async def add_changes(self, subscription_id: str, entries: Sequence[tuple[Change, Request]]) -> None:
        """Store changes; what is stored already never changes."""
        ...

    async def put_phases(self, timeline: Timeline) -> None:
        """Make these the subscription's phases as known now, for those who cannot replay."""
        ...

    async def put_limits(self, tenant_id: str, limits: Sequence[LimitPhase]) -> None:
        """Make these the tenant's quota limits of all times."""
        ...

    async def tenants(self) -> list[tuple[Tenant, list[Subscription]]]:
        """Return all tenants with their subscriptions, by id."""
        ...
