"""Prices by time: windows of the local week, clock changes, spot prices, borders, and schedules that are refused."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from core.errors import InvalidInputError
from rating.domain.price import UsageEntry
from tests.rating.price_generators import inputs_of, read_price
from tests.rating.priced import event, exact, faults_of, rate_price

WORKDAYS = ["mon", "tue", "wed", "thu", "fri"]
PEAK = {"days": WORKDAYS, "from": "08:00", "to": "20:00", "unit_amount": "0.30"}
BERLIN = {"model": "scheduled", "time_zone": "Europe/Berlin", "windows": [PEAK], "unit_amount": "0.10"}


def at(*times: str) -> list[UsageEntry]:
    """One unit at each of these instants."""
    return [event("1", time) for time in times]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        # Thursday, 1 October 2026; Berlin is two hours ahead of UTC.
        ("2026-10-01T05:45:00Z", {"other": "0.1"}),  # 07:45
        ("2026-10-01T06:00:00Z", {"window-1": "0.3"}),  # 08:00: the border belongs to the later price
        ("2026-10-01T17:45:00Z", {"window-1": "0.3"}),
        ("2026-10-01T18:00:00Z", {"other": "0.1"}),  # 20:00 likewise
        ("2026-10-03T10:00:00Z", {"other": "0.1"}),  # Saturday
        ("2026-10-01T08:00:00+02:00", {"window-1": "0.3"}),  # another way to write 06:00Z
        # Since 25 October one hour ahead: 08:00 is 07:00Z.
        ("2026-10-26T06:45:00Z", {"other": "0.1"}),
        ("2026-10-26T07:00:00Z", {"window-1": "0.3"}),
    ],
)
def test_windows_follow_the_local_clock(time: str, expected: dict[str, str]) -> None:
    assert exact(BERLIN, at(time)) == expected


def quarters(start: str, end: str) -> list[UsageEntry]:
    """One unit in every quarter hour from start to end."""
    moment, last, found = datetime.fromisoformat(start), datetime.fromisoformat(end), []
    while moment < last:
        found.append(event("1", moment.isoformat()))
        moment += timedelta(minutes=15)
    return found


NIGHT = [
    {"from": "02:00", "to": "03:00", "unit_amount": "5"},
    {"from": "03:00", "to": "02:00", "unit_amount": "1"},
]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        # An ordinary day: 4 quarters at night, 92 others.
        ("2026-10-01T00:00:00+02:00", "2026-10-02T00:00:00+02:00", {"window-1": "20", "window-2": "92"}),
        # 25 October 2026: 02:00 to 03:00 comes twice; 25 hours.
        ("2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00", {"window-1": "40", "window-2": "92"}),
        # 29 March 2026: 02:00 to 03:00 does not come; 23 hours.
        ("2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00", {"window-2": "92"}),
    ],
)
def test_an_hour_that_comes_twice_has_its_price_twice_and_a_skipped_one_never(
    start: str, end: str, expected: dict[str, str]
) -> None:
    document = {"model": "scheduled", "time_zone": "Europe/Berlin", "windows": NIGHT}
    assert exact(document, quarters(start, end)) == expected


def test_zones_off_by_half_hours_have_their_own_borders() -> None:
    # Kathmandu is 5:45 ahead: 08:00 there is 02:15Z.
    document = {**BERLIN, "time_zone": "Asia/Kathmandu"}
    assert exact(document, at("2026-10-01T02:00:00Z")) == {"other": "0.1"}
    assert exact(document, at("2026-10-01T02:15:00Z")) == {"window-1": "0.3"}


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-10-01T08:14:59Z", {"other": "0"}),
        ("2026-10-01T08:15:00Z", {"window-1": "1"}),
        ("2026-10-01T08:44:59.999999Z", {"window-1": "1"}),
        ("2026-10-01T08:45:00Z", {"other": "0"}),
    ],
)
def test_windows_begin_on_quarter_hours_and_single_events_are_placed_exactly(
    time: str, expected: dict[str, str]
) -> None:
    window = {"from": "08:15", "to": "08:45", "unit_amount": "1"}
    assert exact({"model": "scheduled", "windows": [window], "unit_amount": "0"}, at(time)) == expected


def test_without_a_zone_the_tenants_counts() -> None:
    document = {name: value for name, value in BERLIN.items() if name != "time_zone"}
    usage = at("2026-10-01T06:00:00Z")
    assert exact(document, inputs_of(usage, time_zone="Europe/Berlin")) == {"window-1": "0.3"}
    assert exact(document, inputs_of(usage, time_zone="UTC")) == {"other": "0.1"}


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_starts() -> None:
    night = {"days": ["sun"], "from": "22:00", "to": "06:00", "unit_amount": "1"}
    document = {"model": "scheduled", "windows": [night], "unit_amount": "0"}
    # Sunday is 4 October 2026.
    assert exact(document, at("2026-10-04T22:00:00Z", "2026-10-05T05:59:00Z")) == {"window-1": "2"}
    assert exact(document, at("2026-10-05T06:00:00Z", "2026-10-05T22:00:00Z", "2026-10-04T05:00:00Z")) == {"other": "0"}


SPOT = {
    "model": "scheduled",
    "spot_prices": [
        {"from": "2026-10-01T00:00:00Z", "unit_amount": "0.10"},
        {"from": "2026-10-01T01:00:00Z", "unit_amount": "0.50"},
        {"from": "2026-10-01T04:00:00+02:00", "to": "2026-10-01T03:00:00Z", "unit_amount": "0.20"},
    ],
}


def test_spot_prices_hold_until_the_next() -> None:
    usage = [
        event("10", "2026-10-01T00:45:00Z"),
        event("2", "2026-10-01T01:00:00Z"),  # the border: the later price
        event("4", "2026-10-01T01:45:00Z"),
        event("1", "2026-10-01T02:00:00Z"),
    ]
    part = rate_price(SPOT, usage).parts[0]
    assert part.steps == (
        "from 2026-10-01T00:00Z: 10 × 0.1 = 1",
        "from 2026-10-01T01:00Z: 6 × 0.5 = 3",
        "from 2026-10-01T02:00Z: 1 × 0.2 = 0.2",
        "sum of 3 spot prices = 4.2",
    )
    assert (str(part.quantity), part.unit_amount, str(part.exact_amount)) == ("17", None, "4.20")


def test_usage_before_the_first_and_after_the_last_spot_price_has_none() -> None:
    rated = rate_price(SPOT, [event("3", "2026-09-30T23:45:00Z"), event("4", "2026-10-01T03:00:00Z")])
    assert (rated.parts, [str(quantity) for _, quantity in rated.unpriced]) == ((), ["7"])
    assert exact({**SPOT, "unit_amount": "1"}, at("2026-09-30T23:45:00Z", "2026-10-01T03:00:00Z")) == {"other": "2"}


def test_the_last_spot_price_without_an_end_holds_on() -> None:
    document = {**SPOT, "spot_prices": SPOT["spot_prices"][:2]}
    assert exact(document, at("2036-10-01T00:00:00Z")) == {"spot": "0.5"}


def test_a_spot_price_comes_before_a_window() -> None:
    document = {
        **BERLIN,
        "spot_prices": [{"from": "2026-10-01T06:00:00Z", "to": "2026-10-01T07:00:00Z", "unit_amount": "9"}],
    }
    usage = at("2026-10-01T05:45:00Z", "2026-10-01T06:00:00Z", "2026-10-01T07:00:00Z")
    assert exact(document, usage) == {"window-1": "0.3", "other": "0.1", "spot": "9"}


def test_a_correction_lowers_its_own_hours_and_no_further() -> None:
    assert exact(BERLIN, [event("5", "2026-10-01T06:00:00Z"), event("-2", "2026-10-01T17:00:00Z")]) == {
        "window-1": "0.9"
    }
    with pytest.raises(InvalidInputError) as refused:
        rate_price(BERLIN, [event("5", "2026-10-01T06:00:00Z"), event("-2", "2026-10-01T20:00:00Z")])
    assert [(fault.code, "other times" in fault.reason) for fault in refused.value.faults] == [("negative_usage", True)]


def test_a_total_without_times_is_refused() -> None:
    with pytest.raises(InvalidInputError) as refused:
        rate_price(BERLIN, "5")
    assert [fault.code for fault in refused.value.faults] == ["entries_needed"]
    assert exact(BERLIN, "0") == {}


def test_lines_name_their_window() -> None:
    part = rate_price(
        {**BERLIN, "transform_quantity": {"divide_by": 1000}}, [event("1500", "2026-10-01T06:00:00Z")]
    ).parts[0]
    assert (part.label, part.steps) == ("mon tue wed thu fri 08:00-20:00", ("1500 × 0.3 ÷ 1000 = 0.45",))


ALL_DAY = {"from": "00:00", "to": "24:00", "unit_amount": "1"}


@pytest.mark.parametrize(
    ("windows", "faults"),
    [
        ([PEAK], [("schedule_hole", "windows")]),
        ([ALL_DAY, PEAK], [("schedule_overlap", "windows[1]")]),
        ([{**ALL_DAY, "from": "20:00", "to": "08:00"}, PEAK], [("schedule_hole", "windows")]),  # weekends by day
        (
            [{**ALL_DAY, "from": "20:00", "to": "08:15"}, PEAK],
            [("schedule_overlap", "windows[1]"), ("schedule_hole", "windows")],
        ),
        ([{**ALL_DAY, "days": []}], [("missing_field", "windows[0].days")]),
        ([{**ALL_DAY, "days": ["monday"]}], [("unknown_day", "windows[0].days[0]")]),
        ([{**ALL_DAY, "days": ["mon", "mon"]}], [("duplicate_id", "windows[0].days[1]")]),
        ([{**ALL_DAY, "from": "08:10"}], [("invalid_time", "windows[0].from")]),
        ([{**ALL_DAY, "from": 480}], [("invalid_time", "windows[0].from")]),  # what YAML makes of an unquoted 8:00
        ([{**ALL_DAY, "from": "24:00"}], [("schedule_hole", "windows[0].to"), ("invalid_time", "windows[0].from")]),
        ([{**ALL_DAY, "to": "25:00"}], [("invalid_time", "windows[0].to")]),
        ([{**ALL_DAY, "to": "00:00"}], [("schedule_hole", "windows[0].to")]),
        ([{"from": "00:00", "unit_amount": "1"}], [("missing_field", "windows[0].to")]),
        ([{**ALL_DAY, "unit_amount": 0.1}], [("float_amount", "windows[0].unit_amount")]),
        ([{**ALL_DAY, "unit_amount": "-1"}], [("negative_amount", "windows[0].unit_amount")]),
        ([{**ALL_DAY, "day": "mon"}], [("unknown_field", "windows[0].day")]),
        ([], [("missing_field", "windows")]),
    ],
)
def test_windows_with_holes_or_overlaps_are_refused(windows: list[Any], faults: list[tuple[str, str]]) -> None:
    assert faults_of({"model": "scheduled", "windows": windows}) == faults


def test_the_refusal_names_the_moment() -> None:
    with pytest.raises(InvalidInputError, match=r"overlaps windows\[0\] on mon at 08:00"):
        read_price({"model": "scheduled", "windows": [ALL_DAY, PEAK]})
    with pytest.raises(InvalidInputError, match="no price on mon at 00:00"):
        read_price({"model": "scheduled", "windows": [PEAK]})


@pytest.mark.parametrize(
    ("spot_prices", "faults"),
    [
        (["2026-10-01T00:00:00Z", "2026-10-01T00:00:00Z"], [("schedule_overlap", "spot_prices[1].from")]),
        (["2026-10-01T00:15:00Z", "2026-10-01T00:00:00Z"], [("schedule_overlap", "spot_prices[1].from")]),
        (
            [("2026-10-01T00:00:00Z", "2026-10-01T00:30:00Z"), "2026-10-01T00:15:00Z"],
            [("schedule_overlap", "spot_prices[0].to")],
        ),
        (
            [("2026-10-01T00:00:00Z", "2026-10-01T00:30:00Z"), "2026-10-01T00:45:00Z"],
            [("schedule_hole", "spot_prices[1].from")],
        ),
        ([("2026-10-01T00:00:00Z", "2026-10-01T00:00:00Z")], [("schedule_overlap", "spot_prices[0].to")]),
        (["2026-10-01T00:10:00Z"], [("invalid_time", "spot_prices[0].from")]),
        (["2026-10-01T00:00:00"], [("invalid_time", "spot_prices[0].from")]),
        (["2026-10-01"], [("invalid_time", "spot_prices[0].from")]),
    ],
)
def test_spot_prices_with_gaps_or_overlaps_are_refused(spot_prices: list[Any], faults: list[tuple[str, str]]) -> None:
    documents = []
    for spot in spot_prices:
        start, end = (spot, None) if isinstance(spot, str) else spot
        documents.append({"from": start, "unit_amount": "1"} | ({} if end is None else {"to": end}))
    assert faults_of({"model": "scheduled", "spot_prices": documents}) == faults


def test_a_zone_that_does_not_exist_is_refused() -> None:
    assert faults_of({**BERLIN, "time_zone": "Europe/Atlantis"}) == [("unknown_time_zone", "time_zone")]
