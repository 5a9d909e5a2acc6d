"""Seats: the subscription's quantity priced by the same models as usage, by the share of the period they are held."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from core.errors import Fault, InvalidInputError
from rating.domain.extent import Extent
from rating.domain.plan import Charge, read_price
from rating.rate_charges import RatedLine, rate_charge

LICENSED = {"recurring": {"interval": "month", "usage_type": "licensed"}}
TIERS = [{"up_to": "10", "unit_amount": "12", "flat_amount": "5"}, {"up_to": "inf", "unit_amount": "9"}]
GRADUATED = {"model": "graduated", "tiers": TIERS}
VOLUME = {"model": "volume", "tiers": TIERS}
PACKAGE = {"model": "package", "package_size": "5", "unit_amount": "50"}
PER_UNIT = {"model": "per_unit", "unit_amount": "12.50"}


def charge_of(price: dict[str, Any]) -> Charge:
    faults: list[Fault] = []
    charge = read_price({**LICENSED, **price}, "", faults, "USD")
    if charge is None:
        raise InvalidInputError(faults)
    return charge


def seats(price: dict[str, Any], quantity: str, share: Fraction = Fraction(1)) -> list[RatedLine]:
    lines, _ = rate_charge(charge_of(price), "USD", {}, extent=Extent(share, Decimal(quantity)))
    return lines


@pytest.mark.parametrize(
    ("price", "quantity", "expected"),
    [
        (PER_UNIT, "14", {"": "175.00"}),  # 14 × 12.50
        (PER_UNIT, "0", {}),
        (GRADUATED, "14", {"tier-1": "120.00", "tier-1-flat": "5.00", "tier-2": "36.00"}),  # 10 × 12, 5, 4 × 9
        (GRADUATED, "10", {"tier-1": "120.00", "tier-1-flat": "5.00"}),
        (VOLUME, "10", {"tier-1": "120.00", "tier-1-flat": "5.00"}),
        (VOLUME, "11", {"tier-2": "99.00"}),  # 11 × 9
        ({**VOLUME, "model": "tiered", "tiers_mode": "volume"}, "11", {"tier-2": "99.00"}),
        (PACKAGE, "14", {"packages": "150.00"}),  # three packages of 5
        (PACKAGE, "15", {"packages": "150.00"}),
    ],
)
def test_seats_are_priced_like_usage(price: dict[str, Any], quantity: str, expected: dict[str, str]) -> None:
    lines = seats(price, quantity)
    assert {line.part: str(line.amount) for line in lines} == expected
    assert {line.kind for line in lines} <= {"licensed"}


def test_seats_held_for_part_of_the_period_are_charged_for_it() -> None:
    # 14 seats for 10 of 30 days: 120, 5 and 36, each × 1/3
    lines = seats(GRADUATED, "14", Fraction(10, 30))
    assert [(line.part, str(line.amount)) for line in lines] == [
        ("tier-1", "40.00"),
        ("tier-1-flat", "1.67"),
        ("tier-2", "12.00"),
    ]
    assert lines[0].steps == ("10 × 12 = 120", "120 × 1/3 = 40")


def test_the_same_price_of_usage_knows_no_share() -> None:
    metered = charge_of({**PER_UNIT, "recurring": {"interval": "month", "usage_type": "metered"}})
    lines, _ = rate_charge(metered, "USD", {(): Decimal(14)}, extent=Extent(Fraction(1, 2), Decimal(99)))
    assert [(line.kind, str(line.amount)) for line in lines] == [("usage", "175.00")]


@pytest.mark.parametrize(
    "price",
    [
        {"model": "percentage", "percent": "1"},
        {"model": "dynamic", "amount_property": "cost"},
        {"model": "matrix", "dimension": "model", "unit_amount": "1"},
        {"model": "flat", "flat_amount": "1"},
        {"model": "minimum", "minimum_amount": "1"},
    ],
)
def test_seats_have_no_events_dimensions_or_times(price: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        charge_of(price)
    assert ("contradiction", "recurring.usage_type") in [(fault.code, fault.path) for fault in refused.value.faults]
