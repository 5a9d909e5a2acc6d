"""Proration: both halves are the whole, for every convention and zone; known slips of other systems, one test each."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core.errors import BrokenInvariantError, InvalidInputError
from core.period import Period
from rating.domain.cycle import Cycle, Interval
from rating.domain.proration import Convention, prorate_change, round_fraction, share, share_before, show_fraction
from tests.rating.test_cycles import CYCLES, INSTANTS, ZONES

CONVENTIONS = st.sampled_from(Convention)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def period(start: str, end: str) -> Period:
    return Period(utc(start), utc(end))


@given(CYCLES, INSTANTS, st.integers(0, 10**6), CONVENTIONS)
def test_both_halves_of_a_split_are_exactly_the_whole(
    cycle: Cycle, instant: datetime, place: int, convention: Convention
) -> None:
    whole = cycle.period_at(instant)
    at = whole.start + (whole.end - whole.start) * place // 10**6
    assume(whole.start < at < whole.end)
    zone = cycle.time_zone
    first, second = (share(Period(*bounds), whole, convention, zone) for bounds in ((whole.start, at), (at, whole.end)))
    assert first + second == 1
    assert 0 <= first <= 1
    assert share(whole, whole, convention, zone) == 1
    assert share_before(at, whole, convention, zone) == first


@given(CYCLES, INSTANTS, st.lists(st.integers(1, 10**6 - 1), unique=True, max_size=8), CONVENTIONS)
def test_any_pieces_add_up(cycle: Cycle, instant: datetime, places: list[int], convention: Convention) -> None:
    whole = cycle.period_at(instant)
    edges = sorted({whole.start, whole.end, *(whole.start + (whole.end - whole.start) * n // 10**6 for n in places)})
    pieces = [Period(start, end) for start, end in pairwise(edges)]
    assert sum(share(piece, whole, convention, cycle.time_zone) for piece in pieces) == 1


@given(
    INSTANTS,
    st.integers(1, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**8),
    st.integers(0, 10**8),
    CONVENTIONS,
    ZONES,
)
def test_a_change_credits_and_charges_for_the_same_rest(
    start: datetime, seconds: int, place: int, old: int, new: int, convention: Convention, zone: str
) -> None:
    whole = Period(start, start + timedelta(seconds=seconds))
    at = start + timedelta(seconds=seconds * place // 10**9)
    amounts = Decimal(old).scaleb(-2), Decimal(new).scaleb(-2)
    # Shorter than a day there may be nothing to measure by: see below.
    assume(seconds > 3 * 86_400 or convention in (Convention.SECONDS, Convention.NONE))
    found = prorate_change(at, whole, old=amounts[0], new=amounts[1], convention=convention, time_zone=zone)
    assert found.before + found.after == 1
    assert found.net == (Fraction(amounts[1]) - Fraction(amounts[0])) * found.after
    assert Fraction(amounts[0]) * found.before + found.credit == Fraction(amounts[0])


@pytest.mark.parametrize(
    ("convention", "at", "rest"),
    [
        # March has 31 days, of which the 11th to the 31st are 21.
        (Convention.DAYS, "2026-03-11T00:00", Fraction(21, 31)),
        (Convention.DAYS, "2026-03-11T23:59", Fraction(21, 31)),
        # 20 days and 12 hours of 31 days.
        (Convention.SECONDS, "2026-03-11T12:00", Fraction(41, 62)),
        # Ten days of thirty are over.
        (Convention.THIRTY_DAY_MONTH, "2026-03-11T00:00", Fraction(2, 3)),
        # The 31st counts with the 30th: one day of thirty is left on both.
        (Convention.THIRTY_DAY_MONTH, "2026-03-30T00:00", Fraction(1, 30)),
        (Convention.THIRTY_DAY_MONTH, "2026-03-31T00:00", Fraction(1, 30)),
        (Convention.NONE, "2026-03-11T00:00", Fraction(0)),
        (Convention.NONE, "2026-03-01T00:00", Fraction(1)),
    ],
)
def test_the_rest_of_march(convention: Convention, at: str, rest: Fraction) -> None:
    assert 1 - share_before(utc(at), period("2026-03-01", "2026-04-01"), convention) == rest


@pytest.mark.parametrize(
    ("start", "end", "at", "rest"),
    [
        # February's last day stands for three: 27 of 30 are over.
        ("2026-02-01", "2026-03-01", "2026-02-28", Fraction(3, 30)),
        # Anchored on the 31st, 28 February to 31 March is one month; 15 March is its 16th day.
        ("2026-02-28", "2026-03-31", "2026-03-15", Fraction(15, 30)),
        ("2026-01-31", "2026-02-28", "2026-02-15", Fraction(15, 30)),
        # A year has 360 days; 15 October is the 15th of the tenth month: 9 x 30 + 14 are over.
        ("2026-01-01", "2027-01-01", "2026-10-15", Fraction(360 - 284, 360)),
        # No whole months: plain 30E/360, 10 January to 25 February is 45 days, 20 January to it 35.
        ("2026-01-10", "2026-02-25", "2026-01-20", Fraction(35, 45)),
    ],
)
def test_thirty_day_months(start: str, end: str, at: str, rest: Fraction) -> None:
    whole = period(start, end)
    assert 1 - share_before(utc(at), whole, Convention.THIRTY_DAY_MONTH) == rest


def test_a_day_of_23_hours_is_a_day() -> None:
    # Berlin loses an hour on 29 March 2026. The local month has 31 days, and 743 hours.
    whole = Cycle(Interval.MONTH, date(2026, 3, 1), "Europe/Berlin").period_at(utc("2026-03-10"))
    noon = utc("2026-03-29T10:00")
    assert 1 - share_before(noon, whole, Convention.DAYS, "Europe/Berlin") == Fraction(3, 31)
    # From 10:00 UTC on the 29th to 22:00 UTC on the 31st are 60 hours.
    assert 1 - share_before(noon, whole, Convention.SECONDS, "Europe/Berlin") == Fraction(60, 743)


# Slips found in other systems (research on billing systems): each must not be ours.


def test_days_are_not_counted_inclusively_of_both_ends() -> None:
    # Inclusive counting gives March 32 days and never reaches nothing: 1/32 would be left at the period's very end.
    march = period("2026-03-01", "2026-04-01")
    assert share_before(march.end, march, Convention.DAYS) == 1
    assert share(period("2026-03-31", "2026-04-01"), march, Convention.DAYS) == Fraction(1, 31)


def test_a_full_month_of_march_is_31_days_of_31() -> None:
    march = period("2026-03-01", "2026-04-01")
    assert share(march, march, Convention.DAYS) == 1
    assert share(period("2026-03-01", "2026-03-02"), march, Convention.DAYS).denominator == 31


def test_days_are_those_of_the_tenants_zone_not_of_utc() -> None:
    # 06:30 UTC on the 2nd is still the 1st in Los Angeles; counting UTC dates finds one day too many.
    whole = Cycle(Interval.MONTH, date(2026, 7, 1), "America/Los_Angeles").period_at(utc("2026-07-10"))
    assert share_before(utc("2026-07-02T06:30"), whole, Convention.DAYS, "America/Los_Angeles") == 0
    assert share_before(utc("2026-07-02T06:30"), whole, Convention.DAYS, "UTC") == Fraction(1, 31)


def test_the_factor_is_no_binary_float() -> None:
    # 1/3 of 0.03 is one cent; by the float nearest to 1/3 the exact amount would lie below it.
    found = prorate_change(
        utc("2026-06-21"),
        period("2026-06-01", "2026-07-01"),
        old=Decimal("0"),
        new=Decimal("0.03"),
        convention=Convention.DAYS,
    )
    assert found.charge == Fraction(1, 100)
    # A tie that a float misses: 1.005 is 1.00499999999999989… in binary.
    assert round_fraction(Fraction("1.005"), "USD") == Decimal("1.01")


def test_the_denominator_is_the_period_that_holds_the_part_not_one_ending_where_the_part_ends() -> None:
    # Ten days before the first of a 31-day and of a 30-day month cost differently only because their own months do.
    march, april = period("2026-03-01", "2026-04-01"), period("2026-04-01", "2026-05-01")
    assert share(period("2026-03-01", "2026-03-11"), march, Convention.DAYS) == Fraction(10, 31)
    assert share(period("2026-04-01", "2026-04-11"), april, Convention.DAYS) == Fraction(10, 30)


def test_a_part_outside_the_whole_is_our_own_mistake() -> None:
    with pytest.raises(BrokenInvariantError):
        share(period("2026-03-01", "2026-04-02"), period("2026-03-01", "2026-04-01"), Convention.DAYS)


def test_a_period_without_a_day_cannot_be_divided_into_days() -> None:
    hours = period("2026-03-01T10:00", "2026-03-01T15:00")
    with pytest.raises(InvalidInputError) as refused:
        share(hours, hours, Convention.DAYS)
    assert [fault.code for fault in refused.value.faults] == ["period_too_short"]
    assert share_before(utc("2026-03-01T11:00"), hours, Convention.SECONDS) == Fraction(1, 5)


@pytest.mark.parametrize(
    ("exact", "shown"),
    [(Fraction(49), "49"), (Fraction("32.50"), "32.5"), (Fraction(980, 31), "980/31"), (Fraction(-1, 8), "-0.125")],
)
def test_exact_amounts_are_shown_as_decimals_where_they_end(exact: Fraction, shown: str) -> None:
    assert show_fraction(exact) == shown
