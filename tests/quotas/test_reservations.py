"""Reservations on the real Valkey, single and cluster: never more than the ceiling, whatever happens in between."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.clock import SystemClock
from core.errors import InvalidInputError, NotFoundError, UnavailableError
from core.live_quota import EPOCH_KEY, FRESHNESS_KEY, hold_key, quota_key
from core.meters import Meter
from core.quantity import format_scaled, scale_quantity
from core.usage_event import event_identity
from quotas.adapters.redis_reservations import EXACT, RedisReservations
from quotas.domain.reservation import (
    OPEN_MAX,
    ExceedsHoldError,
    HoldRequest,
    OtherRequestError,
    QuotaExceededError,
    ReservationOverError,
    TooManyReservationsError,
)
from quotas.reserve_usage import Held, commit_reservation, hold_usage, release_reservation
from runtime.redis import connect_redis, mark_keys
from runtime.settings import Settings
from tests.quotas.memory_books import MemoryReservations
from tests.redis_cluster import Cluster, redis_cluster  # noqa: F401 - a fixture

pytestmark = pytest.mark.integration
MONTH = "2026-10"
TOKENS = Meter("tokens", "token", "llm", "sum", "n")
_numbers = itertools.count()


class Desk:
    """Reservations of one tenant, beside a store that it fills and wipes."""

    def __init__(self, redis: Any, salt: str) -> None:
        self.redis = redis
        self.tenant = f"{salt}-{next(_numbers)}"
        self.books = MemoryReservations()
        # No lane writes in these tests: the partitions' marks are put by hand.
        self.desk = RedisReservations(redis, self.books, partitions=1)
        self.clock = SystemClock()

    async def fill(self, used: str = "0", field: str = "q0:0") -> None:
        await self.redis.hset(quota_key(self.tenant, "tokens", MONTH), mapping={field: used, "a": "sum", "at": "1"})
        for key in mark_keys(self.redis, EPOCH_KEY):
            run = await self.redis.eval("return string.match(redis.call('INFO','server'), 'run_id:(%w+)')", 1, key)
            await self.redis.hset(key, mapping={"p0": f"{run}:t", "hours:p0": f"{run}:t"})

    async def wipe(self) -> None:
        """What FLUSHALL does, to what this test can see: other tests share the server."""
        names = [hold_key(self.tenant, part) for part in ("loaded", "awaited")]
        names += [hold_key(self.tenant, f"{part}:tokens") for part in ("held", "expiry", "taken")]
        names += [quota_key(self.tenant, "tokens", MONTH)]
        # In one command: no server forgets what is held and remembers that it was loaded.
        await self.redis.delete(*names)
        for name in (*mark_keys(self.redis, EPOCH_KEY), *mark_keys(self.redis, FRESHNESS_KEY)):
            await self.redis.delete(name)

    async def hold(self, amount: str, key: str, ceiling: str | None = "100", ttl: int = 60, **more: Any) -> Held:
        return await hold_usage(
            HoldRequest(self.tenant, "tokens", Decimal(amount), ttl, key, **more),
            meter=TOKENS,
            periods=(MONTH,),
            ceiling=None if ceiling is None else Decimal(ceiling),
            books=self.books,
            desk=self.desk,
            clock=self.clock,
        )

    async def commit(self, held: Held, actual: str, **more: Any) -> Any:
        given = {"tenant": self.tenant, "settle_seconds": 60, **more}
        return await commit_reservation(
            held.reservation.reservation_id, Decimal(actual), books=self.books, desk=self.desk,
            clock=self.clock, **given,
        )  # fmt: skip

    async def release(self, held: Held) -> Any:
        return await release_reservation(
            held.reservation.reservation_id, tenant=self.tenant, books=self.books, desk=self.desk
        )

    async def held(self) -> Decimal:
        return (await self.desk.look(self.tenant, "tokens", (MONTH,))).held


@pytest.fixture(params=["single", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "single":
        found: str = request.getfixturevalue("settings").redis
        return found
    return str(request.getfixturevalue("redis_cluster").url)


@pytest.fixture
async def desk(url: str) -> AsyncIterator[Desk]:
    redis = connect_redis(url, timeout_s=10, connect_timeout_s=3)
    made = Desk(redis, "cluster" if "cluster" in url else "single")
    await made.fill()
    yield made
    await made.wipe()
    await redis.aclose()


async def test_what_fits_is_held_and_what_does_not_is_refused_with_the_figures(desk: Desk) -> None:
    await desk.fill("40.5")
    held = await desk.hold("59.499999999999", "a")
    assert (held.decision.used, held.decision.held) == (Decimal("40.5"), Decimal("59.499999999999"))
    with pytest.raises(QuotaExceededError, match=r"0\.000000000002 token asked for, 0\.000000000001 left"):
        await desk.hold("0.000000000002", "b")
    await desk.hold("0.000000000001", "c")
    assert await desk.held() == Decimal("59.5")


async def test_two_hundred_callers_at_once_never_overshoot(desk: Desk) -> None:
    rng = random.Random(11)
    await desk.fill("37")
    amounts = [Decimal(rng.randint(1, 900)) / 100 for _ in range(200)]

    async def one(number: int, amount: Decimal) -> Decimal:
        try:
            await desk.hold(str(amount), f"k{number}", ceiling="250")
        except QuotaExceededError:
            return Decimal(0)
        return amount

    granted = await asyncio.gather(*(one(number, amount) for number, amount in enumerate(amounts)))
    assert sum(amounts) > 250 - 37 >= sum(granted)
    # Nobody was refused who would still fit: the smallest amount that was refused is more than what is left.
    refused = [amount for amount, got in zip(amounts, granted, strict=True) if not got]
    assert min(refused) > 250 - 37 - sum(granted)
    assert await desk.held() == sum(granted)


async def test_callers_that_commit_release_and_wipe_meanwhile_never_overshoot(desk: Desk) -> None:
    rng = random.Random(5)
    promised: dict[int, Decimal] = {}
    most = Decimal(0)

    async def one(number: int) -> None:
        nonlocal most
        amount = Decimal(rng.randint(1, 20))
        while True:
            try:
                held = await desk.hold(str(amount), f"w{number}")
            except UnavailableError:
                # It may have been written down and then counts until it ends: the same key asks for the same hold.
                await asyncio.sleep(0.01)
                continue
            except QuotaExceededError:
                return
            break
        promised[number] = amount
        most = max(most, sum(promised.values(), Decimal(0)))
        await asyncio.sleep(rng.random() * 0.05)
        if rng.random() < 0.5:
            with_less = amount - 1 if amount > 1 else amount
            while True:
                try:
                    await desk.commit(held, str(with_less))
                except UnavailableError:
                    await asyncio.sleep(0.01)
                    continue
                break
            promised[number] = with_less
        else:
            # Given up before it is released: from here on nobody counts on it.
            del promised[number]
            while True:
                try:
                    await desk.release(held)
                except UnavailableError:
                    await asyncio.sleep(0.01)
                    continue
                break

    async def wiper() -> None:
        for _ in range(6):
            await asyncio.sleep(0.03)
            await desk.wipe()
            await asyncio.sleep(0.01)
            await desk.fill()

    async def waves() -> None:
        for start in range(0, 200, 40):
            await asyncio.gather(*(one(number) for number in range(start, start + 40)))

    await asyncio.gather(waves(), wiper())
    await asyncio.gather(*(one(number) for number in range(200, 240)))  # now all of them find it filled
    assert 50 < most <= 100


async def test_the_same_key_is_the_same_hold_and_another_request_under_it_is_refused(desk: Desk) -> None:
    first = await desk.hold("60", "a")
    again = await desk.hold("60.0", "a")
    assert again.reservation.reservation_id == first.reservation.reservation_id
    assert await desk.held() == 60
    with pytest.raises(OtherRequestError):
        await desk.hold("61", "a")
    with pytest.raises(QuotaExceededError):
        await desk.hold("50", "b")
    await desk.release(first)
    with pytest.raises(ReservationOverError):
        await desk.hold("60", "a")
    # Nothing was promised under this key, so it may be asked again.
    await desk.hold("50", "b")


async def test_a_commit_gives_the_rest_back_and_counts_until_its_event_has_arrived(desk: Desk) -> None:
    held = await desk.hold("90", "a")
    await desk.commit(held, "30")
    assert await desk.held() == 30
    await desk.hold("70", "b")
    with pytest.raises(ExceedsHoldError):
        await desk.commit(held, "31")
    assert (await desk.commit(held, "30")).status == "committed"


async def test_an_event_that_arrives_takes_the_place_of_its_reservation_before_or_after_the_commit(desk: Desk) -> None:
    from streams.adapters.redis_quotas import RedisQuotas

    lane = RedisQuotas(desk.redis, 0)
    early, late = await desk.hold("30", "early"), await desk.hold("40", "late", source="jobs", event_id="job-7")
    await desk.commit(late, "40")
    await desk.fill("70")
    assert (await desk.desk.look(desk.tenant, "tokens", (MONTH,))).held == 70
    rsv = early.reservation.reservation_id
    arrived = {event_identity(desk.tenant, "meterbook:reservations", rsv), event_identity(desk.tenant, "jobs", "job-7")}
    taken = await lane.take_held([desk.tenant], arrived)
    assert set(taken) == {rsv, late.reservation.reservation_id}
    assert await desk.held() == 0
    # 70 are used now, and a commit that comes after its event adds nothing to them.
    assert (await desk.commit(early, "30")).status == "settled"
    assert await desk.held() == 0
    with pytest.raises(QuotaExceededError):
        await desk.hold("30.1", "more")
    await desk.hold("30", "rest")
    with pytest.raises(ReservationOverError):
        await desk.hold("30", "early")


async def test_a_hold_ends_by_the_servers_time_and_so_does_the_wait_for_an_event(desk: Desk) -> None:
    held = await desk.hold("100", "a", ttl=1)
    server_ms = held.decision.expires_at.timestamp() * 1_000
    with pytest.raises(QuotaExceededError):
        await desk.hold("1", "b")
    while (await desk.redis.eval("return redis.call('TIME')[1]", 1, hold_key(desk.tenant, "loaded"))) <= str(
        int(server_ms / 1_000)
    ):
        await asyncio.sleep(0.05)
    await desk.hold("100", "c")
    with pytest.raises(ReservationOverError):
        await desk.commit(held, "5")
    assert not await desk.redis.hexists(hold_key(desk.tenant, "awaited"), held.reservation.identity.hex())


async def test_while_totals_are_not_all_there_nothing_is_decided(desk: Desk) -> None:
    await desk.hold("10", "a")
    await desk.wipe()
    with pytest.raises(UnavailableError):
        await desk.hold("10", "b")
    with pytest.raises(UnavailableError):
        await desk.hold("10", "b")
    await desk.fill()
    assert (await desk.hold("10", "b")).decision.held == 20


async def test_after_a_wipe_what_was_held_committed_or_undecided_counts_again(desk: Desk) -> None:
    kept, committed, gone = await desk.hold("20", "a"), await desk.hold("50", "b"), await desk.hold("25", "c")
    await desk.commit(committed, "30")
    await desk.release(gone)
    await desk.wipe()
    await desk.fill()
    assert (await desk.hold("1", "d")).decision.held == 51
    # What was granted before the wipe is still granted to who asks again.
    assert (await desk.hold("20", "a")).decision.held == 51
    await desk.commit(kept, "20")
    with pytest.raises(QuotaExceededError):
        await desk.hold("50", "e")


async def test_a_wipe_while_reservations_are_brought_back_leaves_them_not_loaded(desk: Desk) -> None:
    await desk.hold("80", "a")
    await desk.wipe()
    await desk.fill()
    wipes = 1
    read = desk.books.open_of

    async def wiped_in_between(tenant: str) -> Any:
        nonlocal wipes
        rows = await read(tenant)
        if wipes:
            wipes -= 1
            await desk.wipe()
        return rows

    desk.books.open_of = wiped_in_between  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        await desk.hold("5", "b")
    assert (await desk.redis.get(hold_key(desk.tenant, "loaded"))).startswith("loading:")
    await desk.fill()
    assert (await desk.hold("5", "b")).decision.held == 85


async def test_marks_of_an_earlier_run_of_the_server_count_for_nothing(desk: Desk) -> None:
    await desk.hold("5", "a")
    await desk.redis.set(hold_key(desk.tenant, "loaded"), "0" * 40)
    for key in mark_keys(desk.redis, EPOCH_KEY):
        await desk.redis.hset(key, "p0", "0" * 40 + ":t")
    with pytest.raises(UnavailableError):
        await desk.hold("5", "b")


async def test_there_are_only_so_many_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quotas.adapters.redis_reservations.OPEN_MAX", 3)
    for number in range(3):
        await desk.hold("1", str(number))
    with pytest.raises(TooManyReservationsError):
        await desk.hold("1", "one more")
    assert OPEN_MAX == 1_000


async def test_without_a_ceiling_everything_is_held_and_counted(desk: Desk) -> None:
    assert (await desk.hold("1000000", "a", ceiling=None)).decision.held == 1_000_000


async def test_bad_requests_and_other_tenants_reservations_are_refused(desk: Desk) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await desk.hold("-1", "", ttl=0, source="a\nb")
    codes = [fault.code for fault in refused.value.faults]
    assert codes == ["invalid_amount", "invalid_ttl", "invalid_key", "invalid_event"]
    held = await desk.hold("1", "a")
    with pytest.raises(NotFoundError):
        await desk.commit(held, "1", tenant="someone-else")
    with pytest.raises(InvalidInputError):
        await desk.commit(held, "1", settle_seconds=0)
    assert (await desk.commit(held, "0")).status == "released"
    with pytest.raises(ReservationOverError):
        await desk.commit(held, "1")


async def test_reservations_in_hand_are_not_lost_when_the_clock_here_is_behind(desk: Desk) -> None:
    held = await desk.hold("10", "a", ttl=60)
    written = await desk.books.find(held.reservation.reservation_id)
    assert written.expires_at >= held.decision.expires_at + timedelta(seconds=20)


QUANTITIES = st.integers(-(10**38), 10**38).map(format_scaled)


@pytest.fixture(scope="module")
def calculator(settings: Settings) -> Any:
    import redis

    text = EXACT + (
        "local sum = {0}\n"
        "for index = 1, #ARGV, 2 do add(sum, ARGV[index], tonumber(ARGV[index + 1])) end\n"
        "local negative = is_negative(sum)\n"
        "return {scaled_text(sum), negative and 1 or 0}"
    )
    with redis.Redis.from_url(settings.redis, decode_responses=True) as client:
        yield client.register_script(text)


@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(terms=st.lists(st.tuples(QUANTITIES, st.sampled_from([1, -1])), max_size=30))
def test_sums_in_lua_are_exact(calculator: Any, terms: list[tuple[str, int]]) -> None:
    text, negative = calculator(args=[word for term in terms for word in term])
    total = sum(int(Decimal(value).scaleb(12)) * sign for value, sign in terms)
    assert (int(text), bool(negative)) == (total, total < 0)
    assert str(int(text)) == text


def test_the_widest_quantity_survives_the_way_into_lua(calculator: Any) -> None:
    widest = format_scaled(10**27 - 1)
    assert scale_quantity(widest) == 10**27 - 1
    text, _ = calculator(args=[word for _ in range(1_000) for word in (widest, 1)])
    assert int(text) == 1_000 * (10**27 - 1)
