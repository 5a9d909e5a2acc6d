"""Packages and time-weighted levels; the sum beside each figure."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rating.priced import exact, faults_of, rate_price

PACKAGE = {"model": "package", "package_size": "1000", "unit_amount": "5", "free_units": "100"}


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("0", {}),
        ("100", {"free": "0"}),
        ("100.000000000001", {"free": "0", "packages": "5"}),  # a sliver starts a package
        ("1100", {"free": "0", "packages": "5"}),  # exactly one package
        ("1100.1", {"free": "0", "packages": "10"}),
        ("2350", {"free": "0", "packages": "15"}),  # 2,250 beyond the free 100: 3 × 5
        (str(10**27 + 100), {"free": "0", "packages": str(5 * 10**24)}),
        (str(10**27 + 101), {"free": "0", "packages": str(5 * 10**24 + 5)}),
    ],
)
def test_a_started_package_is_paid_whole(quantity: str, expected: dict[str, str]) -> None:
    assert exact(PACKAGE, quantity) == expected


@pytest.mark.parametrize(
    ("size", "quantity", "packages"),
    [
        # Exact multiples, where a division of binary floats gives 3.0000000000000004 and so one package too many.
        ("0.1", "0.3", "3"),
        ("0.7", "4.9", "7"),
        ("1.1", "3.3", "3"),
        ("3", "10", "4"),
        ("0.000000000001", "0.000000000007", "7"),
    ],
)
def test_exact_multiples_start_no_further_package(size: str, quantity: str, packages: str) -> None:
    document = {"model": "package", "package_size": size, "unit_amount": "1"}
    assert exact(document, quantity) == {"packages": packages}


def test_the_line_counts_packages_and_shows_how_they_came_about() -> None:
    part = rate_price(PACKAGE, "2350").parts[1]
    assert (str(part.quantity), part.unit, part.label) == ("3", "package", "packages of 1,000")
    assert part.steps == ("2350 - 100 free = 2250", "2250 = 2 × 1000 + 250: 3 started", "3 × 5 = 15")
    assert rate_price({**PACKAGE, "free_units": "0"}, "2000").parts[0].steps == (
        "2000 = 2 × 1000: 2 started",
        "2 × 5 = 10",
    )


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"package_size": "0"}, ("invalid_number", "package_size")),
        ({"package_size": "-5"}, ("negative_amount", "package_size")),
        ({"package_size": 2.5}, ("float_amount", "package_size")),
        ({"package_size": None}, ("invalid_amount", "package_size")),
        ({"unit_amount": "NaN"}, ("invalid_amount", "unit_amount")),
        ({"free_units": "-1"}, ("negative_amount", "free_units")),
        ({"round": "up"}, ("unknown_field", "round")),
    ],
)
def test_a_package_that_makes_no_sense_is_refused(changes: dict[str, Any], fault: tuple[str, str]) -> None:
    assert faults_of({**PACKAGE, **changes}) == [fault]


def test_a_missing_size_is_one_fault() -> None:
    assert faults_of({"model": "package", "unit_amount": "1"}) == [("missing_field", "package_size")]


def test_time_weighted_prices_a_level_held_over_time() -> None:
    # 100 GB for 12 of 31 days and 40 GB for the other 19: (1,200 + 760) GB-days ÷ 31, as the meter measures it.
    held = "63.225806451613"
    part = rate_price({"model": "time_weighted", "unit_amount": "0.15"}, held).parts[0]
    assert part.steps == ("level × time over the period", "63.225806451613 × 0.15 = 9.48387096774195")
    assert exact({"model": "time_weighted", "unit_amount": "0.15"}, "0") == {}
