"""Totals and thresholds: each crossing once, re-armed by a new period and by another limit."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from core.journal import FORMAT, JournalEntry, PeriodRow
from core.quantity import UNIT
from streams.domain.quota_totals import HOURS_KEPT_MS, QuotaLimit, QuotaTotals

KEY = ("acme", "tokens")
OCTOBER, NOVEMBER = "2026-10", "2026-11"


def limit(value: str | int, *, hard: bool = False) -> dict[tuple[str, str], QuotaLimit]:
    return {KEY: QuotaLimit(Decimal(value), "token", hard)}


def entry(*rows: tuple[str, str, str, int, int], received_ms: int = 1) -> JournalEntry:
    """`rows` are (tenant, meter, period, segment, scaled quantity)."""
    periods = [
        PeriodRow(tenant, meter, period, segment, str(value), 1) for tenant, meter, period, segment, value in rows
    ]
    return JournalEntry(FORMAT, -1, 0, 0, "w", 1, received_ms, 1, 0, 0, b"", [], periods, [], {})


def used(totals: QuotaTotals, version: int, quantity: int, period: str = OCTOBER, segment: int = 0) -> None:
    totals.apply(version, entry((*KEY, period, segment, quantity * UNIT)))


def percents(totals: QuotaTotals, limits: dict[tuple[str, str], QuotaLimit]) -> list[int]:
    return [crossing.percent for crossing in totals.crossings(limits)]


def test_each_threshold_is_told_once_at_the_very_quantity() -> None:
    totals = QuotaTotals((80, 100))
    told = []
    for version, quantity in enumerate([0, 799, 800, 801, 999, 1_000, 1_001, 5_000]):
        used(totals, version, quantity)
        told.append(percents(totals, limit(1_000)))
    assert told == [[], [], [80], [], [], [100], [], []]


def test_a_jump_over_both_tells_both_lowest_first() -> None:
    totals = QuotaTotals((100, 80))
    used(totals, 0, 2_000)
    first, second = totals.crossings(limit("1000.5"))
    assert (first.percent, second.percent) == (80, 100)
    assert (first.used, first.limit, first.unit, first.period) == (Decimal(2000), Decimal("1000.5"), "token", OCTOBER)


def test_a_threshold_is_exact_below_the_smallest_quantity_a_float_could_tell() -> None:
    totals = QuotaTotals((100,))
    totals.apply(0, entry((*KEY, OCTOBER, 0, 10**15 * UNIT - 1)))
    assert percents(totals, limit(10**15)) == []
    totals.apply(1, entry((*KEY, OCTOBER, 0, 10**15 * UNIT)))
    assert percents(totals, limit(10**15)) == [100]


def test_a_raised_limit_arms_it_again_and_a_new_month_too() -> None:
    totals = QuotaTotals((80, 100))
    used(totals, 0, 1_000)
    assert percents(totals, limit(1_000)) == [80, 100]
    assert percents(totals, limit(1_200)) == [80]
    used(totals, 1, 1_200)
    assert percents(totals, limit(1_200)) == [100]
    used(totals, 2, 1_200, NOVEMBER)
    assert [(c.period, c.percent) for c in totals.crossings(limit(1_200))] == [(NOVEMBER, 80), (NOVEMBER, 100)]


def test_a_limit_changed_today_says_nothing_about_months_gone_by() -> None:
    totals = QuotaTotals((80, 100))
    used(totals, 0, 900)
    used(totals, 1, 1, NOVEMBER)
    assert totals.crossings(limit(500)) == []
    # Late usage of the old month does: it was touched now.
    used(totals, 2, 901)
    late = totals.crossings(limit(500), {(*KEY, OCTOBER)})
    assert [(crossing.period, crossing.percent) for crossing in late] == [(OCTOBER, 80), (OCTOBER, 100)]


def test_without_a_limit_or_with_none_to_reach_nothing_is_told() -> None:
    totals = QuotaTotals((80, 100))
    used(totals, 0, 1_000)
    assert totals.crossings({}) == []
    assert totals.crossings(limit(0)) == []
    assert totals.crossings({("acme", "other"): QuotaLimit(Decimal(1), "x", True)}) == []


def test_hours_have_no_thresholds() -> None:
    totals = QuotaTotals((80, 100))
    used(totals, 0, 1_000, "2026-10-31T07")
    assert totals.crossings(limit(1)) == []
    assert totals.crossings(limit(1), {(*KEY, "2026-10-31T07")}) == []


def test_segments_add_up_and_only_newer_versions_count() -> None:
    totals = QuotaTotals((100,))
    used(totals, 5, 600)
    used(totals, 6, 500, segment=9)
    assert totals.apply(5, entry((*KEY, OCTOBER, 0, 1))) == []
    assert totals.used(*KEY, OCTOBER) == 1_100
    assert percents(totals, limit(1_100)) == [100]


def test_old_hours_are_forgotten_and_months_are_not() -> None:
    totals = QuotaTotals((80,))
    day = 86_400_000
    totals.apply(0, entry((*KEY, "2026-10-01T00", 0, UNIT), (*KEY, OCTOBER, 0, UNIT), received_ms=10 * day))
    totals.apply(1, entry((*KEY, "2026-10-03T00", 0, UNIT), received_ms=12 * day))
    assert len(totals.all_totals()) == 3
    totals.apply(2, entry(("globex", "tokens", OCTOBER, 0, UNIT), received_ms=10 * day + HOURS_KEPT_MS + 3_600_001))
    assert {(total.tenant, total.period) for total in totals.all_totals()} == {
        ("acme", OCTOBER), ("acme", "2026-10-03T00"), ("globex", OCTOBER),
    }  # fmt: skip


@given(
    st.lists(st.integers(0, 300), max_size=40),
    st.sets(st.integers(1, 150), min_size=1, max_size=4),
    st.integers(1, 200),
    st.randoms(use_true_random=False),
)
def test_thresholds_told_are_those_reached_each_once_however_often_it_is_asked(
    growth: list[int], thresholds: set[int], bound: int, rng: object
) -> None:
    totals, told, reached, quantity = QuotaTotals(thresholds), [], set(), 0
    for version, step in enumerate(growth):
        quantity += step
        used(totals, version, quantity)
        if rng.random() < 0.5:  # type: ignore[attr-defined]
            used(totals, rng.randint(0, version), 10**6)  # type: ignore[attr-defined]
        for among in (None, {(*KEY, OCTOBER)}):
            told += [crossing.percent for crossing in totals.crossings(limit(bound), among)]
        reached |= {percent for percent in thresholds if quantity * 100 >= bound * percent}
        assert sorted(told) == sorted(reached)


@given(st.permutations(range(8)), st.lists(st.integers(0, 7), max_size=8))
def test_entries_in_any_order_and_again_give_the_newest_totals(order: list[int], again: list[int]) -> None:
    totals = QuotaTotals((80,))
    for version in [*order, *again]:
        totals.apply(version, entry((*KEY, OCTOBER, version % 3, (version + 1) * UNIT)))
    assert totals.used(*KEY, OCTOBER) == 7 + 8 + 6
