"""Level times time: one exact division, half to even."""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.calendar import Calendar
from core.errors import BrokenInvariantError
from core.period import Period
from core.quantity import UNIT
from core.time_weighted import area_until, divide_half_even, length_us, quantity_of_area, weight_us

SECOND_US, HOUR_US = 1_000_000, 3_600_000_000
DAY = Period(datetime.fromisoformat("2026-10-03T00:00Z"), datetime.fromisoformat("2026-10-04T00:00Z"))


@pytest.mark.parametrize(
    ("numerator", "denominator", "quotient"),
    [(0, 7, 0), (7, 7, 1), (1, 2, 0), (3, 2, 2), (5, 2, 2), (-1, 2, 0), (-3, 2, -2), (10, 3, 3), (11, 3, 4)],
)
def test_ties_go_to_the_even_number(numerator: int, denominator: int, quotient: int) -> None:
    assert divide_half_even(numerator, denominator) == quotient


@given(st.integers(-(10**60), 10**60), st.integers(1, 10**20))
def test_division_is_pythons_exact_rounding(numerator: int, denominator: int) -> None:
    assert divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


def test_no_weight_is_our_own_mistake() -> None:
    with pytest.raises(BrokenInvariantError):
        divide_half_even(1, 0)


def test_a_level_for_a_whole_day_by_each_weight() -> None:
    """3 units held for 24 hours: 72 unit-hours, 259,200 unit-seconds, and 3 where the weight is the period itself."""
    area = area_until(0, 3 * UNIT, 0, 24 * HOUR_US)
    assert quantity_of_area(area, "hour", DAY) == 72 * UNIT
    assert quantity_of_area(area, "second", DAY) == 259_200 * UNIT
    assert quantity_of_area(area, "month", DAY) == 3 * UNIT


@pytest.mark.parametrize(("name", "hours"), [("2026-10", 745), ("2026-03", 743), ("2026-02", 672), ("2028-02", 696)])
def test_a_month_weighs_its_own_length(name: str, hours: int) -> None:
    month = Calendar("Europe/Berlin").period(name)
    assert weight_us("month", month) == length_us(month) == hours * HOUR_US


def test_an_area_that_reaches_ahead_of_the_clock_stays_as_it_is() -> None:
    assert area_until(70, 5, at_us=100, until_us=90) == 70
    assert area_until(70, 5, at_us=100, until_us=102) == 80


@given(st.lists(st.tuples(st.integers(0, 10**27), st.integers(1, 10**13)), min_size=1, max_size=6))
def test_areas_of_pieces_add_up_to_the_whole(pieces: list[tuple[int, int]]) -> None:
    area, at = 0, 0
    for level, length in pieces:
        area = area_until(area, level, at, at + length)
        at += length
    assert area == sum(level * length for level, length in pieces)
