"""Calendars: daylight saving both ways, anchors in short months, odd zones; every instant in exactly one period."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.calendar import SLOT_SECONDS, UTC_MONTHS, Calendar, check_calendar
from core.errors import InvalidInputError
from core.period import Period

HOUR = timedelta(hours=1)
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",  # skipped midnights until 2018
    "America/Havana",  # midnights that occurred twice
    "America/St_Johns",  # -3:30; until 2011 the clocks went back at 00:01, over midnight
    "America/Goose_Bay",  # the same at another offset
    "Antarctica/Casey",  # went back three hours over midnight in 2010
    "Asia/Kathmandu",  # +5:45
    "Asia/Kolkata",  # +5:30
    "Australia/Lord_Howe",  # daylight saving of half an hour
    "Pacific/Apia",  # had no 30 December 2011
    "Pacific/Chatham",  # +12:45
    "Pacific/Kiritimati",  # +14
]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def hours(period: Period) -> float:
    return (period.end - period.start) / HOUR


@pytest.mark.parametrize(
    ("zone", "day", "start", "end"),
    [
        ("Europe/Berlin", "2026-03-29", "2026-03-28T23:00Z", "2026-03-29T22:00Z"),  # 23 hours
        ("Europe/Berlin", "2026-10-25", "2026-10-24T22:00Z", "2026-10-25T23:00Z"),  # 25 hours
        ("Australia/Lord_Howe", "2026-04-05", "2026-04-04T13:00Z", "2026-04-05T13:30Z"),  # 24 and a half
        ("Asia/Kathmandu", "2026-05-01", "2026-04-30T18:15Z", "2026-05-01T18:15Z"),
        ("Pacific/Chatham", "2026-07-01", "2026-06-30T11:15Z", "2026-07-01T11:15Z"),
        # Clocks went from 00:00 to 01:00: the day begins when they have moved, and has 23 hours.
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00Z", "2018-11-05T02:00Z"),
        # Clocks went from 01:00 back to 00:00: the first midnight counts, 25 hours.
        ("America/Havana", "2026-11-01", "2026-11-01T04:00Z", "2026-11-02T05:00Z"),
        # Clocks went from 00:01 back to 23:01: the first midnight counts, 25 hours.
        ("America/St_Johns", "2009-11-01", "2009-11-01T02:30Z", "2009-11-02T03:30Z"),
    ],
)
def test_a_day_lasts_from_midnight_to_midnight_however_long_that_is(zone: str, day: str, start: str, end: str) -> None:
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo(zone))
    assert Calendar(zone).day_of(noon) == Period(at(start), at(end))


@pytest.mark.parametrize(
    ("zone", "name", "length"),
    [
        ("UTC", "2026-03", 31 * 24),
        ("Europe/Berlin", "2026-03", 31 * 24 - 1),
        ("Europe/Berlin", "2026-10", 31 * 24 + 1),
        ("Europe/Berlin", "2026", 365 * 24),
        ("Australia/Lord_Howe", "2026-04", 30 * 24 + 0.5),
        ("UTC", "2028-02", 29 * 24),
        ("UTC", "2028", 366 * 24),
        ("Pacific/Apia", "2011-12", 30 * 24),
    ],
)
def test_months_and_years_are_as_long_as_the_clocks_make_them(zone: str, name: str, length: float) -> None:
    assert hours(Calendar(zone).period(name)) == length


def test_the_hours_that_the_clocks_repeat_belong_to_the_new_month() -> None:
    """St. John's, 1 November 2009: at 00:01 clocks go back to 23:01 of October; November has begun a minute before."""
    calendar = Calendar("America/St_Johns")
    midnight = at("2009-11-01T02:30Z")
    assert calendar.month_name(midnight - timedelta(microseconds=1)) == "2009-10"
    for minutes in (0, 1, 30, 59, 61):
        assert calendar.month_name(midnight + timedelta(minutes=minutes)) == "2009-11"


