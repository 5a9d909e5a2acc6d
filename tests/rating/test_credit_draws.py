"""Which credit pays what of an invoice, and between which accounts its entries move."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from rating.domain.credit import (
    Credit,
    CreditGrant,
    CreditKind,
    Due,
    EntryKind,
    LedgerAccount,
    accounts_of,
    dues_of,
    plan_draws,
)
from rating.domain.net_lines import LineAmount

NOW = datetime(2026, 11, 1, tzinfo=UTC)
GRANTED = datetime(2026, 9, 1, tzinfo=UTC)


def credit(grant_id: str, balance: str, **changes: Any) -> Credit:
    is_voided = changes.pop("is_voided", False)
    for name in ("plans", "meters"):
        changes[name] = frozenset(changes.get(name, ()))
    given: dict[str, Any] = {
        "kind": CreditKind.PAID,
        "currency": "USD",
        "effective_at": GRANTED,
        "granted_at": GRANTED,
        **changes,
    }
    return Credit(CreditGrant(grant_id, "acme", amount=Decimal(1000), **given), Decimal(balance), is_voided)


def due(amount: str, meter_id: str | None = None, plan_id: str = "pro") -> Due:
    return Due(plan_id, meter_id, Decimal(amount))


def drawn(dues: list[Due], *credits: Credit) -> dict[str, str]:
    return {draw.grant_id: str(draw.amount) for draw in plan_draws(credits, dues, "USD", NOW)}


def test_no_more_is_drawn_than_is_due_nor_than_there_is() -> None:
    assert drawn([due("30.00")], credit("a", "100")) == {"a": "30.00"}
    assert drawn([due("30.00")], credit("a", "12.34")) == {"a": "12.34"}
    assert drawn([due("30.00")]) == {}
    assert drawn([], credit("a", "1")) == {}


def test_the_draw_order() -> None:
    soon, late = NOW.replace(month=12), NOW.replace(year=2027)
    ordered = [
        credit("z", "1", priority=1),
        credit("y", "1", expires_at=soon),
        credit("x", "1", expires_at=late, kind=CreditKind.PROMOTIONAL),
        credit("w", "1", expires_at=late),
        credit("v", "1", kind=CreditKind.PROMOTIONAL),
        credit("u", "1"),
        credit("t", "1", granted_at=NOW),
        credit("tt", "1", granted_at=NOW),
    ]
    for count in range(1, len(ordered) + 1):
        names = [each.grant.grant_id for each in ordered[:count]]
        assert list(drawn([due(str(count))], *reversed(ordered))) == names


def test_promotional_before_paid() -> None:
    # 30.00: the promotional 20.00 first, then 10.00 of the paid
    promotional = credit("promo", "20", kind=CreditKind.PROMOTIONAL)
    assert drawn([due("30.00")], credit("paid", "100"), promotional) == {"promo": "20.00", "paid": "10.00"}


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_at": NOW},
        {"effective_at": NOW.replace(minute=1)},
        {"is_voided": True},
        {"currency": "EUR"},
        {"plans": {"lite"}},
        {"meters": {"cpu"}},
    ],
)
def test_what_cannot_be_drawn(changes: dict[str, Any]) -> None:
    assert drawn([due("30.00")], credit("a", "100", **changes)) == {}


def test_a_limited_credit_pays_only_for_what_it_is_for() -> None:
    dues = [due("10.00", "cpu"), due("20.00", "disk"), due("40.00", "cpu", "add-on")]
    assert drawn(dues, credit("a", "100", meters={"cpu"})) == {"a": "50.00"}
    assert drawn(dues, credit("a", "100", plans={"pro"})) == {"a": "30.00"}
    assert drawn(dues, credit("a", "100", plans={"pro"}, meters={"cpu"})) == {"a": "10.00"}


def test_who_comes_first_leaves_to_the_limited_what_only_they_can_pay() -> None:
    # a pays 10.00 first, for disk and not for cpu, so that b, which is for cpu, can pay its 10.00 too
    dues = [due("10.00", "cpu"), due("10.00", "disk")]
    found = drawn(dues, credit("a", "10", priority=1), credit("b", "10", meters={"cpu"}, priority=2))
    assert found == {"a": "10.00", "b": "10.00"}
    # and through a third: a gives up disk to b, for which c gives up nothing
    dues = [due("5.00", "cpu"), due("5.00", "disk"), due("5.00", "net")]
    found = drawn(
        dues,
        credit("a", "5", priority=1, meters={"cpu", "disk"}),
        credit("b", "5", priority=2, meters={"disk", "net", "cpu"}),
        credit("c", "5", priority=3, meters={"cpu"}),
    )
    assert found == {"a": "5.00", "b": "5.00", "c": "5.00"}


def test_what_is_due_is_net_of_discounts_and_coupons() -> None:
    lines = [
        LineAmount("a", "cpu", "cpu", "pro", "usage", Decimal("10.00")),
        LineAmount("a2", "cpu", "cpu", "pro", "usage", Decimal("2.00")),
        LineAmount("b", "disk", "disk", "pro", "usage", Decimal("5.00")),
        LineAmount("a coupon", "cpu", "cpu", "pro", "coupon", Decimal("-3.00")),
        LineAmount("b coupon", "disk", "disk", "pro", "coupon", Decimal("-5.00")),
    ]
    assert dues_of(lines, "USD") == [due("9.00", "cpu")]


def test_between_which_accounts_entries_move() -> None:
    names = {
        (kind.value, credit_kind.value): tuple(account.value for account in accounts_of(kind, credit_kind))
        for kind in EntryKind
        for credit_kind in CreditKind
    }
    liability = LedgerAccount.CUSTOMER_CREDITS.value
    assert names == {
        ("granted", "paid"): ("cash", liability),
        ("granted", "promotional"): ("promotions", liability),
        ("drawn", "paid"): (liability, "revenue"),
        ("drawn", "promotional"): (liability, "revenue"),
        ("returned", "paid"): ("revenue", liability),
        ("returned", "promotional"): ("revenue", liability),
        ("expired", "paid"): (liability, "breakage"),
        ("expired", "promotional"): (liability, "promotions"),
        ("voided", "paid"): (liability, "cash"),
        ("voided", "promotional"): (liability, "promotions"),
        ("refunded", "paid"): (liability, "cash"),
        ("refunded", "promotional"): (liability, "cash"),
    }
