"""What billing stories are told with: plans in few words, billing a month, and that billing again gives nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from invoicing.domain.invoice import Invoice
from rating.domain.coupon import Coupon, Duration
from rating.domain.plan import Plan, parse_plan
from tests.invoicing.scene import Scene, at
from tests.rating.plans import METERS


def plan(plan_id: str, *charges: dict[str, Any], **fields: Any) -> Plan:
    """Return a plan in USD; charges are `named` after their ids."""
    named = [{"name": charge["id"].title(), **charge} for charge in charges]
    return parse_plan(plan_id, {"name": plan_id.title(), "currency": "USD", "charges": named, **fields}, METERS)


def base(amount: str, **fields: Any) -> dict[str, Any]:
    return {"id": "base", "model": "flat", "flat_amount": amount, **fields}


def seats(amount: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": "seats",
        "model": "per_unit",
        "unit_amount": amount,
        "recurring": {"usage_type": "licensed"},
        **fields,
    }


def requests(included: int, amount: str) -> dict[str, Any]:
    return {"id": "requests", "model": "included", "meter": "api_requests", "included": included, "unit_amount": amount}


CPU = {"id": "cpu", "model": "per_unit", "meter": "cpu", "unit_amount": "0.05"}
SMALL = plan("small", base("30"), requests(100, "0.10"))
LARGE = plan("large", base("90"), requests(1_000, "0.05"))


async def settled(scene: Scene, *periods: str) -> None:
    """Hold that billing these months again gives nothing new."""
    for period in periods:
        assert await scene.bill(period=period) == [], period
    assert scene.parked is None


async def the_one(scene: Scene, now: str, period: str) -> Invoice:
    (invoice,) = await scene.bill_at(now, period)
    return invoice


COUPON = Coupon("welcome", "Welcome, 20 % off", at("2026-01-01"), percent_off=Decimal(20), duration=Duration.REPEATING,
                periods=2)  # fmt: skip
