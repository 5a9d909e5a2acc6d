"""The quota agent's lane: Redis equal to the journal whatever is wiped, crossings announced however often it dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from core.clock import ManualClock
from core.journal import FORMAT, JournalEntry, PeriodRow, decode_entry, encode_entry
from core.messages import QuotaCrossed
from core.quantity import UNIT
from streams import quota_lane
from streams.domain.quota_totals import Limits, QuotaLimit, QuotaTotals
from streams.quota_lane import QuotaLane
from tests.streams.memory_quotas import MemoryQuotas, MemoryStore

OCTOBER = "2026-10"
LIMITS: Limits = {("acme", "tokens"): QuotaLimit(Decimal(1_000), "token", hard=True)}


class Record(NamedTuple):
    offset: int
    value: bytes


class Desk:
    """A lane and what surrounds it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.journal: list[Record] = []
        self.committed: list[int] = []
        self.announced: list[QuotaCrossed] = []
        self.limits: Limits = LIMITS
        self.quotas: Any = MemoryQuotas(self.store, 0)

    def lane(self) -> QuotaLane:
        return QuotaLane(
            0,
            QuotaTotals((80, 100)),
            self.quotas,
            self,
            history=self._history,
            limits=self._limits,
            commit=self._commit,
            clock=ManualClock(datetime(2026, 10, 31, 7, 30, tzinfo=UTC)),
        )

    def write(self, quantity: int, tenant: str = "acme", period: str = OCTOBER) -> Record:
        """Append to the journal that a tenant has used `quantity` of tokens by now."""
        rows = [PeriodRow(tenant, "tokens", period, 0, str(quantity * UNIT), 1)]
        entry = JournalEntry(FORMAT, -1, 0, 0, "w", 1, 1_000 + len(self.journal), 1, 0, 0, b"", [], rows, [], {})
        self.journal.append(Record(len(self.journal), encode_entry(entry)))
        return self.journal[-1]

    async def used(self, tenant: str = "acme") -> Decimal:
        return await MemoryQuotas(self.store, 0).used(tenant, "tokens", OCTOBER)

    async def announce(self, crossings: list[QuotaCrossed]) -> None:
        self.announced += crossings

    async def _history(self) -> AsyncIterator[tuple[int, JournalEntry]]:
        for record in list(self.journal):
            yield record.offset, decode_entry(record.value)

    async def _limits(self) -> Limits:
        return self.limits

    async def _commit(self, offset: int) -> None:
        self.committed.append(offset)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture(autouse=True)
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_lane, "_WATCH_SECONDS", 0.001)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await holds():
            await asyncio.sleep(0.002)


async def test_it_fills_the_store_from_the_journal_and_goes_on(desk: Desk) -> None:
    desk.write(100)
    desk.write(250)
    desk.write(40, "globex")
    lane = desk.lane()
    await lane.open()
    assert (await desk.used(), await desk.used("globex")) == (250, 40)
    await lane.handle([desk.write(300), desk.write(310)])
    assert await desk.used() == 310
    assert desk.committed == [5]
    await lane.close()


async def test_a_crossing_is_announced_with_what_was_used_and_when(desk: Desk) -> None:
    lane = desk.lane()
    await lane.open()
    await lane.handle([desk.write(799)])
    assert desk.announced == []
    await lane.handle([desk.write(850)])
    await lane.handle([desk.write(860)])
    [message] = desk.announced
    assert message == QuotaCrossed(
        tenant_id="acme",
        meter="tokens",
        unit="token",
        period=OCTOBER,
        percent=80,
        used="850",
        limit="1000",
        crossed_at="2026-10-31T07:30:00Z",
    )
    await lane.close()


async def test_an_offset_is_committed_only_after_its_crossings_are_announced(desk: Desk) -> None:
    order: list[str] = []

    async def announce(crossings: list[QuotaCrossed]) -> None:
        order.append("announced")

    async def commit(offset: int) -> None:
        order.append("committed")

    desk.announce, desk._commit = announce, commit  # type: ignore[method-assign]
    lane = desk.lane()
    await lane.open()
    await lane.handle([desk.write(2_000)])
    assert order == ["announced", "committed"]
    await lane.close()