@pytest.mark.parametrize(
    ("anchor", "instant", "name", "start", "end"),
    [
        (31, "2026-02-28T00:00Z", "2026-02-28", "2026-02-28", "2026-03-31"),
        (31, "2026-02-27T23:59Z", "2026-01-31", "2026-01-31", "2026-02-28"),
        (31, "2026-04-30T00:00Z", "2026-04-30", "2026-04-30", "2026-05-31"),
        (31, "2028-02-29T12:00Z", "2028-02-29", "2028-02-29", "2028-03-31"),
        (29, "2026-03-01T00:00Z", "2026-02-28", "2026-02-28", "2026-03-29"),
        (29, "2028-03-01T00:00Z", "2028-02-29", "2028-02-29", "2028-03-29"),
        (30, "2027-01-01T00:00Z", "2026-12-30", "2026-12-30", "2027-01-30"),
        (15, "2026-10-14T23:59:59.999999Z", "2026-09-15", "2026-09-15", "2026-10-15"),
        (15, "2026-10-15T00:00Z", "2026-10-15", "2026-10-15", "2026-11-15"),
        (1, "2026-10-15T00:00Z", "2026-10", "2026-10-01", "2026-11-01"),
    ],
)
def test_billing_periods_begin_on_the_anchor_or_the_months_last_day(
    anchor: int, instant: str, name: str, start: str, end: str
) -> None:
    calendar = Calendar("UTC", anchor)
    assert calendar.billing_name(at(instant)) == name
    assert calendar.period(name) == Period(at(f"{start}T00:00Z"), at(f"{end}T00:00Z"))


def test_a_billing_period_begins_at_local_midnight() -> None:
    calendar = Calendar("Asia/Tokyo", 15)
    assert calendar.billing_name(at("2026-10-14T14:59Z")) == "2026-09-15"
    assert calendar.billing_name(at("2026-10-14T15:00Z")) == "2026-10-15"
    assert calendar.period("2026-10-15").start == at("2026-10-14T15:00Z")


def test_live_names_are_month_hour_and_a_billing_period_of_its_own() -> None:
    instant = at("2026-10-31T23:30Z")
    assert UTC_MONTHS.live_names(instant) == ("2026-10", "2026-10-31T23")
    assert Calendar("Europe/Berlin", 15).live_names(instant) == ("2026-11", "2026-10-31T23", "2026-10-15")


