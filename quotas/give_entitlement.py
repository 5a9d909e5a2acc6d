"""Gives a feature to a tenant or a plan, and makes the feature known if it is not."""

from __future__ import annotations

from core.clock import Clock
from core.errors import Fault, InvalidInputError
from quotas.domain.entitlement import Entitlement, Feature, check_entitlement, check_feature
from quotas.ports import EntitlementBooks


async def give_entitlement(
    feature: Feature,
    entitlement: Entitlement | None,
    *,
    tenant: str | None = None,
    plan: str | None = None,
    books: EntitlementBooks,
    clock: Clock,
) -> None:
    """Make a feature known and, if an entitlement is given, give it; twice changes nothing.

    Raises `InvalidInputError`, `NotFoundError` (no such tenant or meter), `ConflictError` (a feature of another kind).
    """
    check_feature(feature)
    if entitlement is not None:
        check_entitlement(entitlement)
        if (tenant is None) == (plan is None):
            raise InvalidInputError([Fault("invalid_owner", "expected a tenant or a plan", "tenant")])
    now = clock.now()
    await books.put_feature(feature, now)
    if entitlement is not None:
        await books.put_entitlement(entitlement, tenant=tenant, plan=plan, created_at=now)
