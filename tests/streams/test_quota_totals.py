"""Totals and thresholds: each crossing once, re-armed by a new period, another limit, and a fall by a correction."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.calendar import Calendar
from core.journal import FORMAT, CorrectionRow, JournalEntry, PeriodRow
from core.meters import Meter
from core.quantity import UNIT
from core.thresholds import Threshold, same_percentages
from streams.domain.quota_totals import Crossing, QuotaLimit, QuotaRules, QuotaTotals
from tests.streams.memory_quotas import MemoryBook

KEY = ("acme", "tokens")
OCTOBER, NOVEMBER = "2026-10", "2026-11"
DAY_MS = 86_400_000


class Watched:
    """Totals and the rules they are compared with."""

    def __init__(self, thresholds: Iterable[int] = (80, 100), book: MemoryBook | None = None) -> None:
        self.book = book or MemoryBook()
        self.totals = QuotaTotals(self.book)
        self.thresholds = same_percentages(thresholds)
        self.version = -1

    def used(self, quantity: int, period: str = OCTOBER, segment: int = 0, version: int | None = None) -> None:
        self.write((*KEY, period, segment, quantity * UNIT), version=version)

    def corrected(self, quantity: int, period: str = OCTOBER) -> None:
        self.write((*KEY, period, 0, quantity * UNIT), corrects=("acme",))

    def write(self, *rows: Any, version: int | None = None, **more: Any) -> Any:
        self.version = max(self.version + 1, -1 if version is None else version)
        return self.totals.apply(self.version if version is None else version, entry(*rows, **more))

    def crossings(
        self, limits: dict[tuple[str, str], QuotaLimit], among: Any = None, now_us: int = 0, **rules: Any
    ) -> list[Crossing]:
        given = {"thresholds_of": self.thresholds, **rules}
        return self.totals.crossings(QuotaRules(limits, **given), now_us, among)

    def percents(self, limits: dict[tuple[str, str], QuotaLimit]) -> list[int]:
        return [int(crossing.threshold.value) for crossing in self.crossings(limits)]


def limit(value: str | int, *, hard: bool = False, billing: bool = False) -> dict[tuple[str, str], QuotaLimit]:
    return {KEY: QuotaLimit(Decimal(value), "token", hard, billing)}


def entry(
    *rows: tuple[Any, ...], received_ms: int = 1, aggregation: str = "sum", corrects: Iterable[str] = ()
) -> JournalEntry:
    """`rows` are (tenant, meter, period, segment, scaled quantity) and, if wanted, events, level, at_us."""
    periods = [PeriodRow(*row[:4], str(row[4]), *(row[5:] or (1,))) for row in rows]
    corrections = [CorrectionRow(tenant, "void", "s", "v", "s", "e", "", 0, 0, 1) for tenant in corrects]
    return JournalEntry(
        FORMAT, -1, 0, 0, "w", 1, received_ms, 1, 0, 0, b"", b"", b"", [], periods, [], corrections, [], [], {},
        {row[1]: aggregation for row in rows}, {}, 0,
    )  # fmt: skip


def test_each_threshold_is_told_once_at_the_very_quantity() -> None:
    watched = Watched()
    told = []
    for quantity in [0, 799, 800, 801, 999, 1_000, 1_001, 5_000]:
        watched.used(quantity)
        told.append(watched.percents(limit(1_000)))
    assert told == [[], [], [80], [], [], [100], [], []]


def test_a_jump_over_both_tells_both_lowest_first() -> None:
    watched = Watched((100, 80))
    watched.used(2_000)
    first, second = watched.crossings(limit("1000.5"))
    assert (first.threshold.value, second.threshold.value) == (80, 100)
    assert (first.used, first.limit, first.unit, first.period) == (Decimal(2000), Decimal("1000.5"), "token", OCTOBER)


def test_a_threshold_is_exact_below_the_smallest_quantity_a_float_could_tell() -> None:
    watched = Watched((100,))
    watched.write((*KEY, OCTOBER, 0, 10**15 * UNIT - 1))
    assert watched.percents(limit(10**15)) == []
    watched.write((*KEY, OCTOBER, 0, 10**15 * UNIT))
    assert watched.percents(limit(10**15)) == [100]


def test_a_raised_limit_arms_it_again_and_a_new_month_too() -> None:
    watched = Watched()
    watched.used(1_000)
    assert watched.percents(limit(1_000)) == [80, 100]
    assert watched.percents(limit(1_200)) == [80]
    watched.used(1_200)
    assert watched.percents(limit(1_200)) == [100]
    watched.used(1_200, NOVEMBER)
    found = watched.crossings(limit(1_200))
    assert [(c.period, c.threshold.value) for c in found] == [(NOVEMBER, 80), (NOVEMBER, 100)]


def test_a_fall_by_a_correction_arms_again_what_it_fell_below_and_nothing_else() -> None:
    watched = Watched()
    told = []
    for step, quantity in [("used", 1_000), ("corrected", 900), ("used", 1_000), ("corrected", 700), ("used", 1_100)]:
        getattr(watched, step)(quantity)
        told.append([(int(c.threshold.value), c.arming) for c in watched.crossings(limit(1_000))])
    assert told == [[(80, 0), (100, 0)], [], [(100, 1)], [], [(80, 1), (100, 2)]]


def test_a_fall_in_steps_is_one_fall_and_one_between_two_rises_another() -> None:
    watched = Watched((50,))
    watched.used(100)
    for quantity in (70, 40, 30):
        watched.corrected(quantity)
    watched.used(60)
    assert [crossing.arming for crossing in watched.crossings(limit(100))] == [1]
    state = watched.book.find((*KEY, OCTOBER)) or watched.totals.take_changed()[(*KEY, OCTOBER)]
    assert state.falls == [(100 * UNIT, 30 * UNIT)]
    watched.corrected(10)
    watched.used(50)
    assert [crossing.arming for crossing in watched.crossings(limit(100))] == [2]


def test_the_name_of_a_crossing_does_not_depend_on_when_it_was_asked_for() -> None:
    eager, lazy, limits = Watched(), Watched(), limit(1_000)
    last: dict[Threshold, int] = {}
    for step, quantity in [("used", 1_000), ("corrected", 500), ("used", 850), ("corrected", 799), ("used", 1_000)]:
        for watched in (eager, lazy):
            getattr(watched, step)(quantity)
        last |= {crossing.threshold: crossing.arming for crossing in eager.crossings(limits)}
    assert {crossing.threshold: crossing.arming for crossing in lazy.crossings(limits)} == last
    assert last == {Threshold("percent", Decimal(80)): 2, Threshold("percent", Decimal(100)): 1}


def test_falls_count_for_a_limit_that_came_later_as_if_it_had_always_been() -> None:
    watched = Watched((100,))
    for step, quantity in [("used", 500), ("corrected", 100), ("used", 450)]:
        getattr(watched, step)(quantity)
    assert [crossing.arming for crossing in watched.crossings(limit(400))] == [1]
    assert [crossing.arming for crossing in watched.crossings(limit(100))] == [0]


def test_a_seat_count_that_swings_arms_nothing_unless_a_correction_took_it_down() -> None:
    watched = Watched((100,))
    rows = [(90, ()), (100, ()), (90, ()), (100, ()), (80, ("acme",)), (100, ())]
    told = []
    for value, corrects in rows:
        watched.write((*KEY, OCTOBER, 0, value * UNIT), aggregation="latest", corrects=corrects)
        told.append([crossing.arming for crossing in watched.crossings(limit(100))])
    assert told == [[], [0], [], [], [], [1]]


def test_units_are_reached_without_any_limit_and_a_limit_does_not_arm_them_again() -> None:
    watched = Watched()
    rules = {
        "thresholds_of": lambda tenant, meter: (Threshold("units", Decimal(70)), Threshold("percent", Decimal(80))),
        "meters": {"tokens": Meter("tokens", "token", "llm", "sum", "n")},
    }
    watched.used(70)
    [alone] = watched.crossings({}, **rules)
    assert (alone.threshold, alone.limit, alone.unit) == (Threshold("units", Decimal(70)), None, "token")
    [percent] = watched.crossings(limit(80), **rules)
    assert percent.threshold.kind == "percent"


def test_a_limit_of_billing_periods_looks_at_those_and_one_of_months_at_months() -> None:
    watched = Watched((100,))
    watched.write((*KEY, OCTOBER, 0, 100 * UNIT), (*KEY, "2026-10-15", 0, 50 * UNIT))
    assert [crossing.period for crossing in watched.crossings(limit(50, billing=True))] == ["2026-10-15"]
    assert [crossing.period for crossing in watched.crossings(limit(90))] == [OCTOBER]


def test_a_time_weighted_total_reaches_its_limit_by_time_alone() -> None:
    watched = Watched((100,))
    month_us = 31 * 86_400_000_000
    rules = {
        "meters": {"tokens": Meter("tokens", "GB-month", "disk", "time_weighted", "gb", weight_per="month")},
        "calendars": {"acme": Calendar("UTC", 1)},
    }
    start_us = 1_790_812_800_000_000  # 2026-10-01T00:00:00Z
    # 10 GB from the start: after 15.5 days half a month of them has passed, which is 5 GB-months.
    watched.write((*KEY, OCTOBER, 0, 0, 1, str(10 * UNIT), start_us), aggregation="time_weighted")
    half = start_us + month_us // 2
    assert watched.crossings(limit(5), now_us=half - 1, **rules) == []
    [crossing] = watched.crossings(limit(5), among=watched.totals.moves_by_itself(), now_us=half, **rules)
    assert (crossing.used, crossing.threshold.value) == (5, 100)


def test_an_average_is_the_sum_over_the_events() -> None:
    watched = Watched((100,))
    watched.write((*KEY, OCTOBER, 0, 30 * UNIT, 2), (*KEY, OCTOBER, 9, 10 * UNIT, 2), aggregation="average")
    assert watched.totals.used(*KEY, OCTOBER) == 10


def test_a_limit_changed_today_says_nothing_about_months_gone_by() -> None:
    watched = Watched()
    watched.used(900)
    watched.used(1, NOVEMBER)
    assert watched.crossings(limit(500)) == []
    # Late usage of the old month does: it was touched now.
    watched.used(901)
    late = watched.crossings(limit(500), {(*KEY, OCTOBER)})
    assert [(crossing.period, crossing.threshold.value) for crossing in late] == [(OCTOBER, 80), (OCTOBER, 100)]


def test_without_a_limit_or_with_none_to_reach_nothing_is_told() -> None:
    watched = Watched()
    watched.used(1_000)
    assert watched.crossings({}) == []
    assert watched.crossings(limit(0)) == []
    assert watched.crossings({("acme", "other"): QuotaLimit(Decimal(1), "x", True)}) == []


@pytest.mark.parametrize("period", ["2026-10-31T07", "2026", "now"])
def test_hours_years_and_levels_have_no_thresholds(period: str) -> None:
    watched = Watched()
    watched.used(1_000, period)
    assert watched.crossings(limit(1)) == []
    assert watched.crossings(limit(1), {(*KEY, period)}) == []


def test_segments_add_up_and_only_newer_versions_count() -> None:
    watched = Watched((100,))
    watched.used(600, version=5)
    watched.used(500, segment=9, version=6)
    assert watched.write((*KEY, OCTOBER, 0, 1), version=5) == []
    assert watched.totals.used(*KEY, OCTOBER) == 1_100
    assert watched.percents(limit(1_100)) == [100]


def test_what_memory_forgot_is_found_in_the_book() -> None:
    watched = Watched()
    watched.write(
        (*KEY, "2026-10-01T00", 0, UNIT), (*KEY, OCTOBER, 0, UNIT), (*KEY, "2026-10", 7, UNIT), received_ms=DAY_MS
    )
    watched.book.put(watched.totals.take_changed())
    watched.write(("globex", "tokens", OCTOBER, 0, UNIT), received_ms=9 * DAY_MS)
    assert list(watched.totals._states) == [("globex", "tokens", OCTOBER)]
    assert watched.totals.used(*KEY, OCTOBER) == 2
    watched.write((*KEY, OCTOBER, 9, UNIT), received_ms=9 * DAY_MS)
    watched.book.put(watched.totals.take_changed())
    assert {(t.tenant, t.segment) for t in watched.totals.all_totals(hours=False)} == {
        ("acme", 0), ("acme", 7), ("acme", 9), ("globex", 0),
    }  # fmt: skip
    assert [total.period for total in watched.totals.all_totals(hours=True)] == ["2026-10-01T00"]


def test_a_restart_from_the_book_goes_on_where_it_was() -> None:
    watched = Watched()
    watched.used(1_000)
    told = watched.crossings(limit(1_000))
    watched.corrected(10)
    watched.book.put(watched.totals.take_changed())
    again = QuotaTotals(watched.book, [crossing.mark for crossing in told])
    assert again.crossings(QuotaRules(limit(1_000)), 0) == []
    again.apply(9, entry((*KEY, OCTOBER, 0, 1_000 * UNIT)))
    assert [crossing.arming for crossing in again.crossings(QuotaRules(limit(1_000)), 0)] == [1, 1]


@given(
    st.lists(st.integers(0, 300), max_size=40),
    st.sets(st.integers(1, 150), min_size=1, max_size=4),
    st.integers(1, 200),
    st.randoms(use_true_random=False),
)
def test_thresholds_told_are_those_reached_each_once_however_often_it_is_asked(
    growth: list[int], thresholds: set[int], bound: int, rng: Any
) -> None:
    watched, told, reached, quantity = Watched(thresholds), [], set(), 0
    for version, step in enumerate(growth):
        quantity += step
        watched.used(quantity, version=version)
        if rng.random() < 0.5:
            watched.used(10**6, version=rng.randint(0, version))
        for among in (None, {(*KEY, OCTOBER)}):
            told += [int(crossing.threshold.value) for crossing in watched.crossings(limit(bound), among)]
        reached |= {percent for percent in thresholds if quantity * 100 >= bound * percent}
        assert sorted(told) == sorted(reached)


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 30), st.randoms(use_true_random=False))
def test_each_rise_to_the_bar_is_told_once_with_its_own_number_whatever_restarts_in_between(
    levels: list[int], bound: int, rng: Any
) -> None:
    # Counted apart: a rise to the bar after having been below it is one alert, numbered by the falls before it.
    expected, above, falls = [], False, 0
    for level in levels:
        if level >= bound and not above:
            expected.append(falls)
        falls += above and level < bound
        above = level >= bound
    book, told = MemoryBook(), []
    watched = Watched((100,), book)
    marks: list[Any] = []
    for version, level in enumerate(levels):
        watched.totals.apply(version, entry((*KEY, OCTOBER, 0, level * UNIT), corrects=("acme",)))
        found = watched.crossings(limit(bound), {(*KEY, OCTOBER)})
        told += [crossing.arming for crossing in found]
        marks += [crossing.mark for crossing in found]
        if rng.random() < 0.3:
            book.put(watched.totals.take_changed())
            watched.totals = QuotaTotals(book, marks)
    assert told == expected


@given(st.permutations(range(8)), st.lists(st.integers(0, 7), max_size=8))
def test_entries_in_any_order_and_again_give_the_newest_totals(order: list[int], again: list[int]) -> None:
    totals = QuotaTotals(MemoryBook())
    for version in [*order, *again]:
        totals.apply(version, entry((*KEY, OCTOBER, version % 3, (version + 1) * UNIT)))
    assert totals.used(*KEY, OCTOBER) == 7 + 8 + 6
