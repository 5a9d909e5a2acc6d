"""Redis' live totals of the present month = the same month in ClickHouse, per tenant and meter.

Both name the newest journal entry that is in a total. Two totals are compared if each view has got past the newest
entry of the other; of a tenant that never rests that is a moment that has to be met, so it is tried several times. A
difference is a gap only if it is seen three times, the same.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from core.meters import Meter, Registry
from core.period import Period
from core.quantity import unscale
from core.time_weighted import area_until
from metering.reconcile.check_warehouse import Pause
from metering.reconcile.domain.gap import Gap, Side, Subject
from metering.reconcile.ports import NO_TOTAL, LiveTotals, PeriodTotal, Warehouse

_CONFIRMATIONS = 2
_ATTEMPTS = 6
# Windows of nearly every entry lie within this of the present.
_RECENT = timedelta(hours=48)


@dataclass(slots=True)
class QuotaCheck:
    """Confirmed gaps, totals (tenant, meter) that moved too much to be compared, and how many were compared."""

    gaps: list[Gap] = field(default_factory=list)
    unsettled: set[tuple[str, str]] = field(default_factory=set)
    checked: int = 0


async def check_quotas(
    tenants: Collection[str],
    registry: Registry,
    partition_of: Callable[[str], int],
    warehouse: Warehouse,
    live: LiveTotals,
    now: datetime,
    *,
    meters: Collection[str] | None = None,
    pause: Pause = asyncio.sleep,
    pause_seconds: float = 0.5,
) -> QuotaCheck:
    """Compare all meters (or some) of these tenants; raises `UnavailableError`."""
    check = QuotaCheck()
    waiting = {
        (tenant, meter.meter_id): meter
        for tenant in sorted(set(tenants) & registry.tenants)
        for meter in registry.meters
        if meters is None or meter.meter_id in meters
    }
    seen: dict[tuple[str, str], tuple[Gap, int]] = {}
    for attempt in range(_ATTEMPTS):
        if not waiting:
            break
        if attempt:
            await pause(pause_seconds)
        newest = await warehouse.newest_versions(now - _RECENT)
        states = await live.states()
        names = {tenant: registry.calendar_of(tenant).month_name(now) for tenant, _ in waiting}
        # Redis first: ClickHouse is the one that follows.
        held = await live.totals([(tenant, meter, names[tenant]) for (tenant, _), meter in waiting.items()])
        stored = await _stored(waiting, registry, now, warehouse)
        for (tenant, name), total in zip(list(waiting), held, strict=True):
            meter, partition, own = waiting[tenant, name], partition_of(tenant), stored.get((tenant, name), NO_TOTAL)
            reached = states[partition].journal_offset if partition in states else -1
            if total.version != own.version and not (
                reached >= own.version and newest.get(partition, -1) >= total.version
            ):
                seen.pop((tenant, name), None)
                continue
            gap = _compare(meter, Subject("quotas", tenant, name, (), names[tenant], partition), own, total)
            before, times = seen.get((tenant, name), (None, 0))
            times = times + 1 if before == gap else 1
            if gap is not None:
                seen[tenant, name] = gap, times
                if times <= _CONFIRMATIONS:
                    continue
                check.gaps.append(gap)
            del waiting[tenant, name]
            check.checked += 1
    check.unsettled = set(waiting)
    return check


async def _stored(
    waiting: Mapping[tuple[str, str], Meter], registry: Registry, now: datetime, warehouse: Warehouse
) -> dict[tuple[str, str], PeriodTotal]:
    """Return what ClickHouse says of all that waits, asked once per meter and calendar month."""
    asked: dict[tuple[str, Period], list[str]] = defaultdict(list)
    for tenant, name in waiting:
        calendar = registry.calendar_of(tenant)
        asked[name, calendar.period(calendar.month_name(now))].append(tenant)
    return {
        (tenant, name): total
        for (name, period), tenants in asked.items()
        for tenant, total in (await warehouse.period_totals(tenants, registry.by_id[name], period)).items()
    }


def _compare(meter: Meter, subject: Subject, stored: PeriodTotal, held: PeriodTotal) -> Gap | None:
    if held.version < 0 and stored.events == 0:
        # Nothing happened this month; a level that was carried into it stands in no live total of its own.
        return None
    if meter.aggregation != "time_weighted":
        same = (stored.quantity, stored.events) == (held.quantity, held.events)
        expected, found = stored.quantity, held.quantity
    else:
        # Both are carried on to the same instant; an area is shown as the level it stands for.
        at_us = max(stored.at_us, held.at_us)
        areas = [area_until(total.quantity, total.level, total.at_us, at_us) for total in (stored, held)]
        same = areas[0] == areas[1] and stored.level == held.level
        expected, found = stored.level, held.level
        if expected == found:
            expected, found = areas[0], areas[1]
    if same:
        return None
    return Gap(subject, Side(unscale(expected), stored.events), Side(unscale(found), held.events))
