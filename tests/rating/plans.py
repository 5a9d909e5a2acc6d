"""Plans for tests: written as documents, read like any catalogue."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from catalogues.load_catalogue import load_catalogue, shipped_files
from core.meters import Meter
from core.period import Period, parse_month
from rating.domain.cycle import Cycle, Interval
from rating.domain.plan import Plan, parse_plan
from rating.domain.proration import Convention
from rating.domain.timeline import Held, Phase, Timeline
from rating.domain.usage import UsageRow
from rating.rate_charges import RatedLine, Rating
from rating.rate_timeline import UsageOfHolding, holdings_of, rate_holding


@dataclass(frozen=True, slots=True)
class Term:
    """When one plan is held, and nothing else: `[started_at, ended_at)`."""

    started_at: datetime
    ended_at: datetime | None = None


SHIPPED = load_catalogue(shipped_files())
METERS: dict[str, Meter] = {meter.meter_id: meter for meter in SHIPPED.meters}
TIERS: dict[str, Plan] = {plan.plan_id: plan for _, plan in SHIPPED.plans}
OCTOBER: Period = parse_month("2026-10")
ALWAYS = Term(parse_month("2026-01").start)


def plan_of(*charges: dict[str, Any], currency: str = "USD", limits: dict[str, Any] | None = None) -> Plan:
    """Return a plan with these charges, each `name`d after its id."""
    named = [{"name": charge["id"], **charge} for charge in charges]
    document: dict[str, Any] = {"name": "Test", "currency": currency, "charges": named}
    return parse_plan("test", document | ({"limits": limits} if limits else {}), METERS)


def rate(plan: Plan, usage: Iterable[UsageRow], period: Period, term: Term) -> Rating:
    """Rate a month of UTC in which the plan is held, prorated by days, as an invoice does."""
    phases = (Phase(term.started_at, term.ended_at, Held(plan.plan_id, 1)),)
    timeline = Timeline("one", "acme", Cycle(Interval.MONTH, date(2020, 1, 1)), Convention.DAYS, phases)
    lines: list[RatedLine] = []
    unpriced: list[UsageRow] = []
    for holding in holdings_of(timeline, period, lambda *_: plan):
        rated = rate_holding(holding, UsageOfHolding(tuple(usage)))
        lines += [line.rated for line in rated.lines]
        unpriced += [*rated.unpriced, *rated.foreign]
    return Rating(plan.currency, tuple(lines), tuple(sorted(unpriced, key=lambda row: (row.meter_id, row.dimensions))))


def amounts(rating: Rating) -> dict[str, str]:
    """Return the rounded amounts by line description."""
    return {line.description: str(line.amount) for line in rating.lines}


def total(rating: Rating) -> Decimal:
    return rating.total
