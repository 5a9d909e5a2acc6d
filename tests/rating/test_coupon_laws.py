"""Laws of coupons and of drawing credits, over lines, coupons and credits of any kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from core.calendar import Calendar
from rating.domain.coupon import (
    NOT_DISCOUNTED,
    Coupon,
    CouponLine,
    Duration,
    Redemption,
    apply_coupons,
    covers,
    overlap,
)
from rating.domain.credit import Credit, CreditGrant, CreditKind, Due, plan_draws
from rating.domain.cycle import Cycle, Interval, calendar_cycle
from rating.domain.net_lines import LineAmount, net_amounts, sum_of

BASE = datetime(2026, 1, 1, tzinfo=UTC)
CURRENCIES = {"USD": 2, "JPY": 0, "KWD": 3}
instants = st.integers(0, 900 * 24 * 60).map(lambda minutes: BASE + timedelta(minutes=minutes))
names = st.sampled_from("abc")
some = st.frozensets(names, max_size=2)
cycles = st.builds(
    calendar_cycle,
    st.sampled_from(Interval),
    st.builds(Calendar, st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns"]), st.integers(1, 31)),
    instants,
)


@st.composite
def line_lists(draw: st.DrawFn, currency: str) -> list[LineAmount]:
    amounts = st.integers(-2_000, 10_000).map(lambda units: Decimal(units).scaleb(-CURRENCIES[currency]))
    kinds = st.sampled_from(["fixed", "usage", "one_time", "minimum", "true_up"])
    made = draw(st.lists(st.tuples(names, st.none() | names, names, kinds, amounts), max_size=8))
    return [LineAmount(str(at), *rest) for at, rest in enumerate(made)]


@st.composite
def redemption_lists(draw: st.DrawFn, currency: str) -> list[Redemption]:
    found = []
    for number in range(draw(st.integers(0, 5))):
        is_percent = draw(st.booleans())
        amount = draw(st.integers(1, 10_000))
        duration = draw(st.sampled_from(Duration))
        coupon = Coupon(
            coupon_id=f"c{number}",
            name="C",
            valid_from=BASE,
            percent_off=Decimal(amount).scaleb(-2) if is_percent else None,
            amount_off=None if is_percent else Decimal(amount).scaleb(-CURRENCIES[currency]),
            currency=None if is_percent else currency,
            duration=duration,
            periods=draw(st.integers(1, 5)) if duration is Duration.REPEATING else None,
            plans=draw(some),
            meters=draw(some),
            charges=draw(some),
            priority=draw(st.integers(0, 2)),
            exclusive=draw(st.integers(0, 4)) == 0,
        )
        starts_at, removed_at = draw(instants), draw(st.none() | instants)
        removed_at = None if removed_at is None else max(removed_at, starts_at)
        found.append(Redemption(f"r{number}", coupon, "acme", "sub", starts_at, starts_at, removed_at))
    return found


@st.composite
def bills(draw: st.DrawFn) -> tuple[list[LineAmount], list[Redemption], str]:
    currency = draw(st.sampled_from(sorted(CURRENCIES)))
    return draw(line_lists(currency)), draw(redemption_lists(currency)), currency


@given(bills(), cycles, instants)
def test_coupons_never_take_more_than_there_is_and_their_shares_add_up(
    bill: tuple[list[LineAmount], list[Redemption], str], cycle: Cycle, at: datetime
) -> None:
    lines, redemptions, currency = bill
    period = cycle.period_at(at)
    applied = apply_coupons(lines, redemptions, period, currency, cycle=cycle)
    net = net_amounts([line for line in lines if line.kind not in NOT_DISCOUNTED], currency)
    taken = {key: Decimal(0) for key in net}
    for found in applied:
        assert found.amount == sum_of(share.amount for share in found.shares) < 0
        assert -found.amount <= found.base
        assert abs(found.amount - found.exact_amount) * 2 <= Decimal(1).scaleb(-CURRENCIES[currency])
        for share in found.shares:
            taken[share.key] -= share.amount
    by_key = {line.key: line for line in lines}
    assert all(taken[key] <= net[key] <= by_key[key].amount for key in net)
    total = sum_of(line.amount for line in lines if line.kind not in NOT_DISCOUNTED)
    assert sum_of(net.values()) == max(total, 0)
    assert sum_of(taken.values()) <= max(total, 0)
    assert all(covers(each, period, cycle) for each in redemptions if each.redemption_id in _ids(applied))
    is_exclusive = {each.redemption_id: each.coupon.exclusive for each in redemptions}
    assert len(applied) == 1 or not any(is_exclusive[each.redemption_id] for each in applied)


@given(bills(), cycles, instants, st.randoms(use_true_random=False))
def test_the_order_in_which_coupons_are_handed_in_does_not_matter(
    bill: tuple[list[LineAmount], list[Redemption], str], cycle: Cycle, at: datetime, random: Random
) -> None:
    lines, redemptions, currency = bill
    period = cycle.period_at(at)
    applied = apply_coupons(lines, redemptions, period, currency, cycle=cycle)
    shuffled = random.sample(redemptions, len(redemptions))
    assert apply_coupons(lines, shuffled, period, currency, cycle=cycle) == applied


@given(redemption_lists("USD"), cycles, instants, instants)
def test_what_a_period_was_given_it_is_given_however_late_the_coupon_is_removed_after_it(
    redemptions: list[Redemption], cycle: Cycle, at: datetime, later: datetime
) -> None:
    period = cycle.period_at(at)
    for redemption in redemptions:
        kept = Redemption(
            *(getattr(redemption, name) for name in redemption.__dataclass_fields__ if name != "removed_at")
        )
        removed_after = max(later, period.end)
        removed = Redemption(**{**_fields(kept), "removed_at": removed_after})
        assert covers(kept, period, cycle) == covers(removed, period, cycle)


@given(redemption_lists("USD"), cycles)
def test_a_redemption_covers_a_row_of_periods_from_its_own_on(redemptions: list[Redemption], cycle: Cycle) -> None:
    for redemption in redemptions:
        period, covered = cycle.period_at(redemption.starts_at - timedelta(days=400)), []
        for _ in range(40):
            covered.append(covers(redemption, period, cycle))
            if period.start <= redemption.starts_at < period.end and redemption.removed_at is None:
                assert covered[-1]
                assert not any(covered[:-1])
            period = cycle.period_at(period.end)
        count = sum(covered)
        assert covered in ([False] * (40 - count) + [True] * count, _row(covered, count))
        if redemption.coupon.duration is Duration.ONCE:
            assert count <= 1
        if redemption.coupon.duration is Duration.REPEATING:
            assert count <= (redemption.coupon.periods or 0)


@given(redemption_lists("USD"), cycles)
def test_redemptions_overlap_when_some_period_is_covered_by_both(redemptions: list[Redemption], cycle: Cycle) -> None:
    unremoved = [Redemption(**{**_fields(each), "removed_at": None}) for each in redemptions]
    for one, other in combinations(unremoved, 2):
        later = max(one.starts_at, other.starts_at)
        shared = cycle.period_at(later)
        # Both cover rows of periods, so if they share any, they share the first of the later one.
        assert overlap(one, other, cycle) == (covers(one, shared, cycle) and covers(other, shared, cycle))


def _ids(applied: list[CouponLine]) -> set[str]:
    return {each.redemption_id for each in applied}


def _fields(redemption: Redemption) -> dict[str, object]:
    return {name: getattr(redemption, name) for name in redemption.__dataclass_fields__}


def _row(covered: list[bool], count: int) -> list[bool]:
    first = covered.index(True) if True in covered else 0
    return [first <= at < first + count for at in range(len(covered))]


# Credits


@st.composite
def credit_lists(draw: st.DrawFn) -> list[Credit]:
    found = []
    for number in range(draw(st.integers(0, 5))):
        expires_at = draw(st.none() | instants)
        effective_at = draw(instants)
        grant = CreditGrant(
            grant_id=f"g{number}",
            tenant_id="acme",
            kind=draw(st.sampled_from(CreditKind)),
            amount=Decimal(1000),
            currency="USD",
            effective_at=effective_at,
            granted_at=draw(instants),
            expires_at=expires_at,
            priority=draw(st.integers(0, 2)),
            plans=draw(some),
            meters=draw(some),
        )
        found.append(Credit(grant, Decimal(draw(st.integers(0, 1000))).scaleb(-2), draw(st.integers(0, 9)) == 0))
    return found


dues_lists = st.lists(
    st.builds(Due, names, st.none() | names, st.integers(1, 1000).map(lambda units: Decimal(units).scaleb(-2))),
    max_size=5,
)


@given(credit_lists(), dues_lists, instants, st.randoms(use_true_random=False))
def test_draws_are_what_the_draw_order_allows_and_never_more(
    credits: list[Credit], dues: list[Due], at: datetime, random: Random
) -> None:
    draws = {draw.grant_id: draw.amount for draw in plan_draws(credits, dues, "USD", at)}
    assert draws == {
        draw.grant_id: draw.amount for draw in plan_draws(random.sample(credits, len(credits)), dues, "USD", at)
    }
    ordered = sorted(credits, key=lambda credit: credit.grant.draw_order)
    expected: dict[str, Decimal] = {}
    for credit in ordered:
        grant_id = credit.grant.grant_id
        # Reached apart from the product: a set of credits can pay together at most what is due of what any of it is
        # for, and so many are few enough to look at every set.
        most = credit.available(at)
        before = [each for each in ordered if each.grant.grant_id in expected]
        for size in range(len(before) + 1):
            for others in combinations(before, size):
                due = sum_of(due.amount for due in dues if any(one.grant.pays_for(due) for one in (*others, credit)))
                most = min(most, due - sum_of(expected[one.grant.grant_id] for one in others))
        if most:
            expected[grant_id] = most
    assert draws == expected
