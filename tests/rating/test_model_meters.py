"""Which meters a price model can be of: one that needs single events or hours cannot take a maximum apart."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import InvalidInputError
from core.meters import Aggregation, Meter
from rating.domain.plan import Plan, parse_plan

DIMENSIONS = ("model", "region")
SCHEDULED = {
    "model": "scheduled",
    "unit_amount": "1",
    "windows": [{"from": "08:00", "to": "20:00", "unit_amount": "2"}],
}
SEVERAL = {"model": "matrix", "dimensions": ["model", "region"], "unit_amount": "1"}
ONE = {"model": "matrix", "dimension": "model", "unit_amount": "1"}
PERCENTAGE = {"model": "percentage", "percent": "1"}
DYNAMIC = {"model": "dynamic", "amount_property": "cost"}
TIERS = {"model": "volume", "tiers": [{"up_to": "inf", "unit_amount": "1"}]}


def read(aggregation: Aggregation, price: dict[str, Any]) -> Plan:
    meter = Meter("used", "unit", "test.used", aggregation, "value", DIMENSIONS)
    charges = [{"id": "used", "name": "Used", "meter": "used", **price}]
    return parse_plan("test", {"name": "Test", "currency": "USD", "charges": charges}, {"used": meter})


@pytest.mark.parametrize("aggregation", ["unique", "max", "min", "latest", "time_weighted", "average"])
@pytest.mark.parametrize("price", [SCHEDULED, SEVERAL, PERCENTAGE, DYNAMIC])
def test_totals_that_do_not_add_up_are_not_taken_apart(aggregation: Aggregation, price: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read(aggregation, price)
    assert [(fault.code, fault.path) for fault in refused.value.faults] == [
        ("contradiction", "plans.test.charges[0].meter")
    ]


@pytest.mark.parametrize(
    ("aggregation", "price"),
    [
        *(
            (aggregation, price)
            for aggregation in ("sum", "count")
            for price in (SCHEDULED, SEVERAL, PERCENTAGE, DYNAMIC)
        ),
        ("max", TIERS),
        ("time_weighted", ONE),
        ("time_weighted", {"model": "time_weighted", "unit_amount": "0.15"}),
    ],
)
def test_what_adds_up_or_is_asked_whole_is_priced(aggregation: Aggregation, price: dict[str, Any]) -> None:
    assert read(aggregation, price).charges[0].price.model == price["model"]
