"""Billing a period in slices: what was billed is taken away line by line, and whole where its price has changed."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from rating.domain.meter_usage import MeterUsage
from rating.rate_charges import RatedLine
from rating.rate_slices import bill_difference, rate_list, rate_slices
from tests.rating.charge_generators import METER, read_one

ONE = {"id": "one", "name": "One", "meter": METER.meter_id}
PER_UNIT = {**ONE, "model": "per_unit", "unit_amount": "0.05"}
TIERS = [{"up_to": "100", "unit_amount": "1"}, {"up_to": "inf", "unit_amount": "0.5"}]


def used(quantity: str) -> dict[str, MeterUsage]:
    return {METER.meter_id: MeterUsage({(): Decimal(quantity)})}


def lines(quantity: str, **price: Any) -> tuple[RatedLine, ...]:
    return rate_list([read_one({**PER_UNIT, **price})], "USD", used(quantity)).lines


def shown(difference: list[RatedLine]) -> list[tuple[str, str, str]]:
    return [(line.part, f"{line.quantity:f}", str(line.amount)) for line in difference]


def test_only_what_is_due_beyond_what_was_billed_is_billed() -> None:
    difference = bill_difference(lines("100"), lines("130"))
    assert shown(difference) == [("", "30", "1.50")]
    assert difference[0].steps == ("130 × 0.05 = 6.5", "6.5 so far - 5 billed before = 1.5")
    assert shown(bill_difference(lines("130"), lines("100"))) == [("", "-30", "-1.50")]
    assert bill_difference(lines("130"), lines("130")) == []


def test_cents_are_never_rounded_twice() -> None:
    # 0.1 × 0.05 = 0.005 is a cent; 0.2 × 0.05 = 0.01 is a cent too: the second slice adds usage and no cent
    assert shown(bill_difference(lines("0.1"), lines("0.2"))) == [("", "0.1", "0.00")]


def test_a_price_that_has_changed_is_taken_back_whole_and_billed_anew() -> None:
    difference = bill_difference(lines("100"), lines("100", unit_amount="0.06"))
    assert shown(difference) == [("", "-100", "-5.00"), ("", "100", "6.00")]
    assert difference[0].steps[-1] == "billed before, taken back: -5"


def test_what_is_no_longer_due_is_taken_back() -> None:
    assert shown(bill_difference(lines("100"), ())) == [("", "-100", "-5.00")]
    nothing = [replace(line, quantity=Decimal(0), exact_amount=Decimal(0)) for line in lines("100")]
    assert bill_difference(nothing, ()) == []


def test_tiers_are_billed_tier_by_tier_and_a_volume_is_priced_anew() -> None:
    graduated = read_one({**ONE, "model": "graduated", "tiers": TIERS})
    slices = [used("80"), used("40"), used("10")]
    billed = [shown(list(rating.lines)) for rating in rate_slices([graduated], "USD", slices)]
    assert billed == [
        [("tier-1", "80", "80.00")],
        [("tier-1", "20", "20.00"), ("tier-2", "20", "10.00")],
        [("tier-2", "10", "5.00")],
    ]
    volume = read_one({**ONE, "model": "volume", "tiers": TIERS})
    billed = [shown(list(rating.lines)) for rating in rate_slices([volume], "USD", slices)]
    assert billed == [
        [("tier-1", "80", "80.00")],
        [("tier-1", "-80", "-80.00"), ("tier-2", "120", "60.00")],
        [("tier-2", "10", "5.00")],
    ]
