"""A subscription: which version of which plan a tenant holds, since when, under which contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from core.ids import derive_id
from core.period import format_instant


@dataclass(frozen=True, slots=True)
class Subscription:
    """`[started_at, ended_at)` on whole minutes: usage is kept by the minute, and no minute may belong to two."""

    subscription_id: str
    tenant_id: str
    plan_id: str
    plan_version: int
    overrides: Mapping[str, Any]
    started_at: datetime
    ended_at: datetime | None = None


def start_subscription(
    tenant_id: str, plan_id: str, plan_version: int, overrides: Mapping[str, Any], started_at: datetime
) -> Subscription:
    """Return a new subscription, its start cut to the minute; the same tenant and start give the same id."""
    start = started_at.astimezone(UTC).replace(second=0, microsecond=0)
    subscription_id = derive_id("sub", tenant_id, format_instant(start))
    return Subscription(subscription_id, tenant_id, plan_id, plan_version, overrides, start)
