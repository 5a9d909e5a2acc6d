"""How samples make a total: tables with the sum in a comment, and the laws behind the sums of levels."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BrokenInvariantError
from core.journal import PeriodRow
from core.quantity import UNIT
from streams.domain.period_totals import (
    NOTHING,
    Held,
    Levels,
    PeriodNames,
    Total,
    changed_rows,
    number_total,
    period_row,
    present_total,
    unique_total,
)

A, B, C = Held(10, 1, -1, 5), Held(20, 2, 0, 9), Held(30, 3, -1, 9)


@pytest.mark.parametrize(
    ("aggregation", "samples", "total"),
    [
        ("max", [A, B, C], Total(9, 3, 0, 20)),  # 9 was reached first at 20
        ("max", [C, A], Total(9, 2, 0, 30)),
        ("min", [C, B, A], Total(5, 3, 0, 10)),
        ("min", [C, B], Total(9, 2, 0, 20)),
        ("latest", [C, A, B], Total(9, 3, 0, 30)),
        ("latest", [Held(10, 1, 3, 7), Held(10, 1, 2, 8), Held(10, 0, 9, 6)], Total(7, 3, 0, 10)),
        ("max", [], NOTHING),
        ("max", [Held(10, 1, -1, 0)], Total(0, 1, 0, 10)),  # a value of 0 is a value
    ],
)
def test_the_best_of_samples(aggregation: str, samples: Sequence[Held], total: Total) -> None:
    assert number_total(aggregation, samples) == total


held = st.builds(Held, st.integers(0, 5), st.integers(0, 3), st.integers(-1, 2), st.integers(0, 3))


@pytest.mark.parametrize("aggregation", ["max", "min", "latest"])
@given(samples=st.lists(held, unique_by=lambda one: one[:3], min_size=1), seed=st.randoms())
def test_the_order_in_which_samples_come_does_not_matter(
    aggregation: str, samples: list[Held], seed: st.DrawFn
) -> None:
    shuffled = list(samples)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    assert number_total(aggregation, samples) == number_total(aggregation, shuffled)


def test_distinct_values_count_in_whole_units() -> None:
    assert unique_total(3, 7) == Total(3 * UNIT, 7)
    assert unique_total(0, 0) == NOTHING


def test_an_area_from_its_sums() -> None:
    """From 100 on: 4 carried in; at 110 one series rises by 6, at 130 another falls by 3; asked at 130.

    4 x 10 + 10 x 20 = 240, and 7 holds from 130 on.
    """
    levels = Levels(100, carry=4, at_us=130, events=2)
    levels.step(110, 6)
    levels.step(130, -3)
    assert levels.total() == Total(240, 2, 7, 130)


def test_without_events_levels_say_nothing() -> None:
    assert Levels(100, carry=4, net=1, moment=5).total() == NOTHING


@given(
    carry=st.integers(0, 10**33),
    steps=st.lists(st.tuples(st.integers(0, 10**13), st.integers(-(10**27), 10**27)), min_size=1, max_size=8),
)
def test_sums_of_steps_are_the_area_piece_by_piece(carry: int, steps: list[tuple[int, int]]) -> None:
    start = 10**15
    newest = max(at for at, _ in steps)
    levels = Levels(start, carry, at_us=start + newest, events=len(steps))
    for at, by in steps:
        levels.step(start + at, by)
    area, level, since = 0, carry, 0
    for at, by in sorted(steps):
        area += level * (at - since)
        level, since = level + by, at
    assert levels.total() == Total(area, len(steps), level, start + newest)


def test_the_present_level_outlives_its_samples() -> None:
    assert present_total(0, None, 50) == NOTHING
    assert present_total(7, None, 50) == Total(0, 1, 7, 50)
    assert present_total(7, 90, 50) == Total(0, 1, 7, 90)


def test_only_changed_totals_make_rows_and_a_lost_one_an_empty_row() -> None:
    before = {"kept": Total(1, 1), "changed": Total(2, 1), "lost": Total(3, 1)}
    after = {"kept": Total(1, 1), "changed": Total(2, 2), "new": Total(4, 1, 5, 6)}
    assert changed_rows("acme", "disk", before.items(), after.items()) == [
        PeriodRow("acme", "disk", "changed", 0, "2", 2),
        PeriodRow("acme", "disk", "lost", 0, "0", 0),
        period_row("acme", "disk", "new", Total(4, 1, 5, 6)),
    ]


class TwoPeriods:
    """A clock with a period of an hour and one of ten hours, in microseconds."""

    HOUR = 3_600_000_000
    asked = 0

    def names(self, tenant: str, time_us: int) -> tuple[str, ...]:
        self.asked += 1
        return (f"h{time_us // self.HOUR}", f"t{time_us // (10 * self.HOUR)}")

    def year_name(self, tenant: str, time_us: int) -> str:
        return "year"

    def bounds(self, tenant: str, name: str) -> tuple[int, int]:
        if name == "year":
            return 0, 9 * 10**17
        length = self.HOUR if name[0] == "h" else 10 * self.HOUR
        return int(name[1:]) * length, (int(name[1:]) + 1) * length

    def aggregation(self, meter: str) -> str:
        return "max"


def test_only_distinct_values_are_counted_by_years() -> None:
    names = PeriodNames(TwoPeriods())
    at = 25 * TwoPeriods.HOUR
    assert [name for name, _, _ in names.at("acme", "max", at, 0)] == ["h25", "t2"]
    assert [name for name, _, _ in names.at("acme", "unique", at, 0)] == ["h25", "t2", "year"]


def test_periods_are_asked_for_once_per_quarter_hour() -> None:
    periods = TwoPeriods()
    names = PeriodNames(periods)
    for minute in range(30):
        names.at("acme", "max", minute * 60_000_000, 0)
    assert periods.asked == 2


def test_a_period_that_begins_before_the_horizon_is_not_live() -> None:
    names = PeriodNames(TwoPeriods())
    at = 25 * TwoPeriods.HOUR
    assert [name for name, _, _ in names.at("acme", "max", at, 22 * TwoPeriods.HOUR)] == ["h25"]
    assert names.at("acme", "max", at, at + TwoPeriods.HOUR) == ()


def test_a_period_that_does_not_hold_its_instant_stops_the_work() -> None:
    class Wrong(TwoPeriods):
        def names(self, tenant: str, time_us: int) -> tuple[str, ...]:
            return ("h0",)

    with pytest.raises(BrokenInvariantError):
        PeriodNames(Wrong()).at("acme", "max", 2 * TwoPeriods.HOUR, 0)
