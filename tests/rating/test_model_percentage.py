"""Prices of single events: percentages with their allowances and bounds, and events that carry their price."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import InvalidInputError
from rating.domain.price import UsageEntry
from tests.rating.price_generators import inputs_of, of_quantity
from tests.rating.priced import event, events, exact, exact_total, faults_of, rate_price

CARDS = {"model": "percentage", "percent": "2.9", "fixed_amount": "0.30"}


@pytest.mark.parametrize(
    ("price", "amounts", "expected"),
    [
        (CARDS, [], {}),
        (CARDS, ["100", "50"], {"percent": "4.35", "fixed": "0.6"}),  # 150 × 2.9 %, 2 × 0.30
        (CARDS, ["0"], {"percent": "0", "fixed": "0.3"}),  # an event of nothing is an event
        ({"model": "percentage", "percent": "0"}, ["100"], {"percent": "0"}),
        # The first two events are free, whatever they come to.
        ({**CARDS, "free_events": 2}, ["1000", "10", "100"], {"free": "0", "percent": "2.9", "fixed": "0.3"}),
        ({**CARDS, "free_events": 0}, ["100"], {"percent": "2.9", "fixed": "0.3"}),
        ({**CARDS, "free_events": 5}, ["100"], {"free": "0"}),
        # 250 are free: 50 and 100 whole, 100 of the 250; then 150 × 2.9 % + 0.30.
        ({**CARDS, "free_amount": "250"}, ["50", "100", "250"], {"free": "0", "percent": "4.35", "fixed": "0.3"}),
        # Used up exactly: the event is free, and the next one pays.
        ({**CARDS, "free_amount": "150"}, ["50", "100", "1"], {"free": "0", "percent": "0.029", "fixed": "0.3"}),
        # Both: whichever is used up first ends it. 3 events or 500:
        (
            {**CARDS, "free_events": 3, "free_amount": "500"},
            ["1"] * 4,
            {"free": "0", "percent": "0.029", "fixed": "0.3"},
        ),
        (
            {**CARDS, "free_events": 3, "free_amount": "500"},
            ["400", "200", "10"],
            {"free": "0", "percent": "3.19", "fixed": "0.6"},  # (100 + 10) × 2.9 %, 2 × 0.30
        ),
    ],
)
def test_percentage(price: dict[str, Any], amounts: list[str], expected: dict[str, str]) -> None:
    assert exact(price, events(*amounts)) == expected


BOUNDED = {**CARDS, "per_event_minimum": "1", "per_event_maximum": "5"}


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("10", {"minimum": "1"}),  # 0.29 + 0.30 = 0.59, raised
        ("24.137931034482", {"minimum": "1"}),  # 0.699999999999978 + 0.30, just below
        ("24.137931034483", {"percent": "0.700000000000007", "fixed": "0.3"}),
        ("100", {"percent": "2.9", "fixed": "0.3"}),
        ("1000", {"maximum": "5"}),  # 29.30, cut
    ],
)
def test_each_event_is_raised_to_its_minimum_and_cut_to_its_maximum(amount: str, expected: dict[str, str]) -> None:
    assert exact(BOUNDED, events(amount)) == expected


def test_an_event_that_comes_to_its_bound_is_neither_raised_nor_cut() -> None:
    price = {"model": "percentage", "percent": "1", "per_event_minimum": "1", "per_event_maximum": "5"}
    assert exact(price, events("100", "500")) == {"percent": "6"}


def test_bounds_are_of_the_event_not_of_the_sum() -> None:
    # 10 and 15 at 1 each; 100 is 3.20; 1000 and 2000 at 5 each: 2 + 3.20 + 10
    assert exact(BOUNDED, events("10", "100", "1000", "15", "2000")) == {
        "percent": "2.9",
        "fixed": "0.3",
        "minimum": "2",
        "maximum": "10",
    }


def test_bounds_come_after_the_allowance_and_leave_free_events_free() -> None:
    price = {**BOUNDED, "free_amount": "105"}
    # 100 free; of 10 only 5 are charged: 0.145 + 0.30, raised to 1.
    assert exact(price, events("100", "10")) == {"free": "0", "minimum": "1"}


def test_bounds_of_zero_and_equal_bounds_hold() -> None:
    assert exact({**CARDS, "per_event_maximum": "0"}, events("100")) == {"maximum": "0"}
    assert exact({**CARDS, "per_event_minimum": "2", "per_event_maximum": "2"}, events("1", "1000")) == {
        "minimum": "2",
        "maximum": "2",
    }


def test_the_sum_can_be_followed() -> None:
    parts = rate_price({**BOUNDED, "free_events": 1}, events("7", "10", "100", "1000")).parts
    assert {part.key: (str(part.quantity), part.unit, part.steps) for part in parts} == {
        "free": ("7", None, ("1 event of 7 free = 0",)),
        "percent": ("100", None, ("100 × 2.9 % = 2.9",)),
        "fixed": ("1", "event", ("1 × 0.3 = 0.3",)),
        "minimum": ("1", "event", ("1 event of 10 in all", "1 × 1 = 1")),
        "maximum": ("1", "event", ("1 event of 1000 in all", "1 × 5 = 5")),
    }


def test_what_was_free_is_shown() -> None:
    def step(price: dict[str, Any], *amounts: str) -> tuple[str, ...]:
        return rate_price({**CARDS, **price}, events(*amounts)).parts[0].steps

    assert step({"free_amount": "250"}, "50", "100", "250") == ("2 events of 150 and 100 of one more free = 0",)
    assert step({"free_amount": "10"}, "50") == ("10 of an event free = 0",)


def test_the_order_of_times_decides_what_is_free_not_the_order_of_arrival() -> None:
    price = {**CARDS, "free_events": 1}
    early, late = event("1000", "2026-10-01T00:00:00Z"), event("10", "2026-10-02T00:00:00Z")
    assert exact_total(price, [early, late]) == exact_total(price, [late, early]) == "0.59"  # 10 × 2.9 % + 0.30


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        (["100", "-100"], {}),  # taken back whole, with its fixed amount
        (["100", "-40"], {"percent": "1.74", "fixed": "0.3"}),  # 60 × 2.9 %
        (["100", "50", "-50"], {"percent": "2.9", "fixed": "0.3"}),  # the newest first
        (["100", "50", "-60"], {"percent": "2.61", "fixed": "0.3"}),  # all of 50, and 10 of 100
        (["-60", "100", "50"], {"percent": "2.61", "fixed": "0.3"}),  # whenever it came
        (["100", "0", "-100"], {"percent": "0", "fixed": "0.3"}),  # an event of nothing was not taken back
    ],
)
def test_corrections_take_back_the_newest_amounts(amounts: list[str], expected: dict[str, str]) -> None:
    assert exact(CARDS, events(*amounts)) == expected


def test_an_event_at_its_maximum_that_is_taken_back_costs_nothing() -> None:
    assert exact(BOUNDED, events("100000", "-100000")) == {}


def test_more_taken_back_than_there_was_is_refused() -> None:
    with pytest.raises(InvalidInputError) as refused:
        rate_price(CARDS, events("100", "-100.01"))
    assert [fault.code for fault in refused.value.faults] == ["negative_usage"]


def test_without_events_a_price_per_event_is_refused_and_a_mere_percentage_is_not() -> None:
    assert exact({"model": "percentage", "percent": "2.9", "free_amount": "50"}, "150") == {
        "free": "0",
        "percent": "2.9",
    }
    for per_event in (
        {"fixed_amount": "1"},
        {"free_events": 1},
        {"per_event_minimum": "0"},
        {"per_event_maximum": "1"},
    ):
        with pytest.raises(InvalidInputError) as refused:
            rate_price({"model": "percentage", "percent": "2.9", **per_event}, of_quantity("150"))
        assert [fault.code for fault in refused.value.faults] == ["events_needed"]


def test_an_entry_for_several_events_is_refused() -> None:
    bundle = UsageEntry(event("1").at, event("30").quantity, (), events=3)
    with pytest.raises(InvalidInputError) as refused:
        rate_price(CARDS, [bundle])
    assert [fault.code for fault in refused.value.faults] == ["single_events_needed"]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"percent": None}, ("invalid_amount", "percent")),
        ({"percent": 2.9}, ("float_amount", "percent")),
        ({"percent": "2,9"}, ("invalid_amount", "percent")),
        ({"fixed_amount": "-0.30"}, ("negative_amount", "fixed_amount")),
        ({"free_events": "3"}, ("invalid_number", "free_events")),
        ({"free_events": -1}, ("invalid_number", "free_events")),
        ({"free_events": True}, ("invalid_number", "free_events")),
        ({"per_event_minimum": "6", "per_event_maximum": "5"}, ("contradiction", "per_event_minimum")),
        ({"per_event_max": "5"}, ("unknown_field", "per_event_max")),
        ({"transform_quantity": {"divide_by": 100}}, ("unknown_field", "transform_quantity")),
    ],
)
def test_a_percentage_that_makes_no_sense_is_refused(changes: dict[str, Any], fault: tuple[str, str]) -> None:
    assert faults_of({**CARDS, **changes}) == [fault]


DYNAMIC = {"model": "dynamic", "amount_property": "cost", "multiplier": "1.2"}


def test_dynamic_charges_what_events_carry() -> None:
    usage = [event("7", amount="0.70"), event("5", amount="0.555"), event("10", amount="2.20")]
    part = rate_price(DYNAMIC, usage).parts[0]
    # (0.70 + 0.555 + 2.20) × 1.2 = 3.455 × 1.2
    assert (str(part.quantity), str(part.exact_amount), part.unit_amount) == ("22", "4.1460", None)
    assert part.steps == ("sum of cost, 3 events = 3.455", "3.455 × 1.2 = 4.146")
    assert exact({"model": "dynamic", "amount_property": "cost"}, usage) == {"": "3.455"}
    assert exact(DYNAMIC, []) == {}


def test_dynamic_corrections_lower_the_sum_and_may_not_exceed_it() -> None:
    assert exact_total(DYNAMIC, [event("7", amount="10"), event("-7", amount="-4")]) == "7.2"  # 6 × 1.2
    with pytest.raises(InvalidInputError) as refused:
        rate_price(DYNAMIC, [event("7", amount="10"), event("-7", amount="-10.01")])
    assert [fault.code for fault in refused.value.faults] == ["negative_usage"]


def test_an_event_without_an_amount_has_no_price() -> None:
    eu = (("region", "eu"),)
    rated = rate_price(DYNAMIC, [event("7", amount="1"), event("5", dimensions=eu), event("2", dimensions=eu)])
    assert [str(part.exact_amount) for part in rated.parts] == ["1.2"]
    assert rated.unpriced == ((eu, event("7").quantity),)
    # Totals alone carry no amounts either.
    assert rate_price(DYNAMIC, "12").unpriced == (((), event("12").quantity),)


def test_dynamic_names_the_property() -> None:
    assert faults_of({"model": "dynamic"}) == [("missing_field", "amount_property")]
    assert faults_of({**DYNAMIC, "multiplier": 1.2}) == [("float_amount", "multiplier")]


def test_entries_of_dimensions_are_one_sum() -> None:
    usage = [event("100", dimensions=(("region", "eu"),)), event("50", "2026-10-01T00:01:00Z")]
    assert exact_total(CARDS, inputs_of(usage)) == "4.95"  # 150 × 2.9 % + 2 × 0.30
