"""Brings what follows from a tenant's contracts up to date: its limits. Owns that none prices a meter twice."""

from __future__ import annotations

from datetime import datetime

from core.errors import InvalidInputError
from rating.domain.timeline import lay_contracts
from subscriptions.domain.limits import limit_phases
from subscriptions.domain.priced_meters import meters_priced_twice
from subscriptions.ports import SubscriptionStore
from subscriptions.read_plans import read_plans


async def follow_contracts(tenant_id: str, since: datetime, *, store: SubscriptionStore) -> None:
    """Write the limits that the tenant's subscriptions have under the contracts that are stored now.

    Runs in the transaction that changed them. Raises `InvalidInputError` (`meter_priced_twice`) if from `since` on
    they price a meter that another of the tenant's plans prices.
    """
    await store.tenant(tenant_id, lock=True)
    subscriptions = await store.subscriptions(tenant_id)
    if not subscriptions:
        return
    contracts = await store.contracts(tenant_id)
    timelines = [lay_contracts(one.timeline(), contracts) for one in subscriptions]
    plans = await read_plans(timelines, store)
    if faults := meters_priced_twice(timelines, plans, since):
        raise InvalidInputError(faults)
    await store.put_limits(tenant_id, limit_phases(timelines, plans))
