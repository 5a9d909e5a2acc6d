"""Plans for tests: written as documents, read like any catalogue."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from catalogues.load_catalogue import load_catalogue, shipped_files
from core.meters import Meter
from core.period import Period, parse_month
from rating.domain.plan import Plan, parse_plan
from rating.domain.term import Term
from rating.rate_charges import Rating

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


def amounts(rating: Rating) -> dict[str, str]:
    """Return the rounded amounts by line description."""
    return {line.description: str(line.amount) for line in rating.lines}


def total(rating: Rating) -> Decimal:
    return rating.total