@pytest.mark.parametrize(
    "name",
    [
        *("", "now", "26-10", "2026-13", "2026-00", "0000", "2026-10-31T24", "2026-02-30", "2026-1", "２０２６"),
        *("2026-10-16", "9999-12", "9999", "2026-10-15T07:00", "2026-10-15 ", "2026-10-15\n"),
    ],
)
def test_names_of_no_period_are_refused(name: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Calendar("UTC", 15).period(name)
    assert [fault.code for fault in refused.value.faults] == ["invalid_period"]


@pytest.mark.parametrize(
    ("zone", "anchor", "codes"),
    [
        ("Europe/Berlin", 31, []),
        ("UTC", 1, []),
        ("Mars/Olympus", 1, ["unknown_time_zone"]),
        ("", 1, ["unknown_time_zone"]),
        ("America", 1, ["unknown_time_zone"]),
        ("../UTC", 1, ["unknown_time_zone"]),
        ("UTC\0", 1, ["unknown_time_zone"]),
        ("localtime", 1, ["unknown_time_zone"]),
        ("right/UTC", 1, ["unknown_time_zone"]),
        ("UTC", 0, ["invalid_anchor_day"]),
        ("nowhere", 32, ["unknown_time_zone", "invalid_anchor_day"]),
    ],
)
def test_a_calendar_is_checked_whole(zone: str, anchor: int, codes: list[str]) -> None:
    if not codes:
        assert check_calendar(zone, anchor) == Calendar(zone, anchor)
        return
    with pytest.raises(InvalidInputError) as refused:
        check_calendar(zone, anchor)
    assert [fault.code for fault in refused.value.faults] == codes


calendars = st.builds(Calendar, st.sampled_from(ZONES), st.integers(1, 31))
microseconds = st.integers(0, (at("2099-12-01T00:00Z") - at("2000-01-02T00:00Z")) // timedelta(microseconds=1))
instants = microseconds.map(lambda us: at("2000-01-02T00:00Z") + timedelta(microseconds=us)) | st.builds(
    # Around the moves of the clocks.
    lambda day, seconds: day + timedelta(seconds=seconds),
    st.sampled_from(
        [
            at("2009-11-01T02:30Z"),
            at("2008-11-02T03:01Z"),
            at("2010-03-04T15:00Z"),
            at("2011-12-30T10:00Z"),
            at("2018-11-04T03:00Z"),
            at("2026-03-29T01:00Z"),
            at("2026-10-25T01:00Z"),
            at("2026-11-01T04:00Z"),
        ]
    ),
    st.integers(-4 * 3_600, 4 * 3_600),
)


def names_of(calendar: Calendar, instant: datetime) -> list[str]:
    return [*calendar.live_names(instant), calendar.billing_name(instant), calendar.year_name(instant)]


@given(calendars, instants)
@example(Calendar("America/St_Johns", 31), at("2009-11-01T02:45Z"))
@example(Calendar("Pacific/Apia", 30), at("2011-12-30T10:00Z"))
def test_every_instant_lies_in_the_periods_it_is_told_to_be_in(calendar: Calendar, instant: datetime) -> None:
    for name in names_of(calendar, instant):
        assert instant in calendar.period(name)
    assert instant in calendar.day_of(instant)


@given(calendars, instants)
def test_names_come_back_from_both_ends_of_a_period(calendar: Calendar, instant: datetime) -> None:
    tick = timedelta(microseconds=1)
    for name in names_of(calendar, instant):
        period = calendar.period(name)
        assert name in names_of(calendar, period.start)
        assert name in names_of(calendar, period.end - tick)
        # So neither end belongs to a neighbour, and no instant to two periods of a kind.
        assert name not in names_of(calendar, period.start - tick)
        assert name not in names_of(calendar, period.end)


@given(calendars, instants)
def test_periods_of_a_kind_follow_each_other_without_gap(calendar: Calendar, instant: datetime) -> None:
    month = calendar.period(calendar.month_name(instant))
    assert calendar.period(calendar.month_name(month.end)).start == month.end
    billing = calendar.period(calendar.billing_name(instant))
    assert calendar.period(calendar.billing_name(billing.end)).start == billing.end
    year = calendar.period(calendar.year_name(instant))
    assert calendar.period(calendar.year_name(year.end)).start == year.end
    day = calendar.day_of(instant)
    assert calendar.day_of(day.end).start == day.end
    assert calendar.day_of(day.end - timedelta(microseconds=1)) == day


@given(calendars, st.integers(2000, 2098))
def test_a_year_is_its_twelve_months_and_its_days(calendar: Calendar, number: int) -> None:
    year = calendar.period(f"{number}")
    months = [calendar.period(f"{number}-{month:02}") for month in range(1, 13)]
    assert (months[0].start, months[-1].end) == (year.start, year.end)
    assert all(one.end == other.start for one, other in pairwise(months))


@given(calendars, instants)
def test_a_quarter_hour_lies_in_one_period(calendar: Calendar, instant: datetime) -> None:
    """Names are kept by quarter hour, so no period may begin inside one."""
    seconds = int(instant.timestamp())
    start = datetime.fromtimestamp(seconds - seconds % SLOT_SECONDS, UTC)
    last = start + timedelta(seconds=SLOT_SECONDS) - timedelta(microseconds=1)
    assert names_of(calendar, start) == names_of(calendar, instant) == names_of(calendar, last)


@given(calendars, instants)
def test_a_billing_period_begins_on_its_anchor(calendar: Calendar, instant: datetime) -> None:
    name = calendar.billing_name(instant)
    if calendar.anchor_day == 1:
        assert name == calendar.month_name(instant)
        return
    start = date.fromisoformat(name)
    assert start.day == calendar.anchor_day or (start.day < calendar.anchor_day and (start + timedelta(1)).day == 1)
