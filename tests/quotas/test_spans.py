"""Spans: which live periods make them up, in whose calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.calendar import UTC_MONTHS, Calendar
from core.errors import InvalidInputError
from core.period import Period
from quotas.domain.span import periods_of, resolve_span

NOW = datetime(2026, 11, 1, 3, 30, tzinfo=UTC)
MEXICO = Calendar("America/Mexico_City", 15)


def test_now_is_another_month_elsewhere() -> None:
    assert resolve_span("current_month", UTC_MONTHS, NOW).periods == ("2026-11",)
    assert resolve_span("current_month", MEXICO, NOW).periods == ("2026-10",)
    assert resolve_span("billing_period", MEXICO, NOW).periods == ("2026-10-15",)
    assert resolve_span("billing_period", UTC_MONTHS, NOW).periods == ("2026-11",)


def test_a_year_is_its_twelve_months_and_for_distinct_values_itself() -> None:
    span = resolve_span("current_year", MEXICO, NOW)
    assert (span.name, len(span.periods), span.periods[0], span.periods[-1]) == ("2026", 12, "2026-01", "2026-12")
    assert span.window.start == datetime(2026, 1, 1, 6, tzinfo=UTC)
    assert periods_of(span, "unique") == ("2026",)
    assert periods_of(span, "max") == span.periods
    assert span.before[:2] == ("2025-12", "2025-11")


def test_a_rolling_day_takes_the_hour_that_holds_its_start_and_the_running_one() -> None:
    span = resolve_span("rolling:24h", UTC_MONTHS, NOW)
    assert (span.periods[0], span.periods[-1], len(span.periods)) == ("2026-10-31T03", "2026-11-01T03", 25)
    assert span.window == Period(datetime(2026, 10, 31, 3, tzinfo=UTC), NOW)
    on_the_hour = resolve_span("rolling:1d", UTC_MONTHS, NOW.replace(minute=0))
    assert len(on_the_hour.periods) == 24


@given(st.integers(1, 744), st.timedeltas(timedelta(0), timedelta(days=365)))
def test_a_rolling_window_holds_all_that_was_asked_for_and_less_than_an_hour_more(hours: int, after: timedelta) -> None:
    now = NOW + after
    span = resolve_span(f"rolling:{hours}h", UTC_MONTHS, now)
    asked = timedelta(hours=hours)
    assert asked <= span.window.end - span.window.start < asked + timedelta(hours=1)
    hourly = [UTC_MONTHS.period(name) for name in span.periods]
    assert hourly[0].start == span.window.start
    assert all(one.end == other.start for one, other in pairwise(hourly))
    # The running hour is there unless it has only just begun.
    assert hourly[-1].start <= now <= hourly[-1].end


@pytest.mark.parametrize(
    "text",
    ["", "now", "rolling:0h", "rolling:745h", "rolling:32d", "2026-13", "2026-10-07", "rolling:7w", "last_month"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        resolve_span(text, MEXICO, NOW)
    assert refused.value.faults[0].code == "invalid_period"


@pytest.mark.parametrize("aggregation", ["unique", "time_weighted"])
def test_what_does_not_merge_by_the_hour_has_no_rolling_window(aggregation: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        periods_of(resolve_span("rolling:24h", UTC_MONTHS, NOW), aggregation)  # type: ignore[arg-type]
    assert refused.value.faults[0].code == "not_rolling"


def test_earlier_periods_are_of_the_same_kind_newest_first() -> None:
    assert resolve_span("2026-10-15", MEXICO, NOW).before[:2] == ("2026-09-15", "2026-08-15")
    assert resolve_span("2026-11", MEXICO, NOW).before[:2] == ("2026-10", "2026-09")