async def test_after_a_crash_the_same_crossing_has_the_same_alert_id(desk: Desk) -> None:
    first = desk.lane()
    await first.open()
    await first.handle([desk.write(900)])
    await first.close()
    second = desk.lane()
    await second.open()
    await second.handle([desk.journal[-1]])
    await second.close()
    assert len(desk.announced) == 2
    assert len({message.alert_id for message in desk.announced}) == 1


async def test_a_crossing_of_last_month_that_was_not_announced_before_the_crash_is_announced_after_it(
    desk: Desk,
) -> None:
    record = desk.write(1_000)
    desk.write(5, period="2026-11")
    lane = desk.lane()
    await lane.open()
    assert desk.announced == []
    await lane.handle([record])
    assert [(message.period, message.percent) for message in desk.announced] == [(OCTOBER, 80), (OCTOBER, 100)]
    await lane.close()


async def test_a_raised_limit_is_noticed_without_new_usage(desk: Desk) -> None:
    lane = desk.lane()
    await lane.open()
    await lane.handle([desk.write(1_000)])
    desk.limits = {("acme", "tokens"): QuotaLimit(Decimal(1_250), "token", hard=True)}

    async def told() -> bool:
        return ("1250", 80) in {(message.limit, message.percent) for message in desk.announced}

    await until(told)
    await lane.close()
    assert len(desk.announced) == len({message.alert_id for message in desk.announced}) == 3


async def test_a_wiped_store_heals_without_new_usage(desk: Desk) -> None:
    desk.write(250)
    lane = desk.lane()
    await lane.open()
    desk.store.wipe()

    async def healed() -> bool:
        return await desk.used() == 250 and 0 in desk.store.filled

    await until(healed)
    await lane.close()


async def test_a_store_that_came_back_from_an_older_save_heals(desk: Desk) -> None:
    lane = desk.lane()
    await lane.open()
    await lane.handle([desk.write(100)])
    save = desk.store.save()
    await lane.handle([desk.write(200)])
    desk.store.go_back_to(save)

    async def healed() -> bool:
        return await desk.used() == 200

    await until(healed)
    await lane.close()


async def test_a_store_wiped_in_the_middle_of_filling_is_filled_again(desk: Desk) -> None:
    wipes = 3

    class Wiped(MemoryQuotas):
        async def write(self, totals: Any) -> None:
            nonlocal wipes
            await super().write(totals)
            if wipes:
                wipes -= 1
                desk.store.wipe()

    desk.quotas = Wiped(desk.store, 0)
    desk.write(250)
    lane = desk.lane()
    await lane.open()
    assert wipes == 0
    assert await desk.used() == 250
    assert await desk.quotas.has_all(0)
    await lane.close()


async def test_an_outage_of_the_store_is_waited_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "sleep", _instantly(asyncio.sleep))
    failures = 5

    class Down(MemoryQuotas):
        async def has_all(self, journal_offset: int) -> bool:
            nonlocal failures
            if failures:
                failures -= 1
                raise ConnectionRefusedError
            return await super().has_all(journal_offset)

    desk.quotas = Down(desk.store, 0)
    lane = desk.lane()
    await lane.open()
    await lane.handle([desk.write(70)])
    assert await desk.used() == 70
    assert desk.committed == [1]
    await lane.close()


async def test_records_read_again_change_nothing(desk: Desk) -> None:
    lane = desk.lane()
    await lane.open()
    await lane.handle([desk.write(100), desk.write(200)])
    progress = dict(desk.store.progress)
    await lane.handle(desk.journal[:1])
    assert await desk.used() == 200
    assert desk.store.progress == progress
    await lane.close()


def _instantly(sleep: Callable[[float], Awaitable[None]]) -> Callable[[float], Awaitable[None]]:
    async def instantly(seconds: float) -> None:
        await sleep(0)

    return instantly
