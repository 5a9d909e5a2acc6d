"""Creates a tenant."""

from __future__ import annotations

from datetime import datetime

from core.errors import ConflictError, must_hold
from subscriptions.domain.tenant import Tenant, check_tenant
from subscriptions.ports import SubscriptionStore


class TenantExistsError(ConflictError):
    """There is a tenant of this id with other particulars."""

    code = "tenant_exists"


async def create_tenant(tenant: Tenant, *, store: SubscriptionStore, now: datetime) -> bool:
    """Store the tenant; tells whether it was new, so creating it twice is harmless.

    Raises `InvalidInputError` for wrong particulars, `TenantExistsError` if the id belongs to a different tenant.
    """
    tenant = check_tenant(tenant)
    if await store.add_tenant(tenant, now):
        return True
    existing = await store.tenant(tenant.tenant_id)
    must_hold(existing is not None, f"tenant {tenant.tenant_id} is both there and not")
    if existing != tenant:
        raise TenantExistsError(f"there is a tenant {tenant.tenant_id!r} with other particulars")
    return False
