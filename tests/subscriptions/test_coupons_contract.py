"""Offering, redeeming, removing and archiving coupons: twice is once, limits hold; in memory and for real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from core.errors import InvalidInputError, NotFoundError
from core.period import month_of
from invoicing.adapters.stored_subscribed import read_subscribed
from rating.domain.coupon import Coupon, Duration, Redemption, apply_coupons
from rating.domain.cycle import Cycle, Interval
from rating.domain.net_lines import LineAmount
from runtime.settings import Settings
from subscriptions.archive_coupon import archive_coupon
from subscriptions.create_coupon import CouponExistsError, create_coupon
from subscriptions.domain.coupon_wish import read_coupon
from subscriptions.redeem_coupon import redeem_coupon
from subscriptions.remove_coupon import remove_coupon
from tests.subscriptions.coupon_scene import BEGIN, NOW, CouponScene, open_scene

KINDS = ["memory", pytest.param("real", marks=pytest.mark.integration)]
NOVEMBER, DECEMBER = datetime(2026, 11, 5, tzinfo=UTC), datetime(2026, 12, 5, tzinfo=UTC)
MONTHLY = Cycle(Interval.MONTH, BEGIN.date())


@pytest.fixture(params=KINDS)
def engines(request: pytest.FixtureRequest) -> Settings | None:
    return request.getfixturevalue("settings") if request.param == "real" else None


@pytest.fixture
async def scene(engines: Settings | None) -> AsyncIterator[CouponScene]:
    async with open_scene(engines) as opened:
        yield opened


async def create(scene: CouponScene, now: datetime = NOW, **document: Any) -> tuple[Coupon, bool]:
    terms = {"percent_off": "20"} if "amount_off" not in document else {}
    async with scene.store() as store:
        return await create_coupon(scene.coupon_id, {**terms, **document}, store=store, now=now)


async def redeem(
    scene: CouponScene, tenant_id: str | None = None, subscription_id: str | None = None, **options: Any
) -> tuple[Redemption, bool]:
    now = options.pop("now", NOW)
    async with scene.store() as store:
        return await redeem_coupon(
            scene.coupon_id, tenant_id or scene.tenant_id, subscription_id, store=store, now=now, **options
        )


async def remove(scene: CouponScene, now: datetime = NOW) -> tuple[list[Redemption], bool]:
    async with scene.store() as store:
        return await remove_coupon(scene.coupon_id, scene.tenant_id, store=store, now=now)


async def archive(scene: CouponScene, now: datetime = NOW) -> tuple[Coupon, bool]:
    async with scene.store() as store:
        return await archive_coupon(scene.coupon_id, store=store, now=now)


async def refused(scene: CouponScene, **options: Any) -> list[str]:
    with pytest.raises(InvalidInputError) as found:
        await redeem(scene, **options)
    return [fault.code for fault in found.value.faults]


ALL = {
    "name": "Autumn",
    "amount_off": "10.50",
    "currency": "USD",
    "duration": "repeating",
    "duration_in_periods": 3,
    "max_redemptions": 50,
    "max_per_tenant": 2,
    "valid_from": "2026-10-01",
    "valid_until": "2026-12-01T00:00:00Z",
    "plans": ["coupon-pro", "coupon-lite"],
    "meters": ["coupon-cpu"],
    "charges": ["base"],
    "minimum_amount": "100",
    "priority": 7,
    "exclusive": True,
}


async def test_a_coupon_is_kept_as_it_was_offered(scene: CouponScene) -> None:
    coupon, is_new = await create(scene, **ALL)
    assert is_new
    assert coupon == Coupon(
        coupon_id=scene.coupon_id,
        name="Autumn",
        valid_from=datetime(2026, 10, 1, tzinfo=UTC),
        amount_off=Decimal("10.50"),
        currency="USD",
        duration=Duration.REPEATING,
        periods=3,
        valid_until=datetime(2026, 12, 1, tzinfo=UTC),
        max_redemptions=50,
        max_per_tenant=2,
        plans=frozenset({"coupon-pro", "coupon-lite"}),
        meters=frozenset({"coupon-cpu"}),
        charges=frozenset({"base"}),
        minimum_amount=Decimal(100),
        priority=7,
        exclusive=True,
    )
    async with scene.store() as store:
        (offered,) = await store.coupons(scene.coupon_id)
        assert (offered.coupon, offered.redeemed, offered.created_at) == (coupon, 0, NOW)
        assert offered in await store.coupons()


async def test_offering_twice_is_offering_once(scene: CouponScene) -> None:
    first, _ = await create(scene)
    assert await create(scene, now=NOVEMBER) == (first, False)
    with pytest.raises(CouponExistsError):
        await create(scene, percent_off="30")
    with pytest.raises(CouponExistsError):
        await create(scene, valid_from="2026-10-01")


async def test_a_changed_coupon_is_the_next_version(scene: CouponScene) -> None:
    await create(scene)
    before, _ = await redeem(scene)
    archived, is_new = await archive(scene)
    assert (archived.archived_at, is_new) == (NOW, True)
    assert await archive(scene, NOVEMBER) == (archived, False)
    assert await refused(scene, now=DECEMBER) == ["coupon_archived"]
    changed, is_new = await create(scene, now=NOVEMBER, percent_off="30", duration="forever")
    assert (changed.version, is_new) == (2, True)
    after, is_new = await redeem(scene, now=NOVEMBER)
    assert is_new
    assert (before.coupon.version, after.coupon.version) == (1, 2)
    assert before.redemption_id != after.redemption_id


async def test_redeeming_twice_is_redeeming_once(scene: CouponScene) -> None:
    await create(scene, duration="forever")
    first, is_new = await redeem(scene)
    assert is_new
    assert (first.subscription_id, first.redeemed_at, first.starts_at) == (scene.subscription_id, NOW, NOW)
    assert await redeem(scene, now=NOVEMBER) == (first, False)
    assert await redeem(scene, subscription_id=scene.subscription_id, starts_at=DECEMBER) == (first, False)
    async with scene.store() as store:
        assert await store.redemptions(tenant_id=scene.tenant_id) == [first]
        offered = await store.newest_coupon(scene.coupon_id)
        assert offered is not None
        assert offered.redeemed == 1


async def test_a_coupon_that_has_ended_can_be_redeemed_again(scene: CouponScene) -> None:
    await create(scene, max_per_tenant=2)
    october, _ = await redeem(scene)
    november, is_new = await redeem(scene, now=NOVEMBER)
    assert is_new
    assert november.redemption_id != october.redemption_id
    assert await refused(scene, now=DECEMBER) == ["coupon_used_up_by_tenant"]


async def test_a_coupon_redeemed_for_later_shuts_out_what_would_reach_into_it(scene: CouponScene) -> None:
    await create(scene, duration="forever")
    later, _ = await redeem(scene, starts_at=DECEMBER)
    assert later.starts_at == DECEMBER
    assert await redeem(scene) == (later, False)


async def test_before_the_subscription_starts_it_counts_from_its_start(scene: CouponScene) -> None:
    long_ago = datetime(2025, 5, 5, tzinfo=UTC)
    await create(scene, now=long_ago)
    redemption, _ = await redeem(scene, now=long_ago)
    assert (redemption.redeemed_at, redemption.starts_at) == (long_ago, BEGIN)


async def test_an_earlier_version_still_in_effect_is_not_doubled(scene: CouponScene) -> None:
    await create(scene, duration="forever")
    await redeem(scene)
    await archive(scene)
    await create(scene, now=NOVEMBER, percent_off="30", duration="forever")
    assert await refused(scene, now=NOVEMBER) == ["coupon_already_held"]
    await remove(scene, NOVEMBER)
    _, is_new = await redeem(scene, now=NOVEMBER)
    assert is_new


async def test_removing_twice_is_removing_once(scene: CouponScene) -> None:
    await create(scene, duration="forever", max_redemptions=1)
    redemption, _ = await redeem(scene)
    removed, is_new = await remove(scene, NOVEMBER)
    assert is_new
    assert [(each.redemption_id, each.removed_at) for each in removed] == [(redemption.redemption_id, NOVEMBER)]
    assert await remove(scene, DECEMBER) == (removed, False)
    # a removed redemption stays redeemed
    assert await refused(scene, now=DECEMBER) == ["coupon_used_up"]


async def test_every_reason_against_a_redemption_is_told_at_once(scene: CouponScene) -> None:
    document = {"amount_off": "5", "currency": "EUR", "valid_from": "2026-12-01", "plans": ["coupon-lite"]}
    await create(scene, **document)
    assert await refused(scene) == ["coupon_not_yet_valid", "currency_mismatch", "coupon_not_for_plan"]


@pytest.mark.parametrize(("now", "codes"), [(NOVEMBER - timedelta(seconds=1), None), (NOVEMBER, ["coupon_ended"])])
async def test_when_a_coupon_can_be_redeemed(scene: CouponScene, now: datetime, codes: list[str] | None) -> None:
    await create(scene, valid_until=NOVEMBER.isoformat())
    if codes is None:
        assert (await redeem(scene, now=now))[1]
    else:
        assert await refused(scene, now=now) == codes


async def test_what_cannot_be_redeemed(scene: CouponScene) -> None:
    with pytest.raises(NotFoundError, match="no coupon"):
        await redeem(scene)
    with pytest.raises(NotFoundError, match="no coupon"):
        await remove(scene)
    with pytest.raises(NotFoundError, match="no coupon"):
        await archive(scene)
    await create(scene, automatic=True, plans=["coupon-pro"])
    with pytest.raises(NotFoundError, match="no tenant"):
        await redeem(scene, "nobody")
    with pytest.raises(NotFoundError, match="no subscription"):
        await redeem(scene, subscription_id="none")
    assert await refused(scene) == ["coupon_automatic"]
    assert await refused(scene, starts_at=BEGIN) == ["backdated"]
    with pytest.raises(InvalidInputError, match="coupon_automatic"):
        await remove(scene)


async def test_which_subscription_must_be_clear(scene: CouponScene) -> None:
    await create(scene)
    with pytest.raises(NotFoundError, match="has not redeemed"):
        await remove(scene)
    await scene.subscribe(scene.tenant_id, suffix="-b")
    assert await refused(scene) == ["subscription_needed"]
    redemption, is_new = await redeem(scene, subscription_id=f"{scene.subscription_id}-b")
    assert (redemption.subscription_id, is_new) == (f"{scene.subscription_id}-b", True)


async def test_an_ended_subscription_redeems_nothing(scene: CouponScene) -> None:
    await create(scene)
    gone = f"{scene.tenant_id}-gone"
    await scene.settle_in(gone, ended_at=NOW - timedelta(days=1))
    assert await refused(scene, tenant_id=gone) == ["subscription_needed"]
    assert await refused(scene, tenant_id=gone, subscription_id=f"sub-{gone}") == ["subscription_ended"]


async def test_limits_that_do_not_exist_are_refused(scene: CouponScene) -> None:
    with pytest.raises(InvalidInputError) as found:
        await create(scene, plans=["platinum", "coupon-pro"], meters=["nonsense"])
    assert [(fault.code, fault.path) for fault in found.value.faults] == [
        ("unknown_plan", "plans"),
        ("unknown_meter", "meters"),
    ]


@pytest.mark.parametrize(
    ("document", "faults"),
    [
        ({}, [("contradiction", "percent_off")]),
        ({"percent_off": "10", "amount_off": "5", "currency": "USD"}, [("contradiction", "percent_off")]),
        ({"percent_off": "0"}, [("invalid_percent", "percent_off")]),
        ({"percent_off": "100.01"}, [("invalid_percent", "percent_off")]),
        ({"percent_off": "-1"}, [("negative_amount", "percent_off")]),
        ({"percent_off": 12.5}, [("float_amount", "percent_off")]),
        ({"percent_off": "ten"}, [("invalid_amount", "percent_off")]),
        ({"percent_off": "10", "currency": "USD"}, [("contradiction", "currency")]),
        ({"amount_off": "5"}, [("missing_field", "currency")]),
        ({"amount_off": "5", "currency": "ZZZ"}, [("unknown_currency", "currency")]),
        ({"amount_off": "0", "currency": "USD"}, [("amount_not_positive", "amount_off")]),
        ({"amount_off": "5.001", "currency": "USD"}, [("too_many_digits", "amount_off")]),
        ({"amount_off": "5.5", "currency": "JPY"}, [("too_many_digits", "amount_off")]),
        ({"percent_off": "10", "minimum_amount": "5"}, [("missing_field", "currency")]),
        ({"percent_off": "10", "duration": "always"}, [("invalid_duration", "duration")]),
        ({"percent_off": "10", "duration": "repeating"}, [("missing_field", "duration_in_periods")]),
        ({"percent_off": "10", "duration_in_periods": 3}, [("contradiction", "duration_in_periods")]),
        (
            {"percent_off": "10", "duration": "repeating", "duration_in_periods": 121},
            [("invalid_number", "duration_in_periods")],
        ),
        ({"percent_off": "10", "max_redemptions": 0}, [("invalid_number", "max_redemptions")]),
        ({"percent_off": "10", "priority": 256}, [("invalid_priority", "priority")]),
        ({"percent_off": "10", "valid_until": "2026-10-01"}, [("invalid_period", "valid_until")]),
        ({"percent_off": "10", "valid_until": "soon"}, [("invalid_time", "valid_until")]),
        ({"percent_off": "10", "automatic": True, "max_per_tenant": 1}, [("contradiction", "automatic")]),
        ({"percent_off": "10", "automatic": True, "valid_from": "2026-10-01"}, [("backdated", "valid_from")]),
        ({"percent_off": "10", "plans": ["a", 1]}, [("invalid_name", "plans[1]")]),
        ({"percent_off": "10", "plans": "a"}, [("invalid_type", "plans")]),
        ({"percent_off": "10", "colour": "red"}, [("unknown_field", "colour")]),
        (
            {"percent_off": "200", "duration": "x", "priority": -1},
            [("invalid_duration", "duration"), ("invalid_percent", "percent_off"), ("invalid_priority", "priority")],
        ),
    ],
)
def test_a_coupon_that_makes_no_sense_is_refused_with_every_path(
    document: dict[str, Any], faults: list[tuple[str, str]]
) -> None:
    with pytest.raises(InvalidInputError) as found:
        read_coupon("C", document, NOW)
    assert [(fault.code, fault.path) for fault in found.value.faults] == faults


@pytest.mark.parametrize("coupon_id", ["", "a b", "../x", "x" * 65])
def test_a_coupon_needs_a_plain_id(coupon_id: str) -> None:
    with pytest.raises(InvalidInputError) as found:
        read_coupon(coupon_id, {"percent_off": "10", "name": "N"}, NOW)
    assert [(fault.code, fault.path) for fault in found.value.faults] == [("invalid_coupon_id", "coupon_id")]


# PostgreSQL's own


@pytest.mark.integration
async def test_of_200_who_redeem_at_once_a_coupon_with_50_left_50_get_it(settings: Settings) -> None:
    async with open_scene(settings, max_size=20) as scene:
        await create(scene, max_redemptions=50)
        tenants = [f"{scene.tenant_id}-{number}" for number in range(200)]
        await scene.settle_in(*tenants)
        found = await asyncio.gather(*(redeem(scene, each) for each in tenants), return_exceptions=True)
        codes = [fault.code for each in found if isinstance(each, InvalidInputError) for fault in each.faults]
        assert codes == ["coupon_used_up"] * 150
        assert sum(isinstance(each, tuple) and each[1] for each in found) == 50
        async with scene.store() as store:
            offered = await store.newest_coupon(scene.coupon_id)
            assert offered is not None
            assert offered.redeemed == len(await store.redemptions(coupon_id=scene.coupon_id)) == 50


@pytest.mark.integration
async def test_of_20_tries_of_one_tenant_at_once_one_redeems(settings: Settings) -> None:
    async with open_scene(settings, max_size=20) as scene:
        await create(scene, duration="forever", max_per_tenant=1)
        found = await asyncio.gather(*(redeem(scene) for _ in range(20)))
        assert sum(is_new for _, is_new in found) == 1
        assert len({redemption.redemption_id for redemption, _ in found}) == 1


@pytest.mark.integration
async def test_what_billing_reads_of_a_subscriptions_coupons(settings: Settings) -> None:
    async with open_scene(settings) as scene:
        await create(scene, amount_off="10", currency="USD")
        redemption, _ = await redeem(scene)
        async with scene.store() as store:
            automatic, _ = await create_coupon(
                f"{scene.coupon_id}-auto",
                {"percent_off": "10", "automatic": True, "plans": ["coupon-pro"]},
                store=store,
                now=NOW,
            )
        assert scene.pool is not None
        async with scene.pool.connection() as connection:
            [subscribed] = await read_subscribed(connection, subscription_ids=[scene.subscription_id])
            found = subscribed.redemptions
        own = [each for each in found if each.coupon.coupon_id.startswith(scene.coupon_id)]
        assert redemption in own
        assert {each.coupon for each in own} == {redemption.coupon, automatic}
        # 100.00: 10 % off by itself, then 10.00
        line = LineAmount("base", "base", None, "coupon-pro", "fixed", Decimal("100.00"))
        applied = apply_coupons([line], own, month_of(NOW), "USD", cycle=MONTHLY)
        assert [str(each.amount) for each in applied] == ["-10.00", "-10.00"]


@pytest.mark.integration
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE coupons SET percent_off = 50 WHERE coupon_id = %s",
        "UPDATE coupons SET redeemed = 0 WHERE coupon_id = %s",
        "UPDATE coupons SET archived_at = NULL WHERE coupon_id = %s",
        "DELETE FROM coupons WHERE coupon_id = %s",
        "UPDATE coupon_redemptions SET starts_at = now() WHERE coupon_id = %s",
        "UPDATE coupon_redemptions SET removed_at = NULL WHERE coupon_id = %s",
        "DELETE FROM coupon_redemptions WHERE coupon_id = %s",
    ],
)
async def test_nobody_rewrites_what_was_offered_or_redeemed(settings: Settings, statement: str) -> None:
    async with open_scene(settings) as scene:
        await create(scene)
        await redeem(scene)
        await remove(scene)
        await archive(scene)
        with psycopg.connect(settings.postgres) as connection, pytest.raises(psycopg.errors.IntegrityError):
            connection.execute(statement.encode(), (scene.coupon_id,))
