"""Keeps the running cost: rates what tenants have used of a billing period so far, with the invoice's functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import structlog

from core.errors import InvalidInputError
from core.meters import Meter
from core.period import Period, month_key
from rating.domain.fine_usage import Entries, FineUsage
from rating.domain.usage import UsageRow
from rating.domain.windows import Windows
from rating.ports import CostKey, CostRow, CostSink, HeldTimeline, PeriodUsage, Timelines
from rating.rate_timeline import Holding, UsageOfHolding, holdings_of, period_name, rate_holding

_ZERO = Decimal(0)
log = structlog.get_logger()


class _Read(NamedTuple):
    """Usage that is read in one go for all tenants that need it."""

    windows: Windows
    month: Period


@dataclass(frozen=True, slots=True)
class _OpenPeriod:
    """A billing period of one subscription, and what is due in it."""

    held: HeldTimeline
    name: str
    holdings: Sequence[Holding]

    @property
    def tenant_id(self) -> str:
        return self.held.timeline.tenant_id


async def rate_open_periods(
    touched: Iterable[tuple[str, Period]], *, plans: Timelines, usage: PeriodUsage, sink: CostSink, now: datetime
) -> int:
    """Rate anew each billing period of a tenant that shares an instant with a touched span; returns how many rows.

    Rows are absolute, so rating again is harmless; what was published before and is owed no longer becomes a row of
    zero. Fees and minimums count as the period's invoice would show them if no more usage came, fees in advance with
    the period that they are for.
    """
    spans: dict[str, list[Period]] = {}
    for tenant_id, span in touched:
        spans.setdefault(tenant_id, []).append(span)
    if not spans:
        return 0
    hull = Period(
        min(one.start for found in spans.values() for one in found),
        max(one.end for found in spans.values() for one in found),
    )
    timelines = await plans.held(sorted(spans), hull)
    periods = [one for held in timelines for one in _open_periods(held, spans[held.timeline.tenant_id])]
    used = await _read_usage(periods, usage, now)
    rows = _summed(row for one in periods for row in _rows(one, used, now))
    rated = {(one.tenant_id, one.name, one.held.timeline.subscription_id) for one in periods}
    known = {held.timeline.subscription_id for held in timelines}
    # A tenant without any timeline has no calendar to name its periods by.
    without = spans.keys() - {held.timeline.tenant_id for held in timelines}
    months = {(tenant_id, month_key(span.start)) for tenant_id in without for span in spans[tenant_id]}
    asked = {(tenant_id, name) for tenant_id, name, _ in rated} | months
    rows += await _vanished(asked, rated, known, rows, sink, now)
    if rows:
        await sink.put(rows)
    return len(rows)


def _open_periods(held: HeldTimeline, spans: Sequence[Period]) -> Iterator[_OpenPeriod]:
    timeline = held.timeline
    periods = {period for span in spans for period in timeline.cycle.periods(span)}
    for period in sorted(periods):
        yield _OpenPeriod(held, period_name(timeline.cycle, period), holdings_of(timeline, period, held.plan_of))


async def _read_usage(
    periods: Iterable[_OpenPeriod], usage: PeriodUsage, now: datetime
) -> dict[tuple[_Read, str], UsageOfHolding]:
    """Read usage once per distinct windows: nearly all tenants hold their plan for the whole month."""
    tenants: dict[_Read, dict[str, None]] = {}
    wanted: dict[_Read, set[FineUsage]] = {}
    meters: dict[str, Meter] = {}
    for one in periods:
        for holding in one.holdings:
            if holding.windows is None:
                continue
            read = _Read(holding.windows, holding.period)
            tenants.setdefault(read, {})[one.tenant_id] = None
            wanted.setdefault(read, set()).update(holding.wanted)
            meters |= {charge.meter.meter_id: charge.meter for charge in holding.plan.charges if charge.meter}
    found: dict[tuple[_Read, str], UsageOfHolding] = {}
    for read, of_read in tenants.items():
        rows = await usage.usage(list(of_read), read.windows, meters=meters, month=read.month, until=now)
        entries: Mapping[str, Entries] = {}
        if wanted[read]:
            entries = await usage.fine_usage(list(of_read), read.windows, wanted[read], meters=meters)
        for tenant_id in of_read:
            found[read, tenant_id] = UsageOfHolding(_of(rows, tenant_id), entries.get(tenant_id, {}))
    return found


def _of(rows: Mapping[str, Sequence[UsageRow]], tenant_id: str) -> Sequence[UsageRow]:
    return rows.get(tenant_id, ())


def _rows(one: _OpenPeriod, used: Mapping[tuple[_Read, str], UsageOfHolding], now: datetime) -> Iterator[CostRow]:
    for holding in one.holdings:
        usage = UsageOfHolding()
        if holding.windows is not None:
            usage = used[_Read(holding.windows, holding.period), one.tenant_id]
        try:
            rated = rate_holding(holding, usage)
        except InvalidInputError as refused:
            # The invoicing consumer parks such an account; everybody else's running cost must not stop for it.
            log.error("usage.unratable", tenant=one.tenant_id, period=one.name, reason=str(refused))
            continue
        units = {charge.charge_id: charge.line_unit for charge in holding.plan.charges}
        for line in rated.lines:
            yield CostRow(
                tenant_id=one.tenant_id,
                period=one.name,
                plan_id=holding.plan.plan_id,
                charge_id=line.rated.charge_id,
                meter_id=line.rated.meter_id or "",
                # Events, packages and amounts that are there once are no quantity of the meter.
                quantity=line.rated.quantity if line.rated.unit == units[line.rated.charge_id] else _ZERO,
                amount=line.rated.amount,
                currency=holding.plan.currency,
                rated_at=now,
                version=_version(now),
                subscription_id=one.held.timeline.subscription_id,
                holding=holding.reference.text,
            )


def _summed(rows: Iterable[CostRow]) -> list[CostRow]:
    """Add the parts of a charge up: that is the stored grain."""
    sums: dict[CostKey, CostRow] = {}
    for row in rows:
        before = sums.get(row.key)
        if before is not None:
            row = replace(row, quantity=before.quantity + row.quantity, amount=before.amount + row.amount)
        sums[row.key] = row
    return list(sums.values())


async def _vanished(
    asked: set[tuple[str, str]],
    rated: set[tuple[str, str, str]],
    known: set[str],
    rows: Iterable[CostRow],
    sink: CostSink,
    now: datetime,
) -> list[CostRow]:
    """Return a row of zero for all that was published of the periods just rated and is owed no longer.

    Another subscription's period of the same name is left alone, a subscription that is gone altogether is not.
    """
    present = await sink.present(sorted({tenant for tenant, _ in asked}), sorted({period for _, period in asked}))
    owed = {row.key for row in rows}
    return [
        CostRow(
            tenant_id=key.tenant_id,
            period=key.period,
            plan_id=key.plan_id,
            charge_id=key.charge_id,
            meter_id=key.meter_id,
            quantity=_ZERO,
            amount=_ZERO,
            currency=key.currency,
            rated_at=now,
            version=_version(now),
            subscription_id=key.subscription_id,
            holding=key.holding,
        )
        for key in present
        if key not in owed
        if (key.tenant_id, key.period, key.subscription_id) in rated
        or ((key.tenant_id, key.period) in asked and key.subscription_id not in known)
    ]


def _version(now: datetime) -> int:
    return int(now.timestamp() * 1_000)
