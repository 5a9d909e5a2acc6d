"""Every price that the product names, literally, against what the shipped files charge."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from catalogues.load_catalogue import load_catalogue, shipped_files
from quotas.domain.entitlement import Entitlement
from rating.domain.plan import Plan
from rating.domain.usage import usage_row
from tests.rating.plans import ALWAYS, OCTOBER, amounts, rate

SHIPPED = load_catalogue(shipped_files())
PLANS: dict[str, Plan] = {plan.plan_id: plan for _, plan in SHIPPED.plans}
PAYING = ("shared", "lite", "enterprise")


def charge(plan: str, charge_id: str) -> dict[str, Any]:
    """Return a charge as its document says it, without what is for people."""
    found = next(one for one in PLANS[plan].document["charges"] if one["id"] == charge_id)
    return {name: value for name, value in found.items() if name not in ("id", "name")}


def usage_price(meter: str, price: str, per: int = 1) -> dict[str, Any]:
    divided = {"transform_quantity": {"divide_by": per}} if per != 1 else {}
    return {"meter": meter, "model": "per_unit", "unit_amount": price, **divided}


def included(meter: str, quantity: str, **rest: Any) -> dict[str, Any]:
    return {"meter": meter, "model": "included", "included": quantity, **rest}


def fee(amount: str, **rest: Any) -> dict[str, Any]:
    return {"model": "flat", "flat_amount": amount, **rest}


HARD = {"hard_limit": True}
MONTH, YEAR = {"recurring": {"interval": "month"}}, {"recurring": {"interval": "year"}}
TIERS: list[tuple[str, str, dict[str, Any]]] = [
    ("zero", "agent_executions", included("agent_executions", "1000", **HARD)),
    ("zero", "executions", included("executions", "1000", **HARD)),
    ("zero", "api_requests", included("api_requests", "100000", **HARD)),
    ("zero_pay_per_execution", "agent_executions", usage_price("agent_executions", "0.001")),
    ("zero_pay_per_execution", "executions", usage_price("executions", "0.001")),
    ("zero_pay_per_execution", "network_egress", usage_price("network_egress", "0.10")),
    ("zero_pay_per_execution", "api_requests", included("api_requests", "100000", **HARD)),
    ("shared", "agent_executions", included("agent_executions", "10000", unit_amount="0.001")),
    ("shared", "executions", included("executions", "10000", unit_amount="0.001")),
    ("shared", "api_requests", included("api_requests", "1000000", unit_amount="0.0001")),
    ("lite", "base", fee("99", **MONTH)),
    ("lite", "agent_executions", included("agent_executions", "100000", unit_amount="0.0005")),
    ("lite", "executions", included("executions", "100000", unit_amount="0.0005")),
    ("lite", "api_requests", included("api_requests", "10000000", unit_amount="0.00005")),
    ("enterprise", "base", fee("0", **MONTH)),
    ("enterprise", "minimum", {"model": "minimum", "minimum_amount": "5000"}),
    ("enterprise", "agent_executions", usage_price("agent_executions", "0")),
    ("enterprise", "executions", usage_price("executions", "0")),
    ("enterprise", "api_requests", usage_price("api_requests", "0")),
    ("airgapped", "licence", fee("50000", type="one_time")),
    ("airgapped", "support", fee("10000", **YEAR, proration="none")),
]
METERED = [
    ("cpu", usage_price("cpu", "0.05")),
    ("cpu_time", usage_price("cpu_time", "0.05", 3600)),
    ("memory", usage_price("memory", "0.01")),
    (
        "gpu",
        {"meter": "gpu", "model": "matrix", "dimension": "gpu", "unit_amounts": {"t4": "0.50", "a100": "3.00"}},
    ),
    (
        "storage",
        {
            "meter": "storage",
            "model": "matrix",
            "dimension": "class",
            "unit_amount": "0.10",
            "unit_amounts": {"hot": "0.15", "warm": "0.08", "cold": "0.02"},
        },
    ),
    *(
        (
            f"llm_{direction}_tokens",
            {
                "meter": f"llm_{direction}_tokens",
                "model": "matrix",
                "dimension": "model",
                "transform_quantity": {"divide_by": 1000},
                "unit_amount": default,
                "unit_amounts": by_model,
            },
        )
        for direction, default, by_model in (
            ("input", "0.002", {"gpt4": "0.030", "gpt35": "0.002", "claude": "0.025"}),
            ("output", "0.004", {"gpt4": "0.060", "gpt35": "0.004", "claude": "0.050"}),
        )
    ),
]
BOUGHT = [
    ("free", "base", fee("0", **MONTH)),
    ("free", "api_calls", included("api_requests", "1000", **HARD)),
    ("starter_monthly", "base", fee("29", **MONTH)),
    ("starter_yearly", "base", fee("290", **YEAR)),
    *((f"starter_{each}", "api_calls", included("api_requests", "10000", **HARD)) for each in ("monthly", "yearly")),
    *((f"starter_{each}", "storage", included("storage", "50", **HARD)) for each in ("monthly", "yearly")),
    ("professional_monthly", "base", fee("99", **MONTH)),
    ("professional_yearly", "base", fee("990", **YEAR)),
    *(
        (f"professional_{each}", "api_calls", included("api_requests", "100000", **HARD))
        for each in ("monthly", "yearly")
    ),
    ("enterprise_monthly", "base", fee("299", **MONTH)),
    ("enterprise_yearly", "base", fee("2990", **YEAR)),
    *(
        (f"enterprise_{each}", "api_calls", included("api_requests", "1000000", **HARD))
        for each in ("monthly", "yearly")
    ),
]
SERVICES = [
    (
        "services",
        "service_usage",
        {
            "meter": "service_usage",
            "model": "matrix",
            "dimensions": ["service", "usage_type"],
            "cells": [
                {"match": {"service": "marketplace", "usage_type": "upload"}, "unit_amount": "0.10"},
                {"match": {"service": "marketplace", "usage_type": "review"}, "unit_amount": "0.05"},
                {"match": {"service": "analytics", "usage_type": "query"}, "unit_amount": "0.01"},
                {"match": {"service": "analytics", "usage_type": "report"}, "unit_amount": "0.25"},
            ],
        },
    ),
    ("services", "storage_volume", usage_price("storage_volume", "0.02")),
    ("services", "cpu", usage_price("cpu", "0.50")),
    ("services", "cpu_time", usage_price("cpu_time", "0.50", 3600)),
    ("services", "memory", usage_price("memory", "0.10")),
]
ALL = [*TIERS, *((tier, name, price) for tier in PAYING for name, price in METERED), *BOUGHT, *SERVICES]


@pytest.mark.parametrize(("plan", "charge_id", "said"), ALL, ids=[f"{plan}-{name}" for plan, name, _ in ALL])
def test_a_price_is_what_the_product_says(plan: str, charge_id: str, said: dict[str, Any]) -> None:
    assert charge(plan, charge_id) == said


def test_nothing_else_is_charged_for() -> None:
    charged = {(plan_id, one["id"]) for plan_id, plan in PLANS.items() for one in plan.document["charges"]}
    assert charged == {(plan, charge_id) for plan, charge_id, _ in ALL}
    assert {plan.currency for plan in PLANS.values()} == {"USD"}


def test_a_year_costs_ten_months() -> None:
    for plan in ("starter", "professional", "enterprise"):
        month, year = (Decimal(charge(f"{plan}_{each}", "base")["flat_amount"]) for each in ("monthly", "yearly"))
        assert year == 10 * month


def test_plans_stop_at_their_api_calls() -> None:
    limits = {
        plan_id: {limit.meter_id: (limit.limit, limit.hard) for limit in plan.limits}
        for plan_id, plan in PLANS.items()
        if plan_id.split("_")[0] in ("free", "starter", "professional") or plan_id.startswith("enterprise_")
    }
    calls = {plan_id: found["api_requests"] for plan_id, found in limits.items()}
    assert calls == {
        "free": (1_000, True),
        "starter_monthly": (10_000, True),
        "starter_yearly": (10_000, True),
        "professional_monthly": (100_000, True),
        "professional_yearly": (100_000, True),
        "enterprise_monthly": (1_000_000, True),
        "enterprise_yearly": (1_000_000, True),
    }
    assert {plan_id for plan_id, found in limits.items() if "storage" in found} == {"starter_monthly", "starter_yearly"}


def test_each_plan_gives_what_the_smaller_one_gives_and_more() -> None:
    ladder = [
        ("free", ["basic"]),
        ("starter", ["basic", "email_support"]),
        ("professional", ["basic", "email_support", "priority_support"]),
        ("enterprise", ["basic", "email_support", "priority_support", "support_24_7"]),
    ]
    for plan, features in ladder:
        ids = [plan_id for plan_id in PLANS if plan_id == plan or plan_id in (f"{plan}_monthly", f"{plan}_yearly")]
        sold = [plan_id for plan_id in ids if plan_id != "enterprise"]
        assert len(sold) == (1 if plan == "free" else 2)
        for plan_id in sold:
            given: tuple[Entitlement, ...] = SHIPPED.given[plan_id]
            assert [(one.feature.feature_id, one.value) for one in given] == [(name, True) for name in features]


def test_the_rate_card_prices_what_services_report() -> None:
    usage = [
        usage_row("service_usage", 3, {"service": "marketplace", "usage_type": "upload"}),
        usage_row("service_usage", 7, {"service": "marketplace", "usage_type": "review"}),
        usage_row("service_usage", 1_234, {"service": "analytics", "usage_type": "query"}),
        usage_row("service_usage", 5, {"service": "analytics", "usage_type": "report"}),
        usage_row("service_usage", 9, {"service": "analytics", "usage_type": "upload"}),
        usage_row("storage_volume", "100.5"),
        usage_row("cpu_time", 5_400),
        usage_row("memory", "2.25"),
    ]
    rated = rate(PLANS["services"], usage, OCTOBER, ALWAYS)
    assert amounts(rated) == {
        "Services — analytics / query": "12.34",  # 1,234 × 0.01
        "Services — analytics / report": "1.25",  # 5 × 0.25
        "Services — marketplace / review": "0.35",  # 7 × 0.05
        "Services — marketplace / upload": "0.30",  # 3 × 0.10
        "Storage": "2.01",  # 100.5 × 0.02
        "CPU by the second": "0.75",  # 5,400 s are 1.5 h × 0.50
        "Memory": "0.23",  # 2.25 × 0.10 = 0.225, half up
    }
    assert [row.quantity for row in rated.unpriced] == [9], "an upload to analytics has no price and is reported"
