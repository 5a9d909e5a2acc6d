"""Keeps the running cost: rates what tenants have used of a month so far, with the functions invoices are made with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from core.period import Period, month_key
from rating.domain.usage import UsageRow
from rating.ports import CostRow, CostSink, HeldPlan, HeldPlans, PeriodUsage
from rating.rate_charges import rate


async def rate_open_periods(
    touched: Iterable[tuple[str, Period]], *, plans: HeldPlans, usage: PeriodUsage, sink: CostSink, now: datetime
) -> int:
    """Rate each touched (tenant, month) anew and publish the rows; returns how many.

    Rows are absolute, so rating again is harmless. Base fees and minimums count as the month's invoice would show them
    if no more usage came.
    """
    by_month: dict[Period, set[str]] = {}
    for tenant_id, period in touched:
        by_month.setdefault(period, set()).add(tenant_id)
    rows: list[CostRow] = []
    for period, tenants in by_month.items():
        held = await plans.held(sorted(tenants), period)
        used = await _usage_of(held, period, usage, now)
        for plan in held:
            window = plan.term.within(period)
            if window is not None:
                rows += _rows(plan, period, used[window].get(plan.tenant_id, ()), now)
    rows = _summed(rows)
    if rows:
        await sink.put(rows)
    return len(rows)


async def _usage_of(
    held: Sequence[HeldPlan], period: Period, usage: PeriodUsage, now: datetime
) -> dict[Period, Mapping[str, Sequence[UsageRow]]]:
    """Read usage once per distinct window: nearly all tenants hold their plan for the whole month."""
    tenants_of: dict[Period, list[str]] = {}
    for plan in held:
        window = plan.term.within(period)
        if window is not None:
            tenants_of.setdefault(window, []).append(plan.tenant_id)
    meters = {charge.meter.meter_id: charge.meter for plan in held for charge in plan.plan.charges if charge.meter}
    return {
        window: await usage.usage(tenants, window, meters=meters, month=period, until=now)
        for window, tenants in tenants_of.items()
    }


def _rows(held: HeldPlan, period: Period, used: Sequence[UsageRow], now: datetime) -> list[CostRow]:
    rating = rate(held.plan, used, period, held.term)
    return [
        CostRow(
            tenant_id=held.tenant_id,
            period=month_key(period.start),
            plan_id=held.plan.plan_id,
            charge_id=line.charge_id,
            meter_id=line.meter_id or "",
            quantity=line.quantity,
            amount=line.amount,
            currency=rating.currency,
            rated_at=now,
            version=int(now.timestamp() * 1_000),
        )
        for line in rating.lines
    ]


def _summed(rows: Iterable[CostRow]) -> list[CostRow]:
    """Add the parts of a charge up, and what two plans held in one month have in common: that is the stored grain."""
    sums: dict[tuple[str, str, str, str], tuple[CostRow, Decimal, Decimal]] = {}
    for row in rows:
        key = (row.tenant_id, row.period, row.charge_id, row.meter_id)
        _, quantity, amount = sums.get(key, (row, Decimal(0), Decimal(0)))
        sums[key] = (row, quantity + row.quantity, amount + row.amount)
    return [
        CostRow(
            tenant_id=row.tenant_id,
            period=row.period,
            plan_id=row.plan_id,
            charge_id=row.charge_id,
            meter_id=row.meter_id,
            quantity=quantity,
            amount=amount,
            currency=row.currency,
            rated_at=row.rated_at,
            version=row.version,
        )
        for row, quantity, amount in sums.values()
    ]
