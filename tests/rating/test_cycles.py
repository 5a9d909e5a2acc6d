"""Billing cycles: periods tile time for fifty years, whatever the anchor and the zone; tables of odd anchors."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.calendar import Calendar
from core.period import Period
from rating.domain.cycle import Cycle, Interval, calendar_cycle, start_cycle

# The clocks move at midnight in Santiago, Beirut and Havana; by half an hour in Lord Howe; Apia left out a day in 2011.
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/Santiago", "Asia/Beirut", "America/Havana", "Australia/Lord_Howe", "Pacific/Apia"]
)
ANCHORS = st.builds(
    lambda year, month, day: min(date(year, month, 28) + timedelta(days=day), date(year, 12, 31)),
    st.integers(2000, 2030),
    st.integers(1, 12),
    st.integers(0, 3),
) | st.dates(date(2000, 1, 1), date(2030, 12, 31))
CYCLES = st.builds(Cycle, st.sampled_from(Interval), ANCHORS, ZONES)
INSTANTS = st.integers(0, 60 * 366 * 86_400 * 1_000).map(
    lambda milliseconds: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
)


@settings(max_examples=25)
@given(CYCLES)
def test_periods_tile_fifty_years(cycle: Cycle) -> None:
    fifty_years = Period(datetime(2005, 3, 7, 11, tzinfo=UTC), datetime(2055, 3, 7, 11, tzinfo=UTC))
    periods = list(cycle.periods(fifty_years))
    assert all(before.end == after.start for before, after in pairwise(periods))
    assert fifty_years.start in periods[0]
    assert periods[-1].start < fifty_years.end <= periods[-1].end
    assert len(periods) in {50 * 12 // cycle.interval.months, 50 * 12 // cycle.interval.months + 1}


@given(CYCLES, INSTANTS)
def test_an_instant_lies_in_its_period_and_periods_are_named_by_any_of_their_instants(
    cycle: Cycle, instant: datetime
) -> None:
    period = cycle.period_at(instant)
    assert instant in period
    assert cycle.period_at(period.start) == period
    assert cycle.period_at(period.end - timedelta(microseconds=1)) == period
    assert cycle.period_at(period.end).start == period.end


@given(ZONES, st.integers(1, 31), INSTANTS)
def test_the_calendars_monthly_cycle_is_the_tenants_billing_periods(zone: str, day: int, instant: datetime) -> None:
    calendar = Calendar(zone, day)
    cycle = calendar_cycle(Interval.MONTH, calendar, instant)
    for later in (instant, instant + timedelta(days=31), instant + timedelta(days=400)):
        assert cycle.period_at(later) == calendar.period(calendar.billing_name(later))


@given(st.sampled_from(Interval), ZONES, st.integers(1, 31), INSTANTS)
def test_a_calendars_first_period_begins_at_most_a_month_before_the_start(
    interval: Interval, zone: str, day: int, instant: datetime
) -> None:
    period = calendar_cycle(interval, Calendar(zone, day), instant).period_at(instant)
    monthly = calendar_cycle(Interval.MONTH, Calendar(zone, day), instant).period_at(instant)
    assert period.start == monthly.start


def starts(cycle: Cycle, first: str, count: int) -> list[str]:
    instant, found = datetime.fromisoformat(first).replace(tzinfo=UTC), []
    for _ in range(count):
        period = cycle.period_at(instant)
        found.append(Calendar(cycle.time_zone).local_day(period.start).isoformat())
        instant = period.end
    return found


@pytest.mark.parametrize(
    ("interval", "anchor", "expected"),
    [
        (Interval.MONTH, date(2026, 1, 31), ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]),
        (Interval.MONTH, date(2028, 1, 30), ["2028-01-30", "2028-02-29", "2028-03-30", "2028-04-30", "2028-05-30"]),
        (Interval.QUARTER, date(2026, 11, 30), ["2026-11-30", "2027-02-28", "2027-05-30", "2027-08-30", "2027-11-30"]),
        (Interval.QUARTER, date(2025, 8, 31), ["2025-08-31", "2025-11-30", "2026-02-28", "2026-05-31", "2026-08-31"]),
        (Interval.YEAR, date(2024, 2, 29), ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]),
    ],
)
def test_a_day_that_a_month_lacks_is_clamped_for_that_month_only(
    interval: Interval, anchor: date, expected: list[str]
) -> None:
    assert starts(Cycle(interval, anchor), f"{anchor}T12:00", 5) == expected


def test_periods_before_the_anchor_follow_the_same_rule() -> None:
    assert starts(Cycle(Interval.MONTH, date(2026, 3, 31)), "2025-12-31", 4) == [
        "2025-12-31", "2026-01-31", "2026-02-28", "2026-03-31",
    ]  # fmt: skip


def test_a_calendar_anchor_survives_a_start_in_a_short_month() -> None:
    # 5 March lies in the period from 28 February, but the next begins on 31 March, not on 28 March.
    cycle = calendar_cycle(Interval.MONTH, Calendar("UTC", 31), datetime(2026, 3, 5, tzinfo=UTC))
    assert starts(cycle, "2026-03-05", 3) == ["2026-02-28", "2026-03-31", "2026-04-30"]
    yearly = calendar_cycle(Interval.YEAR, Calendar("UTC", 31), datetime(2026, 3, 5, tzinfo=UTC))
    assert starts(yearly, "2026-03-05", 3) == ["2026-02-28", "2027-02-28", "2028-02-29"]


def test_utc_and_the_first_is_the_utc_month() -> None:
    cycle = calendar_cycle(Interval.MONTH, Calendar(), datetime(2026, 10, 11, 9, 30, tzinfo=UTC))
    assert cycle.period_at(datetime(2026, 10, 31, 23, 59, tzinfo=UTC)) == Period(
        datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
    )


def test_a_start_cycle_begins_with_the_local_day() -> None:
    # 23:30 UTC on the 14th is 01:30 on the 15th in Berlin, whose 15 July begins at 22:00 UTC.
    cycle = start_cycle(Interval.MONTH, "Europe/Berlin", datetime(2026, 7, 14, 23, 30, tzinfo=UTC))
    assert cycle.anchor == date(2026, 7, 15)
    assert cycle.period_at(datetime(2026, 7, 20, tzinfo=UTC)).start == datetime(2026, 7, 14, 22, tzinfo=UTC)
