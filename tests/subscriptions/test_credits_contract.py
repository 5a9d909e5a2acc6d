"""Granting, drawing, returning, voiding, refunding and expiring credits: twice is once; in memory and for real."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.errors import BrokenInvariantError, InvalidInputError, NotFoundError
from rating.domain.credit import Credit, CreditEntry, CreditGrant, CreditKind, Draw, Due, EntryKind
from rating.draw_credits import CreditsReturnedError, draw_credits, total_drawn
from rating.return_credits import return_credits
from runtime.settings import Settings
from subscriptions.adapters.postgres_credits import PostgresCreditBooks
from subscriptions.domain.coupon_wish import read_credit
from subscriptions.expire_credits import expire_credits
from subscriptions.grant_credit import CreditExistsError, grant_credit
from subscriptions.refund_credit import RefundedBeforeError, refund_credit
from subscriptions.void_credit import void_credit
from tests.subscriptions.coupon_scene import NOW, CouponScene, open_scene

KINDS = ["memory", pytest.param("real", marks=pytest.mark.integration)]
LATER = NOW + timedelta(days=30)
EXPIRY = NOW + timedelta(days=20)


@pytest.fixture(params=KINDS)
def engines(request: pytest.FixtureRequest) -> Settings | None:
    return request.getfixturevalue("settings") if request.param == "real" else None


@pytest.fixture
async def scene(engines: Settings | None) -> AsyncIterator[CouponScene]:
    async with open_scene(engines) as opened:
        yield opened


async def grant(
    scene: CouponScene, amount: str = "100", key: str = "k", now: datetime = NOW, **document: Any
) -> tuple[CreditGrant, bool]:
    async with scene.ledger_and_facts() as (ledger, facts):
        return await grant_credit(
            scene.tenant_id, {"amount": amount, **document}, key=key, ledger=ledger, facts=facts, now=now
        )


async def draw(
    scene: CouponScene, invoice: str, amount: str, at: datetime = NOW, meter: str | None = None
) -> list[Draw]:
    dues = [Due("coupon-pro", meter, Decimal(amount))]
    async with scene.ledger() as ledger:
        return await draw_credits(scene.tenant_id, f"{invoice}-{scene.tag}", dues, "USD", ledger=ledger, at=at)


async def give_back(scene: CouponScene, invoice: str, at: datetime = LATER) -> list[Draw]:
    async with scene.ledger() as ledger:
        return await return_credits(f"{invoice}-{scene.tag}", ledger=ledger, at=at)


async def void(scene: CouponScene, grant_id: str, now: datetime = NOW) -> CreditEntry | None:
    async with scene.ledger() as ledger:
        return await void_credit(grant_id, reason="a mistake", ledger=ledger, now=now)


async def refund(
    scene: CouponScene, grant_id: str, amount: str | None = None, key: str = "r", now: datetime = NOW
) -> tuple[CreditEntry, bool]:
    async with scene.ledger() as ledger:
        return await refund_credit(grant_id, amount, key=key, reason="asked for", ledger=ledger, now=now)


async def expire(scene: CouponScene, now: datetime) -> list[CreditEntry]:
    books = scene.memory_ledger if scene.pool is None else PostgresCreditBooks(scene.pool)
    return [each for each in await expire_credits(books, now=now) if each.tenant_id == scene.tenant_id]  # type: ignore[arg-type]


async def entries(scene: CouponScene, known_at: datetime | None = None) -> list[tuple[str, str, str]]:
    async with scene.ledger() as ledger:
        found = await ledger.entries_of(scene.tenant_id, known_at=known_at)
    return [(each.kind.value, f"{each.amount:f}", f"{each.balance_after:f}") for each in found]


async def held(scene: CouponScene) -> list[Credit]:
    async with scene.ledger() as ledger:
        return await ledger.credits(scene.tenant_id)


async def left(scene: CouponScene) -> dict[str, str]:
    return {each.grant.reason: f"{each.balance:f}" for each in await held(scene)}


def drawn(draws: list[Draw]) -> str:
    return f"{total_drawn(draws):f}"


async def test_a_credit_is_kept_as_it_was_granted(scene: CouponScene) -> None:
    given, is_new = await grant(
        scene,
        "12.50",
        kind="promotional",
        priority=3,
        effective_at="2026-11-01",
        expires_at="2027-01-01",
        plans=["coupon-pro"],
        meters=["coupon-cpu"],
        reason="sorry",
    )
    assert is_new
    assert given == CreditGrant(
        grant_id=given.grant_id,
        tenant_id=scene.tenant_id,
        kind=CreditKind.PROMOTIONAL,
        amount=Decimal("12.50"),
        currency="USD",
        effective_at=datetime(2026, 11, 1, tzinfo=UTC),
        granted_at=NOW,
        expires_at=datetime(2027, 1, 1, tzinfo=UTC),
        priority=3,
        plans=frozenset({"coupon-pro"}),
        meters=frozenset({"coupon-cpu"}),
        reason="sorry",
    )
    assert await held(scene) == [Credit(given, Decimal("12.50"))]
    assert await entries(scene) == [("granted", "12.50", "12.50")]


async def test_granting_twice_is_granting_once(scene: CouponScene) -> None:
    first, _ = await grant(scene)
    assert await grant(scene, now=LATER) == (first, False)
    with pytest.raises(CreditExistsError):
        await grant(scene, "200")
    with pytest.raises(CreditExistsError):
        await grant(scene, effective_at="2026-10-01")
    other, is_new = await grant(scene, key="another")
    assert is_new
    assert other.grant_id != first.grant_id
    assert len(await entries(scene)) == 2


async def test_an_invoice_draws_once_whatever_has_changed_since(scene: CouponScene) -> None:
    first, _ = await grant(scene, "10")
    draws = await draw(scene, "inv", "30.00")
    assert draws == [Draw(first.grant_id, Decimal(10))]
    await grant(scene, "100", key="another")
    assert await draw(scene, "inv", "30.00") == draws
    assert await draw(scene, "inv", "500.00", at=LATER) == draws
    assert [kind for kind, _, _ in await entries(scene)] == ["granted", "drawn", "granted"]


async def test_nothing_is_drawn_where_there_is_nothing(scene: CouponScene) -> None:
    assert await draw(scene, "inv", "30.00") == []
    await grant(scene, meters=["coupon-cpu"])
    assert await draw(scene, "inv", "30.00") == []
    assert drawn(await draw(scene, "inv", "30.00", meter="coupon-cpu")) == "30.00"


async def test_what_a_voided_invoice_drew_comes_back_once(scene: CouponScene) -> None:
    await grant(scene, "20", reason="a", priority=1)
    await grant(scene, "20", key="b", reason="b")
    assert drawn(await draw(scene, "inv", "30.00")) == "30.00"
    assert drawn(await give_back(scene, "inv")) == "30.00"
    assert await give_back(scene, "inv") == []
    assert await left(scene) == {"a": "20.00", "b": "20.00"}
    with pytest.raises(CreditsReturnedError):
        await draw(scene, "inv", "30.00")
    assert await give_back(scene, "unknown") == []


async def test_what_comes_back_to_a_voided_credit_is_void(scene: CouponScene) -> None:
    credit, _ = await grant(scene, "20", reason="a")
    await draw(scene, "inv", "15.00")
    assert await void(scene, credit.grant_id) is not None
    await give_back(scene, "inv")
    assert [kind for kind, _, _ in await entries(scene)] == ["granted", "drawn", "voided", "returned", "voided"]
    assert await left(scene) == {"a": "0.00"}
    assert await draw(scene, "other", "15.00", at=LATER) == []


async def test_voiding_twice_is_voiding_once(scene: CouponScene) -> None:
    credit, _ = await grant(scene, "20", reason="a")
    entry = await void(scene, credit.grant_id)
    assert entry is not None
    assert (entry.amount, entry.reason) == (-20, "a mistake")
    assert await void(scene, credit.grant_id) is None
    assert await draw(scene, "inv", "15.00") == []
    with pytest.raises(NotFoundError):
        await void(scene, "nothing")


async def test_a_used_up_credit_can_be_voided_so_that_nothing_comes_back_to_it(scene: CouponScene) -> None:
    credit, _ = await grant(scene, "20", reason="a")
    await draw(scene, "inv", "20.00")
    entry = await void(scene, credit.grant_id)
    assert entry is not None
    assert entry.amount == 0
    await give_back(scene, "inv")
    assert await left(scene) == {"a": "0.00"}


async def test_a_refund_is_entered_once_for_its_key(scene: CouponScene) -> None:
    credit, _ = await grant(scene, "20", reason="a")
    first = await refund(scene, credit.grant_id, "5.00")
    assert await refund(scene, credit.grant_id, "5.00") == (first[0], False)
    assert await refund(scene, credit.grant_id) == (first[0], False)
    with pytest.raises(RefundedBeforeError):
        await refund(scene, credit.grant_id, "6.00")
    rest, is_new = await refund(scene, credit.grant_id, key="rest")
    assert (rest.amount, is_new) == (Decimal("-15.00"), True)
    with pytest.raises(InvalidInputError, match="insufficient_credit"):
        await refund(scene, credit.grant_id, key="more")


@pytest.mark.parametrize(
    ("terms", "amount", "key", "code"),
    [
        ({"kind": "promotional"}, None, "r", "not_refundable"),
        ({}, "100.01", "r", "insufficient_credit"),
        ({}, "0", "r", "amount_not_positive"),
        ({}, "-1", "r", "negative_amount"),
        ({}, "1.001", "r", "too_many_digits"),
        ({}, "much", "r", "invalid_amount"),
        ({}, "1", "", "missing_field"),
        ({"expires_at": EXPIRY.isoformat()}, None, "r", "credit_expired"),
    ],
)
async def test_refunds_that_are_refused(
    scene: CouponScene, terms: dict[str, Any], amount: str | None, key: str, code: str
) -> None:
    credit, _ = await grant(scene, **terms)
    with pytest.raises(InvalidInputError) as found:
        await refund(scene, credit.grant_id, amount, key, now=EXPIRY)
    assert code in [fault.code for fault in found.value.faults]
    assert len(await entries(scene)) == 1
    with pytest.raises(NotFoundError):
        await refund(scene, "nothing")


async def test_a_voided_credit_is_not_refunded(scene: CouponScene) -> None:
    credit, _ = await grant(scene)
    await void(scene, credit.grant_id)
    with pytest.raises(InvalidInputError, match="credit_voided"):
        await refund(scene, credit.grant_id)


async def test_an_expired_credit_is_not_drawn_however_late_its_expiry_is_written(scene: CouponScene) -> None:
    await grant(scene, "20", reason="a", expires_at=EXPIRY.isoformat())
    assert await draw(scene, "inv", "15.00", at=EXPIRY) == []
    assert await expire(scene, EXPIRY - timedelta(microseconds=1)) == []
    (entry,) = await expire(scene, EXPIRY)
    assert (entry.kind.value, entry.amount, entry.credit.value) == ("expired", -20, "breakage")
    assert await expire(scene, LATER) == []
    assert await left(scene) == {"a": "0.00"}


async def test_what_comes_back_to_an_expired_credit_expires(scene: CouponScene) -> None:
    await grant(scene, "20", reason="a", kind="promotional", expires_at=EXPIRY.isoformat())
    await draw(scene, "inv", "15.00")
    await expire(scene, EXPIRY)
    await give_back(scene, "inv", at=LATER)
    assert await left(scene) == {"a": "15.00"}
    assert await draw(scene, "other", "15.00", at=LATER) == []
    (entry,) = await expire(scene, LATER)
    assert (entry.amount, entry.credit.value) == (Decimal("-15.00"), "promotions")


async def test_history_is_as_it_was_known_then(scene: CouponScene) -> None:
    await grant(scene, "20")
    await draw(scene, "inv", "15.00", at=EXPIRY)
    await give_back(scene, "inv", at=LATER)
    assert await entries(scene, NOW - timedelta(seconds=1)) == []
    assert await entries(scene, EXPIRY) == [("granted", "20.00", "20.00"), ("drawn", "-15.00", "5.00")]
    assert len(await entries(scene, LATER)) == 3


async def test_a_writer_whose_clock_is_behind_does_not_rewrite_the_past(scene: CouponScene) -> None:
    await grant(scene, "20")
    await draw(scene, "first", "5.00", at=LATER)
    await draw(scene, "second", "5.00", at=EXPIRY)
    assert await entries(scene, EXPIRY) == [("granted", "20.00", "20.00")]
    assert len(await entries(scene, LATER)) == 3


@pytest.mark.parametrize(
    ("document", "faults"),
    [
        ({}, [("missing_field", "amount")]),
        ({"amount": "0"}, [("amount_not_positive", "amount")]),
        ({"amount": "-5"}, [("negative_amount", "amount")]),
        ({"amount": "5.001"}, [("too_many_digits", "amount")]),
        ({"amount": 5.5}, [("float_amount", "amount")]),
        ({"amount": "1" * 16}, [("too_many_digits", "amount")]),
        ({"amount": "5", "kind": "gift"}, [("invalid_kind", "kind")]),
        ({"amount": "5", "currency": "EUR"}, [("currency_mismatch", "currency")]),
        ({"amount": "5", "currency": "ZZZ"}, [("unknown_currency", "currency")]),
        ({"amount": "5", "priority": "high"}, [("invalid_priority", "priority")]),
        ({"amount": "5", "expires_at": "2026-10-01"}, [("invalid_expiry", "expires_at")]),
        (
            {"amount": "5", "effective_at": "2027-01-01", "expires_at": "2027-01-01"},
            [("invalid_expiry", "expires_at")],
        ),
        ({"amount": "5", "effective_at": "then"}, [("invalid_time", "effective_at")]),
        ({"amount": "5", "reason": "x" * 501}, [("invalid_text", "reason")]),
        ({"amount": "5", "meters": [""]}, [("invalid_name", "meters[0]")]),
        ({"amount": "5", "colour": "red"}, [("unknown_field", "colour")]),
        ({"amount": "x", "kind": "x"}, [("invalid_kind", "kind"), ("invalid_amount", "amount")]),
    ],
)
def test_a_credit_that_makes_no_sense_is_refused_with_every_path(
    document: dict[str, Any], faults: list[tuple[str, str]]
) -> None:
    with pytest.raises(InvalidInputError) as found:
        read_credit("g", "acme", document, currency="USD", now=NOW)
    assert [(fault.code, fault.path) for fault in found.value.faults] == faults


async def test_who_or_what_does_not_exist_gets_no_credit(scene: CouponScene) -> None:
    with pytest.raises(InvalidInputError) as found:
        await grant(scene, plans=["platinum"], meters=["nonsense"])
    assert [fault.code for fault in found.value.faults] == ["unknown_plan", "unknown_meter"]
    async with scene.ledger_and_facts() as (ledger, facts):
        with pytest.raises(NotFoundError, match="no tenant"):
            await grant_credit("nobody", {"amount": "5"}, key="k", ledger=ledger, facts=facts, now=NOW)


@pytest.mark.parametrize(
    ("kind", "amount", "reference"),
    [
        (EntryKind.EXPIRED, "-100.01", ""),
        (EntryKind.DRAWN, "-1", "again"),
        (EntryKind.REFUNDED, "-1", ""),
        (EntryKind.GRANTED, "1", ""),
        (EntryKind.DRAWN, "1", "other"),
    ],
)
async def test_an_entry_that_must_not_be_breaks_the_work_off(
    scene: CouponScene, kind: EntryKind, amount: str, reference: str
) -> None:
    credit, _ = await grant(scene, "105")
    async with scene.ledger() as ledger:
        await ledger.enter(credit, EntryKind.DRAWN, Decimal(-5), at=NOW, reference="again")
    with pytest.raises(BrokenInvariantError, match=credit.grant_id):
        async with scene.ledger() as ledger:
            await ledger.enter(credit, kind, Decimal(amount), at=NOW, reference=reference)
    assert await left(scene) == {"": "100.00"}


# Stories


async def test_story_a_partial_draw_over_three_invoices(scene: CouponScene) -> None:
    await grant(scene, "100", reason="prepaid")
    # 100.00 - 45.00 - 45.00 leaves 10.00 of which the third invoice over 45.00 takes all: 35.00 remain due
    assert drawn(await draw(scene, "october", "45.00")) == "45.00"
    assert drawn(await draw(scene, "november", "45.00", at=LATER)) == "45.00"
    assert drawn(await draw(scene, "december", "45.00", at=LATER + timedelta(days=30))) == "10.00"
    assert await left(scene) == {"prepaid": "0.00"}
    # run again, nothing new
    before = await entries(scene)
    for invoice in ("october", "november", "december"):
        await draw(scene, invoice, "45.00", at=LATER + timedelta(days=60))
    assert await entries(scene) == before


async def test_story_promotional_credit_goes_before_what_was_paid(scene: CouponScene) -> None:
    await grant(scene, "50", key="paid", reason="paid")
    await grant(scene, "20", key="promo", kind="promotional", reason="promo", now=NOW + timedelta(hours=1))
    # 30.00 = 20.00 promotional + 10.00 paid; 40.00 paid remain
    assert [f"{each.amount:f}" for each in await draw(scene, "inv", "30.00", at=LATER)] == ["20.00", "10.00"]
    assert await left(scene) == {"promo": "0.00", "paid": "40.00"}


async def test_story_a_credit_expires_before_the_invoice(scene: CouponScene) -> None:
    await grant(scene, "20", key="a", reason="ends", expires_at=EXPIRY.isoformat())
    await grant(scene, "20", key="b", reason="stays")
    # the invoice comes ten days after the end: 30.00 - 20.00 of the other one = 10.00 due; the expired 20.00 are ours
    assert drawn(await draw(scene, "inv", "30.00", at=LATER)) == "20.00"
    assert [entry.amount for entry in await expire(scene, LATER)] == [-20]
    assert await left(scene) == {"ends": "0.00", "stays": "0.00"}


async def test_story_a_voided_invoice_is_refunded(scene: CouponScene) -> None:
    credit, _ = await grant(scene, "100", reason="prepaid")
    assert drawn(await draw(scene, "inv", "60.00")) == "60.00"
    # voided: 40.00 + 60.00 = 100.00 again, of which the customer takes 100.00 back
    await give_back(scene, "inv")
    entry, _ = await refund(scene, credit.grant_id, now=LATER)
    assert (f"{entry.amount:f}", entry.debit.value, entry.credit.value) == ("-100.00", "customer_credits", "cash")
    assert await entries(scene) == [
        ("granted", "100.00", "100.00"),
        ("drawn", "-60.00", "40.00"),
        ("returned", "60.00", "100.00"),
        ("refunded", "-100.00", "0.00"),
    ]
