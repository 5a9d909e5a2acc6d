"""Models with tiers: graduated, volume, graduated percentage; the sum beside each figure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.rating.priced import exact, exact_total, faults_of, rate_price

FLAT_AND_UNIT = [
    {"up_to": "10", "unit_amount": "1", "flat_amount": "5"},
    {"up_to": "100", "unit_amount": "0.5"},
    {"up_to": "inf", "flat_amount": "20"},
]
GRADUATED = {"model": "graduated", "tiers": FLAT_AND_UNIT}
VOLUME = {"model": "volume", "tiers": FLAT_AND_UNIT}


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("0", {}),  # the flat amount of the first tier is due when it is reached, not before
        ("0.000000000001", {"tier-1": "0.000000000001", "tier-1-flat": "5"}),
        ("10", {"tier-1": "10", "tier-1-flat": "5"}),  # 10 belongs to the tier that ends at 10
        ("99.5", {"tier-1": "10", "tier-1-flat": "5", "tier-2": "44.75"}),  # 89.5 × 0.5
        ("100", {"tier-1": "10", "tier-1-flat": "5", "tier-2": "45"}),
        ("100.5", {"tier-1": "10", "tier-1-flat": "5", "tier-2": "45", "tier-3": "0", "tier-3-flat": "20"}),
    ],
)
def test_graduated_with_flat_amounts(quantity: str, expected: dict[str, str]) -> None:
    assert exact(GRADUATED, quantity) == expected


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("0", {}),
        ("10", {"tier-1": "10", "tier-1-flat": "5"}),
        ("10.1", {"tier-2": "5.05"}),  # all 10.1 at 0.5, and the flat amount of this tier alone, which has none
        ("99.5", {"tier-2": "49.75"}),
        ("100", {"tier-2": "50"}),
        ("1000", {"tier-3": "0", "tier-3-flat": "20"}),
    ],
)
def test_volume_prices_all_units_at_the_tier_of_their_total(quantity: str, expected: dict[str, str]) -> None:
    assert exact(VOLUME, quantity) == expected


def test_a_line_knows_its_tier_and_what_it_counts() -> None:
    parts = rate_price(GRADUATED, "100.5").parts
    assert [(part.key, part.tier, part.unit) for part in parts] == [
        ("tier-1", 1, None),
        ("tier-1-flat", 1, ""),
        ("tier-2", 2, None),
        ("tier-3", 3, None),
        ("tier-3-flat", 3, ""),
    ]
    assert [part.steps for part in parts] == [
        ("10 × 1 = 10",),
        ("tier 1 reached: 5",),
        ("90 × 0.5 = 45",),
        ("0.5 × 0 = 0",),
        ("tier 3 reached: 20",),
    ]
    assert rate_price(VOLUME, "99.5").parts[0].steps == ("99.5 in all: tier 2, 10 to 100", "99.5 × 0.5 = 49.75")


def test_a_price_for_a_thousand_holds_in_every_tier() -> None:
    # Blocks must not be forgotten where there are tiers.
    tiers = [{"up_to": "1000", "unit_amount": "2"}, {"up_to": "inf", "unit_amount": "1"}]
    per_thousand = {"tiers": tiers, "transform_quantity": {"divide_by": 1000}}
    assert exact({"model": "graduated", **per_thousand}, "1500") == {"tier-1": "2", "tier-2": "0.5"}
    assert exact({"model": "volume", **per_thousand}, "1500") == {"tier-2": "1.5"}


def test_tiered_is_graduated_or_volume_by_its_mode() -> None:
    for mode in ("graduated", "volume"):
        tiered = {"model": "tiered", "tiers_mode": mode, "tiers": FLAT_AND_UNIT}
        plainly = {"model": mode, "tiers": FLAT_AND_UNIT}
        assert exact(tiered, "99.5") == exact(plainly, "99.5")
        assert exact({**plainly, "tiers_mode": mode}, "99.5") == exact(plainly, "99.5")


HUGE = 10**27


def test_a_huge_quantity_is_priced_to_the_last_digit() -> None:
    tiers = [{"up_to": "10", "unit_amount": "1"}, {"up_to": "inf", "unit_amount": "999999999999999.999999999999"}]
    # (10^27 - 10) × (10^15 - 10^-12) = 10^42 - 10^15 - 10^16 + 10^-11
    beyond = Decimal(10) ** 42 - Decimal(10) ** 15 - Decimal(10) ** 16 + Decimal("1e-11")
    assert exact({"model": "graduated", "tiers": tiers}, str(HUGE)) == {"tier-1": "10", "tier-2": f"{beyond:f}"}
    # 10^27 × (10^15 - 10^-12) = 10^42 - 10^15
    assert exact({"model": "volume", "tiers": tiers}, str(HUGE)) == {"tier-2": str(10**42 - 10**15)}


def test_ten_to_the_twelve_and_more_are_not_nothing() -> None:
    # A Decimal128 of 26 places turns them into 0 elsewhere.
    tiers = [{"up_to": "inf", "unit_amount": "0.000001"}]
    assert exact({"model": "graduated", "tiers": tiers}, "1000000000000") == {"tier-1": "1000000"}


PERCENTAGES = {
    "model": "graduated_percentage",
    "tiers": [
        {"up_to": "10", "percent": "1", "flat_amount": "200"},
        {"up_to": "20", "percent": "2"},
        {"up_to": "inf", "percent": "3", "flat_amount": "400"},
    ],
}


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("0", {}),
        ("10", {"tier-1": "0.1", "tier-1-flat": "200"}),
        # Adjacent ranges share no unit: 10 × 1 % + 10 × 2 %, not 11.
        ("20", {"tier-1": "0.1", "tier-1-flat": "200", "tier-2": "0.2"}),
        ("10.5", {"tier-1": "0.1", "tier-1-flat": "200", "tier-2": "0.01"}),  # 0.5 × 2 %
        ("120", {"tier-1": "0.1", "tier-1-flat": "200", "tier-2": "0.2", "tier-3": "3", "tier-3-flat": "400"}),
    ],
)
def test_graduated_percentage(amount: str, expected: dict[str, str]) -> None:
    assert exact(PERCENTAGES, amount) == expected


def test_graduated_percentage_shows_its_sum() -> None:
    part = rate_price(PERCENTAGES, "120").parts[3]
    assert (part.label, part.steps, part.tier) == ("3 % of above 20", ("100 × 3 % = 3",), 3)


def test_a_free_first_tier_is_shown_and_free() -> None:
    tiers = [{"up_to": "100", "unit_amount": "0"}, {"up_to": "inf", "unit_amount": "2"}]
    assert exact({"model": "graduated", "tiers": tiers}, "101.5") == {"tier-1": "0", "tier-2": "3"}
    assert exact({"model": "volume", "tiers": tiers}, "100") == {"tier-1": "0"}


def test_more_may_cost_less_by_volume_and_never_by_graduated_tiers() -> None:
    tiers = [{"up_to": "1000", "unit_amount": "0.05"}, {"up_to": "inf", "unit_amount": "0.04"}]
    # 1,000 × 0.05 = 50; 1,001 × 0.04 = 40.04; 1,000 × 0.05 + 1 × 0.04 = 50.04
    assert [exact_total({"model": "volume", "tiers": tiers}, quantity) for quantity in ("1000", "1001")] == [
        "50",
        "40.04",
    ]
    assert exact_total({"model": "graduated", "tiers": tiers}, "1001") == "50.04"


ENDLESS = {"up_to": "inf", "unit_amount": "1"}


@pytest.mark.parametrize("model", ["graduated", "volume"])
@pytest.mark.parametrize(
    ("tiers", "faults"),
    [
        (None, [("tier_hole", "tiers")]),
        # A bounded last tier would bill what lies beyond at nothing.
        ([{"up_to": "10", "unit_amount": "1"}], [("tier_hole", "tiers[0].up_to")]),
        ([{"up_to": "10", "unit_amount": "1"}] * 2 + [ENDLESS], [("tier_overlap", "tiers[1].up_to")]),
        (
            [{"up_to": "10", "unit_amount": "1"}, {"up_to": "9.5", "unit_amount": "1"}, ENDLESS],
            [("tier_overlap", "tiers[1].up_to")],
        ),
        ([ENDLESS, ENDLESS], [("tier_overlap", "tiers[0].up_to")]),
        ([{"up_to": "10"}, ENDLESS], [("missing_field", "tiers[0].unit_amount")]),
        ([{"unit_amount": "1"}, ENDLESS], [("missing_field", "tiers[0].up_to"), ("tier_overlap", "tiers[0].up_to")]),
        ([{"up_to": 10.5, "unit_amount": "1"}, ENDLESS], [("float_amount", "tiers[0].up_to")]),
        ([{"up_to": "10", "unit_amount": "-1"}, ENDLESS], [("negative_amount", "tiers[0].unit_amount")]),
        ([{"up_to": "10", "flat_amount": "1e3"}, ENDLESS], [("invalid_amount", "tiers[0].flat_amount")]),
        ([{"up_to": "10", "flat_amount": "0." + "0" * 12 + "1"}, ENDLESS], [("too_many_digits", "flat_amount")]),
        ([{"up_to": "10", "unit_amount": "1", "percent": "2"}, ENDLESS], [("unknown_field", "tiers[0].percent")]),
        (["10", ENDLESS], [("invalid_type", "tiers[0]")]),
        ("10", [("invalid_type", "tiers"), ("tier_hole", "tiers")]),
    ],
)
def test_tiers_that_make_no_sense_are_refused(model: str, tiers: Any, faults: list[tuple[str, str]]) -> None:
    document = {"model": model} if tiers is None else {"model": model, "tiers": tiers}
    found = faults_of(document)
    assert all(any(code == one and path.endswith(end) for one, path in found) for code, end in faults), found


def test_every_fault_is_told_at_once() -> None:
    tiers = [{"up_to": "10", "unit_amount": 0.1}, {"up_to": "5", "unit_amount": "-1", "from": "10"}]
    assert faults_of({"model": "volume", "tiers": tiers, "tier_mode": "volume"}) == [
        ("float_amount", "tiers[0].unit_amount"),
        ("tier_hole", "tiers[1].up_to"),
        ("tier_overlap", "tiers[1].up_to"),
        ("negative_amount", "tiers[1].unit_amount"),
        ("unknown_field", "tiers[1].from"),
        ("unknown_field", "tier_mode"),
    ]


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({**GRADUATED, "tiers_mode": "volume"}, ("contradiction", "tiers_mode")),
        ({**VOLUME, "tiers_mode": "graduated"}, ("contradiction", "tiers_mode")),
        ({**GRADUATED, "model": "tiered"}, ("invalid_choice", "tiers_mode")),
        ({**GRADUATED, "model": "tiered", "tiers_mode": "slab"}, ("invalid_choice", "tiers_mode")),
        ({**GRADUATED, "model": "graduated_percentage"}, ("unknown_field", "tiers[0].unit_amount")),
    ],
)
def test_a_mode_that_contradicts_its_model_is_refused(document: dict[str, Any], fault: tuple[str, str]) -> None:
    assert fault in faults_of(document)
