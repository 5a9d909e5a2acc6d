"""Gives a tenant an amount of a metered feature on top of its limit."""

from __future__ import annotations

from dataclasses import replace

from core.errors import ConflictError, Fault, InvalidInputError
from core.meters import Registry
from quotas.domain.grant import Grant, check_grant
from quotas.ports import EntitlementBooks

# Only totals that add up can be burned piece by piece.
GRANTABLE: frozenset[str] = frozenset({"sum", "count"})


async def add_grant(
    grant: Grant,
    *,
    tenant: str,
    feature_id: str,
    registry: Registry,
    books: EntitlementBooks,
    is_dated: bool = True,
) -> Grant:
    """Add a grant; again under the same id it changes nothing and returns what is there.

    `is_dated` is False where `effective_at` is only the hour of asking: a repetition may then come in a later hour.
    Raises `InvalidInputError` (also `not_grantable`), `NotFoundError`, `ConflictError` for another under this id.
    """
    check_grant(grant)
    entitlement = (await books.of_tenant(tenant)).of_feature(feature_id)
    meter = registry.by_id.get(entitlement.feature.meter_id or "")
    if meter is None or meter.aggregation not in GRANTABLE or entitlement.period == "rolling":
        why = "grants are for metered features that count a sum by month, billing period or year"
        raise InvalidInputError([Fault("not_grantable", why, "feature")])
    try:
        return await books.add_grant(tenant, feature_id, grant)
    except ConflictError:
        if is_dated:
            raise
        known = {found.grant_id: found for _, found in await books.list_grants(tenant, feature_id)}.get(grant.grant_id)
        if known is None or replace(grant, effective_at=known.effective_at, created_at=known.created_at) != known:
            raise
        return known
