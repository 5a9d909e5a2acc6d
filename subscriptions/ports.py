"""What subscriptions need from a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from core.meters import Meter
from core.period import Period
from rating.domain.plan import QuotaLimit
from subscriptions.domain.subscription import Subscription
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

    async def newest_plan(self, plan_id: str) -> PlanVersion | None:
        """Return the newest version of a plan, None if unknown."""
        ...

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        ...

    async def open_subscription(self, tenant_id: str) -> Subscription | None:
        """Return the tenant's subscription that has no end, None if there is none."""
        ...

    async def add_subscription(self, subscription: Subscription) -> None:
        """Store a subscription."""
        ...

    async def put_limits(self, tenant_id: str, limits: Iterable[QuotaLimit]) -> None:
        """Make these the tenant's quota limits."""
        ...

    async def subscriptions_in(self, period: Period) -> list[Subscription]:
        """Return the subscriptions that hold any part of the period, by tenant and start."""
        ...

    async def tenants(self) -> list[tuple[Tenant, Subscription | None]]:
        """Return all tenants with their open subscription, by id."""
        ...
