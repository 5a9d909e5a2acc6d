"""Amounts that are due without usage: reserved capacity, commitments."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from rating.domain.price import Inputs, plain
from tests.rating.price_generators import read_price
from tests.rating.priced import exact, faults_of, rate_price

RESERVED = {"model": "reserved", "capacity": "100", "flat_amount": "40", "upfront_amount": "500", "unit_amount": "0.6"}


def inputs(quantity: str = "0", share: Fraction = Fraction(1), starts: bool = False, subtotal: str = "0") -> Inputs:
    return Inputs({(): Decimal(quantity)}, share, Decimal(subtotal), starts=starts)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (inputs("0"), {"reserved": "40"}),  # unused and paid all the same
        (inputs("0", starts=True), {"upfront": "500", "reserved": "40"}),
        (inputs("99.5"), {"reserved": "40", "within": "0"}),
        (inputs("100"), {"reserved": "40", "within": "0"}),
        (inputs("100.5"), {"reserved": "40", "within": "0", "overage": "0.3"}),  # 0.5 × 0.6
        # Half a month: half the amount, the capacity whole; upfront is not divided.
        (inputs("100.5", Fraction(1, 2), True), {"upfront": "500", "reserved": "20", "within": "0", "overage": "0.3"}),
        (inputs("1", Fraction(0)), {"within": "0"}),
        # 10^27 - 100 units beyond: × 0.6
        (inputs(str(10**27)), {"reserved": "40", "within": "0", "overage": str(6 * 10**26 - 60)}),
    ],
)
def test_reserved_capacity_is_paid_used_or_not(usage: Inputs, expected: dict[str, str]) -> None:
    assert exact(RESERVED, usage) == expected


def test_reserved_parts_are_told_apart() -> None:
    parts = rate_price(RESERVED, inputs("120", Fraction(21, 31), starts=True)).parts
    assert [(part.key, part.kind, part.unit, part.label) for part in parts] == [
        ("upfront", "one_time", "", "100 reserved, upfront"),
        ("reserved", "fixed", "", "100 reserved, 21/31 of the period"),
        ("within", None, None, "within the reserved 100"),
        ("overage", None, None, "beyond the reserved 100"),
    ]
    assert parts[1].steps[0].startswith("40 × 21/31 = 27.09677419354838709677419")
    assert parts[3].steps == ("120 - 100 = 20", "20 × 0.6 = 12")


def test_what_was_not_used_is_shown() -> None:
    part = rate_price(RESERVED, inputs("60")).parts[1]
    assert part.steps == ("60 of 100 reserved, 40 left unused and paid all the same = 0",)


def test_capacity_is_a_quota_that_usage_may_exceed() -> None:
    assert read_price(RESERVED).included_quantity == (Decimal(100), False)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"capacity": None}, ("invalid_amount", "capacity")),
        ({"capacity": 100.0}, ("float_amount", "capacity")),
        ({"unit_amount": "-1"}, ("negative_amount", "unit_amount")),
        ({"upfront_amount": "1." + "1" * 13}, ("too_many_digits", "upfront_amount")),
        ({"hard_limit": True}, ("unknown_field", "hard_limit")),
    ],
)
def test_a_reservation_that_makes_no_sense_is_refused(changes: dict[str, Any], fault: tuple[str, str]) -> None:
    assert faults_of({**RESERVED, **changes}) == [fault]


def test_a_reservation_for_nothing_is_refused() -> None:
    document = {"model": "reserved", "capacity": "100", "unit_amount": "1"}
    assert faults_of(document) == [("missing_field", "flat_amount")]


@pytest.mark.parametrize(
    ("subtotal", "share", "expected"),
    [
        ("0", Fraction(1), {"": "1000"}),
        ("999.99", Fraction(1), {"": "0.01"}),
        ("1000", Fraction(1), {}),
        ("1000.01", Fraction(1), {}),
        ("100", Fraction(1, 4), {"": "150"}),  # 1,000 ÷ 4 - 100
    ],
)
def test_a_commitment_is_trued_up(subtotal: str, share: Fraction, expected: dict[str, str]) -> None:
    price = {"model": "commitment", "commitment_amount": "1000"}
    assert exact(price, inputs(share=share, subtotal=subtotal)) == expected


def test_a_true_up_is_no_minimum() -> None:
    part = rate_price({"model": "commitment", "commitment_amount": "1000"}, inputs(subtotal="400")).parts[0]
    assert (part.kind, part.steps) == ("true_up", ("1000 committed - 400 charged = 600",))
    assert plain(part.exact_amount) == "600"
    assert faults_of({"model": "commitment"}) == [("missing_field", "commitment_amount")]
