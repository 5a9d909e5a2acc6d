"""Sums all meters of a tenant's period up: a month, year, hour, or billing period, by its name."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

from core.errors import NotFoundError
from core.meters import Registry
from core.period import Period
from metering.domain.usage_query import UsageQuery, WindowUsage
from metering.ports import UsageStore
from metering.query_usage import query_usage


@dataclass(frozen=True, slots=True)
class UsageSummary:
    """What a tenant used in a period: a total per query (its meter), for those meters that have any usage."""

    name: str
    period: Period
    time_zone: str
    totals: tuple[tuple[UsageQuery, WindowUsage], ...]


async def summarize_usage(
    registry: Registry, *, tenant: str, period: str | None, store: UsageStore, now: datetime
) -> UsageSummary:
    """Return the totals of every meter; `period` is named as `core.calendar` does, None for the present billing period.

    A level held for the whole period counts as one unit-month, whatever the period's length. Raises `NotFoundError`
    for an unknown tenant, `InvalidInputError` (`invalid_period`), `UnavailableError`.
    """
    if tenant not in registry.tenants:
        raise NotFoundError(f"no tenant {tenant[:80]!r}")
    calendar = registry.calendar_of(tenant)
    name = period if period is not None else calendar.billing_name(now)
    span = calendar.period(name)
    queries = [
        UsageQuery(tenant, meter, "total", span, calendar, limit=1, weight_period=span) for meter in registry.meters
    ]
    pages = await asyncio.gather(*(query_usage(query, store=store, now=now) for query in queries))
    totals = tuple((page.query, row) for page in pages for row in page.rows)
    return UsageSummary(name, span, calendar.time_zone, totals)
