"""Subscriptions with all that their invoices depend on, from PostgreSQL; reading only."""

from __future__ import annotations

from collections.abc import Sequence

from invoicing.domain.subscribed import Subscribed
from rating.adapters.postgres import plan_versions_of, read_plan_documents
from rating.adapters.postgres_redemptions import read_redemptions
from rating.adapters.stored_contracts import read_contracts
from rating.adapters.stored_timelines import read_subscriptions
from runtime.postgres import Connection


async def read_subscribed(
    connection: Connection, *, tenant_ids: Sequence[str] | None = None, subscription_ids: Sequence[str] | None = None
) -> list[Subscribed]:
    """Return the subscriptions of tenants or with certain ids, by tenant and start."""
    found = await read_subscriptions(connection, tenant_ids=tenant_ids, subscription_ids=subscription_ids)
    if not found:
        return []
    contracts = await read_contracts(connection, sorted({one.start.tenant_id for one in found}))
    versions = {version for one in found for version in plan_versions_of(one.start, one.changes)}
    documents = await read_plan_documents(connection, versions)
    redemptions = await read_redemptions(connection, [one.start for one in found])
    subscribed = []
    for one in found:
        start = one.start
        held = tuple(contracts.get(start.tenant_id, ()))
        subscribed.append(Subscribed(start, one.changes, held, documents, tuple(redemptions[start.subscription_id])))
    return subscribed
