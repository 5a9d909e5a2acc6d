"""Totals that do not add up: each price takes the grouping it splits by, and nothing is added that must not be."""

from __future__ import annotations

from decimal import Decimal

import pytest

from core.errors import BrokenInvariantError
from core.meters import Meter
from rating.domain.measured import MeasuredTotal, average_totals
from rating.domain.plan import parse_plan
from rating.domain.usage import UsageTotals, usage_row
from tests.rating.plans import ALWAYS, OCTOBER, amounts, rate

STORED = Meter("stored", "GB-month", "disk", "time_weighted", "gb", ("class", "region"), weight_per="month")
USERS = Meter("users", "user", "login", "unique", "user", ("region",))
METERS = {meter.meter_id: meter for meter in (STORED, USERS)}
PLAN = parse_plan(
    "p",
    {
        "name": "P",
        "currency": "USD",
        "charges": [
            {"id": "storage", "name": "Storage", "meter": "stored", "model": "matrix", "dimension": "class",
             "unit_amounts": {"hot": "0.15", "cold": "0.02"}, "unit_amount": "0.10"},
            {"id": "users", "name": "Users", "meter": "users", "model": "per_unit", "unit_amount": "2"},
        ],
    },
    METERS,
)  # fmt: skip


def total(meter: Meter, quantity: str, **dimensions: str) -> MeasuredTotal:
    return MeasuredTotal(meter, tuple(dimensions.items()), Decimal(quantity), 1, "")


def test_a_level_is_priced_by_class_and_users_are_counted_once_over_all_regions() -> None:
    totals = [
        total(STORED, "15"), total(STORED, "10", **{"class": "hot"}), total(STORED, "4", **{"class": "cold"}),
        total(STORED, "1", **{"class": ""}), total(STORED, "9", region="eu"), total(STORED, "6", region="us"),
        # Two of them were seen in both regions.
        total(USERS, "3"), total(USERS, "3", region="eu"), total(USERS, "2", region="us"),
    ]  # fmt: skip
    rated = rate(PLAN, [one.as_row() for one in totals], OCTOBER, ALWAYS)
    assert amounts(rated) == {
        "Storage — hot": "1.50",  # 10 × 0.15
        "Storage — cold": "0.08",  # 4 × 0.02
        "Storage": "0.10",  # 1 × 0.10, of no class
        "Users": "6.00",  # 3 × 2
    }
    assert rated.unpriced == ()


def test_what_no_price_asks_for_is_unpriced_once() -> None:
    other = Meter("peak", "seat", "seats", "max", "n", ("region",))
    totals = [total(other, "7"), total(other, "7", region="eu"), total(other, "5", region="us")]
    rated = rate(PLAN, [one.as_row() for one in totals], OCTOBER, ALWAYS)
    assert rated.unpriced == (usage_row("peak", 7),)


def test_averages_are_of_all_events_of_a_group_and_not_of_averages() -> None:
    meter = Meter("latency", "ms", "call", "average", "ms", ("region",))
    parts = [({"region": "eu"}, Decimal(10), 1), ({"region": "us"}, Decimal(20), 9), ({}, Decimal(0), 0)]
    found = {one.dimensions: (one.quantity, one.events) for one in average_totals(meter, parts)}
    assert found == {
        (): (Decimal(3), 10),  # 30 / 10
        (("region", "eu"),): (Decimal(10), 1),
        (("region", "us"),): (Decimal("2.222222222222"), 9),  # 20 / 9
    }


def test_mixed_or_missing_totals_stop_the_work() -> None:
    with pytest.raises(BrokenInvariantError):
        UsageTotals([usage_row("m", 1), usage_row("m", 1, grouped_by=())])
    with pytest.raises(BrokenInvariantError):
        UsageTotals([usage_row("m", 1, grouped_by=()), usage_row("m", 2, grouped_by=())])
    totals = UsageTotals([usage_row("m", 1, {"a": "x"}, grouped_by=("a",))])
    with pytest.raises(BrokenInvariantError):
        totals.of_meter("m", ())
