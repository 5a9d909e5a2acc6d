"""Balances of limits and grants: a table of stories with the sum, and laws against a unit-by-unit double."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.calendar import UTC_MONTHS, Calendar
from core.errors import InvalidInputError
from core.period import Period
from quotas.domain.balance import Balance, find_balance, plan_course
from quotas.domain.grant import Grant, check_grant

MAY = datetime(2026, 5, 1, tzinfo=UTC)
NONE = Decimal(0)


def day(number: int, hour: int = 0, month: int = 5) -> datetime:
    return datetime(2026, month, number, hour, tzinfo=UTC)


def month_at(instant: datetime) -> Period:
    return UTC_MONTHS.period(UTC_MONTHS.month_name(instant))


def grant(name: str, amount: int | str, effective_at: datetime = MAY, **more: Any) -> Grant:
    given: dict[str, Any] = {
        "priority": 10, "expires_at": None, "recurrence": "none", "rollover_min": NONE, "rollover_max": NONE,
        "created_at": MAY,
    }  # fmt: skip
    return Grant(name, Decimal(amount), effective_at=effective_at, **(given | more))


def balance(
    limit: int, grants: list[Grant], usage: list[tuple[datetime, int]], now: datetime, period_at: Any = month_at
) -> Balance:
    """Burn events of (instant, quantity)."""
    course = plan_course(grants, period_at, now)
    pieces = [
        Decimal(sum(quantity for at, quantity in usage if start <= at < end)) for start, end in pairwise(course.cuts)
    ]
    return find_balance(course, Decimal(limit), pieces)


def left(found: Balance) -> dict[str, Decimal]:
    return {source.source: source.left for source in found.sources}


def test_the_limit_burns_first_then_lower_priority_numbers_then_earlier_expiry_then_earlier_creation() -> None:
    grants = [
        grant("late", 10, priority=20),
        grant("for-good", 10),
        grant("younger", 10, expires_at=day(20), created_at=day(1, 2)),
        grant("older", 10, expires_at=day(20), created_at=day(1, 1)),
        grant("sooner", 10, expires_at=day(10)),
    ]
    found = balance(100, grants, [(day(2), 145)], day(3))
    # 100 of the limit, 10 sooner, 10 older, 10 younger, 10 for good, 5 of the late one.
    assert left(found) == {"limit": 0, "sooner": 0, "older": 0, "younger": 0, "for-good": 0, "late": 5}
    assert [source.source for source in found.sources] == ["limit", "sooner", "older", "younger", "for-good", "late"]
    assert (found.used, found.left, found.overage) == (145, 5, 0)


def test_a_grant_that_comes_later_covers_nothing_used_before() -> None:
    found = balance(10, [grant("g", 50, day(10))], [(day(5), 30), (day(10), 7)], day(11))
    # 30 on the 5th: 10 of the limit, 20 overage. 7 on the 10th: of the grant, which begins that hour.
    assert (left(found), found.overage, found.left) == ({"limit": 0, "g": 43}, 20, 43)


def test_what_an_expired_grant_gave_stays_given_and_what_it_had_left_is_gone() -> None:
    found = balance(0, [grant("g", 50, expires_at=day(10))], [(day(9, 23), 20), (day(10), 5)], day(12))
    [limit, expired] = found.sources
    assert (expired.gave, expired.left, found.overage, limit.left) == (20, 0, 5, 0)


def test_at_the_reset_nothing_is_carried_over_unless_it_was_agreed() -> None:
    grants = [grant("lost", 50), grant("kept", 50, rollover_max=Decimal(30), priority=20)]
    found = balance(10, grants, [(day(5), 15)], day(1, month=6))
    # 15 = 10 of the limit + 5 of "lost", whose other 45 go; 30 of "kept"'s 50 stay.
    assert (left(found), found.used) == ({"limit": 10, "lost": 0, "kept": 30}, 0)


def test_a_rollover_minimum_gives_even_what_was_used_up() -> None:
    g = grant("g", 50, rollover_min=Decimal(5), rollover_max=Decimal(30))
    assert left(balance(0, [g], [(day(5), 70)], day(2, month=6)))["g"] == 5


def test_rollovers_are_followed_through_all_periods() -> None:
    g = grant("g", 100, rollover_max=Decimal(80))
    usage = [(day(5), 10), (day(5, month=6), 30), (day(5, month=7), 5)]
    # 100 - 10 = 90 -> 80 - 30 = 50 -> 50 - 5.
    found = balance(0, [g], usage, day(6, month=7))
    assert (left(found)["g"], found.used, found.sources[1].gave) == (45, 5, 5)


def test_a_recurring_grant_is_filled_up_not_added_to() -> None:
    g = grant("g", 100, day(15), recurrence="monthly", rollover_max=Decimal(1_000))
    usage = [(day(20), 30), (day(5, month=6), 50), (day(16, month=6), 1)]
    assert left(balance(0, [g], usage[:2], day(14, month=6)))["g"] == 20
    assert left(balance(0, [g], usage, day(17, month=6)))["g"] == 99


def test_a_monthly_grant_from_the_31st_comes_on_the_last_day_of_shorter_months() -> None:
    g = grant("g", 1, datetime(2026, 1, 31, 7, tzinfo=UTC), recurrence="monthly")
    assert [f.strftime("%m-%dT%H") for f in g.fillings(day(1, month=6))] == [
        "01-31T07", "02-28T07", "03-31T07", "04-30T07", "05-31T07",
    ]  # fmt: skip
    yearly = grant("g", 1, datetime(2024, 2, 29, tzinfo=UTC), recurrence="yearly")
    assert [f.date().isoformat() for f in yearly.fillings(day(1))] == ["2024-02-29", "2025-02-28", "2026-02-28"]


def test_a_grant_that_is_gone_counts_as_far_as_it_burned_beside_one_that_is_not() -> None:
    # In May the expiring one burns first, so the other keeps all of its 50 into June.
    grants = [grant("gone", 40, expires_at=day(31)), grant("kept", 50, rollover_max=Decimal(50))]
    assert left(balance(0, grants, [(day(3), 40)], day(2, month=6)))["kept"] == 50


def test_without_grants_only_the_present_period_is_looked_at() -> None:
    course = plan_course([], month_at, day(7))
    assert course.cuts == (day(1), day(7))
    expired = grant("g", 5, day(1, month=3), expires_at=day(3, month=3))
    assert plan_course([expired, grant("h", 5, day(2, month=3))], month_at, day(7)).cuts == (day(1), day(7))


def test_right_at_a_reset_and_right_when_a_grant_begins_it_counts() -> None:
    found = balance(10, [grant("g", 5, day(1, month=6))], [(day(5), 10)], day(1, month=6))
    assert (left(found), found.used) == ({"limit": 10, "g": 5}, 0)


def test_billing_periods_in_their_own_zone_reset_where_they_begin() -> None:
    calendar = Calendar("Asia/Kolkata", 15)

    def period_at(instant: datetime) -> Period:
        return calendar.period(calendar.billing_name(instant))

    reset = datetime(2026, 5, 14, 18, 30, tzinfo=UTC)
    usage = [(reset - timedelta(minutes=1), 3), (reset, 4)]
    assert balance(10, [], usage, day(20), period_at).used == 4


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({"amount": NONE}, ["invalid_amount"]),
        ({"amount": Decimal("0.0000000000001")}, ["invalid_amount"]),
        ({"priority": 256}, ["invalid_priority"]),
        ({"effective_at": MAY + timedelta(minutes=30)}, ["not_on_the_hour"]),
        ({"expires_at": MAY}, ["invalid_expiry"]),
        ({"rollover_min": Decimal(2), "rollover_max": Decimal(1)}, ["invalid_rollover"]),
        ({"rollover_min": Decimal(-1), "priority": -1}, ["invalid_priority", "invalid_rollover"]),
        ({"reason": "x" * 501}, ["too_long"]),
    ],
)
def test_grants_that_make_no_sense_are_refused_with_all_faults(change: dict[str, Any], codes: list[str]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_grant(replace(grant("g", 1), **change))
    assert [fault.code for fault in refused.value.faults] == codes


HOURS = st.integers(0, 24 * 100)
AMOUNTS = st.integers(1, 12)


@st.composite
def some_grants(draw: st.DrawFn) -> list[Grant]:
    made = []
    for number in range(draw(st.integers(0, 4))):
        start = day(1, month=3) + timedelta(hours=draw(HOURS))
        low = draw(st.integers(0, 4))
        made.append(
            grant(
                f"g{number}", draw(AMOUNTS), start, priority=draw(st.integers(0, 2)),
                expires_at=draw(st.sampled_from([None, start + timedelta(hours=draw(st.integers(1, 24 * 80)))])),
                recurrence=draw(st.sampled_from(["none", "none", "monthly"])),
                rollover_min=Decimal(low), rollover_max=Decimal(low + draw(st.integers(0, 6))),
                created_at=MAY + timedelta(seconds=draw(st.integers(0, 3))),
            )
        )  # fmt: skip
    return made


def unit_by_unit(limit: int, grants: list[Grant], usage: list[tuple[datetime, int]], now: datetime) -> Any:
    """The same by walking every hour from long before, one unit at a time, keeping everything."""
    have: dict[str, int] = {}
    limit_left, overage, used = limit, 0, 0
    ordered = sorted(
        grants,
        key=lambda g: (g.priority, g.expires_at or datetime.max.replace(tzinfo=UTC), g.created_at, g.grant_id),
    )
    hour = day(1, month=3)
    while hour <= now:
        if hour.day == 1 and hour.hour == 0:
            have = {
                g.grant_id: int(min(max(Decimal(have[g.grant_id]), g.rollover_min), g.rollover_max))
                for g in grants
                if g.grant_id in have
            }
            limit_left, overage, used = limit, 0, 0
        for g in grants:
            begins = hour == g.effective_at
            again = g.recurrence == "monthly" and hour > g.effective_at and hour in set(g.fillings(hour))
            if (begins or again) and g.holds_at(hour):
                have[g.grant_id] = int(g.amount)
        for _ in range(sum(quantity for at, quantity in usage if at == hour and at < now)):
            used += 1
            if limit_left:
                limit_left -= 1
                continue
            for g in ordered:
                if g.holds_at(hour) and have.get(g.grant_id, 0):
                    have[g.grant_id] -= 1
                    break
            else:
                overage += 1
        hour += timedelta(hours=1)
    return (
        used, overage, limit_left,
        {g.grant_id: have.get(g.grant_id, 0) for g in grants if g.holds_at(now)},
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(some_grants(), st.lists(st.tuples(HOURS, st.integers(1, 9)), max_size=8), st.integers(0, 6), HOURS)
def test_it_equals_burning_one_unit_after_the_other(
    grants: list[Grant], events: list[tuple[int, int]], limit: int, now_hour: int
) -> None:
    start = day(1, month=3)
    usage = [(start + timedelta(hours=hour), quantity) for hour, quantity in events]
    now = start + timedelta(hours=now_hour)
    used, overage, limit_left, have = unit_by_unit(limit, grants, usage, now)
    found = balance(limit, grants, usage, now)
    assert (found.used, found.overage, left(found)["limit"]) == (used, overage, limit_left)
    remains = left(found)
    assert {name: remains.get(name, 0) for name in have} == have
    assert found.left == limit_left + sum(have.values())
