"""Coupons: what they take off, in which order, and for which periods."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from core.errors import BrokenInvariantError
from core.period import Period, month_of, parse_month
from rating.domain.coupon import (
    Coupon,
    CouponLine,
    Duration,
    Redemption,
    apply_coupons,
    as_known_at,
    covered_until,
    covers,
    redeem_automatically,
)
from rating.domain.net_lines import LineAmount, net_amounts

OCTOBER = parse_month("2026-10")
START = datetime(2026, 10, 11, 9, 30, tzinfo=UTC)


class Months:
    """A billing cycle of UTC months."""

    def period_at(self, instant: datetime) -> Period:
        return month_of(instant)


CYCLE = Months()


def line(key: str, amount: str, **changes: Any) -> LineAmount:
    given: dict[str, Any] = {"charge_id": key, "meter_id": None, "plan_id": "pro", "kind": "usage", **changes}
    return LineAmount(key, amount=Decimal(amount), **given)


def coupon(coupon_id: str = "c", **changes: Any) -> Coupon:
    for name in ("percent_off", "amount_off", "minimum_amount"):
        if name in changes:
            changes[name] = Decimal(changes[name])
    if "amount_off" in changes or "minimum_amount" in changes:
        changes.setdefault("currency", "USD")
    for name in ("plans", "meters", "charges"):
        changes[name] = frozenset(changes.get(name, ()))
    changes.setdefault("duration", Duration.FOREVER)
    return Coupon(coupon_id, coupon_id.title(), datetime(2026, 1, 1, tzinfo=UTC), **changes)


def redeemed(of: Coupon, at: datetime = START, **changes: Any) -> Redemption:
    given: dict[str, Any] = {"starts_at": at, **changes}
    return Redemption(f"red_{of.coupon_id}", of, "acme", "sub", at, **given)


def applied(lines: list[LineAmount], *coupons: Coupon | Redemption, period: Period = OCTOBER) -> list[CouponLine]:
    redemptions = [each if isinstance(each, Redemption) else redeemed(each) for each in coupons]
    return apply_coupons(lines, redemptions, period, "USD", cycle=CYCLE)


def taken(lines: list[LineAmount], *coupons: Coupon | Redemption, period: Period = OCTOBER) -> dict[str, str]:
    return {each.coupon_id: str(each.amount) for each in applied(lines, *coupons, period=period)}


def test_a_percentage_is_rounded_once_and_shared_out_to_the_cent() -> None:
    # 15 % of 10.01 + 10.01 + 10.01 = 30.03 is 4.5045, rounded 4.50 = 1.50 + 1.50 + 1.50
    (found,) = applied([line("a", "10.01"), line("b", "10.01"), line("c", "10.01")], coupon(percent_off="15"))
    assert (found.base, found.exact_amount, found.amount) == (Decimal("30.03"), Decimal("-4.5045"), Decimal("-4.50"))
    assert [str(share.amount) for share in found.shares] == ["-1.50", "-1.50", "-1.50"]
    assert found.steps == ("15 % of 30.03 = 4.5045",)


def test_an_amount_takes_no_more_than_there_is() -> None:
    (found,) = applied([line("a", "3.00"), line("b", "1.00")], coupon(amount_off="5"))
    assert found.amount == Decimal("-4.00")
    assert {share.key: str(share.amount) for share in found.shares} == {"a": "-3.00", "b": "-1.00"}
    assert found.steps == ("5 off 4.00 = 4.00, all there is",)


def test_two_stacked_coupons_each_take_from_what_the_one_before_left() -> None:
    # 100.00: 20 % = 20.00, leaves 80.00; then 10.00 off, leaves 70.00. The other way round it would be 72.00.
    lines = [line("a", "100.00")]
    ten_off, fifth = coupon("ten", amount_off="10"), coupon("fifth", percent_off="20")
    assert taken(lines, ten_off, fifth) == {"fifth": "-20.00", "ten": "-10.00"}
    first = coupon("ten", amount_off="10", priority=1)
    assert taken(lines, first, fifth) == {"ten": "-10.00", "fifth": "-18.00"}


def test_of_the_same_kind_the_earlier_redeemed_comes_first() -> None:
    # 30.00 off of 40.00, and 10.00 are left of it for the other
    early, late = coupon("z", amount_off="30"), coupon("a", amount_off="30")
    found = taken([line("x", "40.00")], redeemed(late, START.replace(day=12)), redeemed(early))
    assert found == {"z": "-30.00", "a": "-10.00"}


def test_an_exclusive_coupon_is_applied_alone() -> None:
    lines = [line("a", "100.00")]
    alone, other = coupon("alone", percent_off="10", exclusive=True), coupon("other", percent_off="20")
    behind = coupon("alone", percent_off="10", exclusive=True, priority=200)
    ahead = coupon("alone", percent_off="10", exclusive=True, priority=1)
    assert taken(lines, alone) == {"alone": "-10.00"}
    assert taken(lines, behind, other) == {"other": "-20.00"}
    assert taken(lines, ahead, other) == {"alone": "-10.00"}


def test_an_exclusive_coupon_that_finds_nothing_shuts_nobody_out() -> None:
    ahead = coupon("alone", percent_off="10", exclusive=True, priority=1, plans={"lite"})
    assert taken([line("a", "100.00")], ahead, coupon("other", percent_off="20")) == {"other": "-20.00"}


@pytest.mark.parametrize(
    ("limits", "taken_off"),
    [
        ({}, "-10.00"),
        ({"plans": {"pro"}}, "-6.00"),
        ({"meters": {"cpu"}}, "-4.00"),
        ({"charges": {"base"}}, "-3.00"),
        ({"meters": {"cpu"}, "charges": {"base"}}, "-7.00"),
        ({"plans": {"pro"}, "meters": {"cpu"}}, "-2.00"),
        ({"plans": {"other"}}, None),
    ],
)
def test_only_lines_it_is_limited_to_are_lowered(limits: dict[str, Any], taken_off: str | None) -> None:
    lines = [
        line("base", "30.00", kind="fixed"),
        line("cpu", "20.00", meter_id="cpu"),
        line("disk", "10.00", meter_id="disk"),
        line("add-on cpu", "20.00", meter_id="cpu", plan_id="add-on"),
        line("add-on disk", "20.00", meter_id="disk", plan_id="add-on"),
    ]
    assert taken(lines, coupon(percent_off="10", **limits)).get("c") == taken_off


def test_minimums_and_true_ups_are_not_discounted() -> None:
    lines = [line("a", "40.00"), line("min", "60.00", kind="minimum"), line("up", "60.00", kind="true_up")]
    (found,) = applied(lines, coupon(percent_off="100"))
    assert [(share.key, str(share.amount)) for share in found.shares] == [("a", "-40.00")]


def test_a_charges_own_discount_is_set_off_first() -> None:
    # 100.00 less the charge's own 25.00 leaves 75.00, of which 10 % are 7.50
    lines = [line("a", "100.00"), line("a less", "-25.00", charge_id="a", kind="discount")]
    assert taken(lines, coupon(percent_off="10")) == {"c": "-7.50"}


def test_what_a_negative_line_leaves_over_lowers_the_others() -> None:
    lines = [line("a", "10.00"), line("a less", "-25.00", charge_id="a"), line("b", "30.00"), line("c", "10.00")]
    # 15.00 too much at a: 30.00 - 11.25 and 10.00 - 3.75
    assert net_amounts(lines, "USD") == {"a": 0, "b": Decimal("18.75"), "c": Decimal("6.25")}
    assert net_amounts([line("a", "1.00"), line("b", "-2.00")], "USD") == {"a": 0}


@pytest.mark.parametrize(("amount", "found"), [("49.99", {}), ("50.00", {"c": "-5.00"})])
def test_below_its_minimum_amount_nothing_is_taken_off(amount: str, found: dict[str, str]) -> None:
    lines = [line("cpu", amount, meter_id="cpu"), line("disk", "500.00", meter_id="disk")]
    assert taken(lines, coupon(percent_off="10", minimum_amount="50", meters={"cpu"})) == found


def test_a_minimum_amount_looks_at_what_was_there_before_other_coupons() -> None:
    first, second = coupon("a", amount_off="60", priority=1), coupon("b", percent_off="10", minimum_amount="100")
    assert taken([line("x", "100.00")], first, second) == {"a": "-60.00", "b": "-4.00"}


def test_an_amount_in_another_currency_does_not_count() -> None:
    assert taken([line("a", "10.00")], coupon(amount_off="5", currency="EUR")) == {}


def test_nothing_comes_of_nothing() -> None:
    assert taken([], coupon(percent_off="10")) == {}
    assert taken([line("a", "0.00")], coupon(percent_off="10")) == {}
    assert taken([line("a", "0.04")], coupon(percent_off="10")) == {}


def test_coupon_lines_are_not_discounted_again() -> None:
    with pytest.raises(BrokenInvariantError):
        applied([line("a", "1.00", kind="coupon")], coupon(percent_off="10"))


# Which periods

MONTHS = ["2026-09", "2026-10", "2026-11", "2026-12", "2027-01"]


@pytest.mark.parametrize(
    ("changes", "covered"),
    [
        ({"duration": Duration.ONCE}, ["2026-10"]),
        ({"duration": Duration.REPEATING, "periods": 3}, ["2026-10", "2026-11", "2026-12"]),
        ({"duration": Duration.FOREVER}, ["2026-10", "2026-11", "2026-12", "2027-01"]),
    ],
)
def test_which_periods_a_redemption_covers(changes: dict[str, Any], covered: list[str]) -> None:
    redemption = redeemed(coupon(percent_off="10", **changes))
    assert [month for month in MONTHS if covers(redemption, parse_month(month), CYCLE)] == covered


def test_a_part_of_a_period_is_covered_as_the_whole() -> None:
    redemption = redeemed(coupon(percent_off="10", duration=Duration.ONCE))
    assert covers(redemption, Period(OCTOBER.start, START), CYCLE)
    assert covers(redemption, Period(START, OCTOBER.end), CYCLE)


def test_a_removed_coupon_no_longer_covers_the_period_it_was_removed_in() -> None:
    removed = redeemed(coupon(percent_off="10"), removed_at=datetime(2026, 12, 1, tzinfo=UTC))
    assert [month for month in MONTHS if covers(removed, parse_month(month), CYCLE)] == ["2026-10", "2026-11"]
    withdrawn = redeemed(coupon(percent_off="10"), removed_at=START)
    assert not covers(withdrawn, OCTOBER, CYCLE)


def test_when_a_coupon_ends() -> None:
    assert covered_until(redeemed(coupon(percent_off="1", duration=Duration.ONCE)), CYCLE) == OCTOBER.end
    repeating = coupon(percent_off="1", duration=Duration.REPEATING, periods=2)
    assert covered_until(redeemed(repeating), CYCLE) == parse_month("2026-11").end
    assert covered_until(redeemed(coupon(percent_off="1")), CYCLE) is None


def test_what_was_known_then() -> None:
    at_first = redeemed(coupon("a", percent_off="10"))
    later = redeemed(coupon("b", percent_off="10"), START.replace(day=20))
    removed = redeemed(coupon("a", percent_off="10"), removed_at=START.replace(day=15))
    assert as_known_at([removed, later], START.replace(day=14)) == [at_first]
    assert as_known_at([removed, later], START.replace(day=20)) == [removed, later]
    archived = redeemed(coupon("a", percent_off="10", automatic=True, archived_at=START.replace(day=15)))
    assert not covers(archived, OCTOBER, CYCLE)
    (then,) = as_known_at([archived], START.replace(day=14))
    assert covers(then, OCTOBER, CYCLE)


# Automatic coupons


def test_an_automatic_coupon_counts_from_its_begin_or_the_subscriptions() -> None:
    autumn = coupon(percent_off="10", automatic=True, valid_until=datetime(2026, 11, 1, tzinfo=UTC))
    old = redeem_automatically(autumn, "acme", "old", datetime(2024, 5, 5, tzinfo=UTC))
    new = redeem_automatically(autumn, "acme", "new", START)
    assert old is not None
    assert old.starts_at == autumn.valid_from
    assert new is not None
    assert new.starts_at == START
    assert old.redemption_id != new.redemption_id
    assert redeem_automatically(autumn, "acme", "late", datetime(2026, 11, 1, tzinfo=UTC)) is None


def test_an_archived_automatic_coupon_ends_with_the_period_before() -> None:
    archived = coupon(percent_off="10", automatic=True, archived_at=datetime(2026, 12, 24, tzinfo=UTC))
    redemption = redeem_automatically(archived, "acme", "sub", START)
    assert redemption is not None
    assert [month for month in MONTHS if covers(redemption, parse_month(month), CYCLE)] == ["2026-10", "2026-11"]
    assert redeem_automatically(archived, "acme", "sub", datetime(2026, 12, 24, tzinfo=UTC)) is None


def test_archiving_takes_a_redeemed_coupon_from_nobody() -> None:
    archived = coupon(percent_off="10", archived_at=datetime(2026, 10, 12, tzinfo=UTC))
    assert covers(redeemed(archived), parse_month("2027-01"), CYCLE)


# Stories


def test_story_a_coupon_ends_in_the_middle_of_a_subscription() -> None:
    half = redeemed(coupon(percent_off="50", duration=Duration.REPEATING, periods=3))
    bill = [line("base", "49.00", kind="fixed"), line("cpu", "10.01")]
    found = {month: taken(bill, half, period=parse_month(month)).get("c") for month in MONTHS}
    # redeemed on 11 October: October, November, December at half of 59.01 = 29.505, rounded half up; January in full
    assert found == {"2026-09": None, "2026-10": "-29.51", "2026-11": "-29.51", "2026-12": "-29.51", "2027-01": None}
    # run again later, an old period gives what it gave
    assert taken(bill, half, period=OCTOBER) == {"c": "-29.51"}


def test_story_an_amount_not_used_up_is_gone_and_comes_again_in_the_next_period() -> None:
    ten_off = redeemed(coupon(amount_off="10", duration=Duration.REPEATING, periods=2))
    assert taken([line("cpu", "4.00")], ten_off) == {"c": "-4.00"}
    assert taken([line("cpu", "40.00")], ten_off, period=parse_month("2026-11")) == {"c": "-10.00"}
    assert taken([line("cpu", "40.00")], ten_off, period=parse_month("2026-12")) == {}
