"""The quota agent's lane: Redis equal to the journal whatever is wiped, crossings announced however often it dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from core.clock import ManualClock
from core.journal import FORMAT, CorrectionRow, JournalEntry, PeriodRow, encode_entry
from core.messages import QuotaCrossed
from core.quantity import UNIT
from core.usage_event import event_identity
from streams import quota_lane
from streams.adapters.quota_book import QuotaBook
from streams.domain.quota_totals import PeriodKey, QuotaLimit, QuotaRules, decode_state
from streams.quota_lane import QuotaLane
from tests.streams.memory_quotas import MemoryQuotas, MemoryStore

OCTOBER = "2026-10"
RULES = QuotaRules({("acme", "tokens"): QuotaLimit(Decimal(1_000), "token", hard=True)})


class Record(NamedTuple):
    offset: int
    value: bytes


class Desk:
    """A lane and what surrounds it."""

    def __init__(self, folder: Path) -> None:
        self.book = folder / "quota-0.sqlite"
        self.store = MemoryStore()
        self.journal: list[Record] = []
        self.first = 0
        self.commits: list[int] = []
        self.announced: list[QuotaCrossed] = []
        self.rules = RULES
        self.quotas: Any = MemoryQuotas(self.store, 0)
        self.archive: dict[PeriodKey, bytes] = {}
        self.settled: list[str] = []
        self.reads: list[int] = []

    def lane(self) -> QuotaLane:
        return QuotaLane(
            0,
            self.quotas,
            self,
            open_book=lambda: QuotaBook.open(self.book, wait_s=0.2),
            history=self,
            archive=self,
            rules=self._rules,
            commit=self._commit,
            settle=self._settle,
            clock=ManualClock(datetime(2026, 10, 31, 7, 30, tzinfo=UTC)),
        )

    def write(
        self,
        quantity: int,
        tenant: str = "acme",
        period: str = OCTOBER,
        *,
        corrects: bool = False,
        identity: bytes = b"",
    ) -> Record:
        """Append to the journal that a tenant has used `quantity` of tokens by now."""
        rows = [PeriodRow(tenant, "tokens", period, 0, str(quantity * UNIT), 1)]
        corrections = [CorrectionRow(tenant, "void", "s", "v", "s", "e", "", 0, 0, 1)] if corrects else []
        entry = JournalEntry(
            FORMAT, -1, 0, 0, "w", 1, 1_000 + len(self.journal), 1, 0, 0, identity, b"", b"", [], rows, [], corrections,
            [], [], {}, {"tokens": "sum"}, {}, 0,
        )  # fmt: skip
        self.journal.append(Record(len(self.journal), encode_entry(entry)))
        return self.journal[-1]

    async def used(self, tenant: str = "acme", period: str = OCTOBER) -> Decimal:
        return await MemoryQuotas(self.store, 0).used(tenant, "tokens", period)

    async def announce(self, crossings: list[QuotaCrossed]) -> None:
        self.announced += crossings

    async def bounds(self) -> tuple[int, int, int]:
        end = len(self.journal)
        return self.first, end, max(self.commits[-1] if self.commits else end, self.first)

    async def record_at(self, offset: int) -> bytes | None:
        return self.journal[offset].value

    async def read(self, start: int, end: int) -> AsyncIterator[tuple[int, bytes]]:
        self.reads.append(start)
        for record in self.journal[max(start, self.first) : end]:
            yield record.offset, record.value

    async def save(self, rows: Sequence[tuple[PeriodKey, bytes]]) -> bool:
        self.archive |= dict(rows)
        return True

    async def load(self, before_version: int) -> list[tuple[PeriodKey, bytes]]:
        return [
            (key, body)
            for key, body in self.archive.items()
            if max(total.version for total in decode_state(key, body).segments.values()) < before_version
        ]

    async def _rules(self) -> QuotaRules:
        return self.rules

    async def _commit(self, offset: int) -> None:
        self.commits.append(offset)

    async def _settle(self, reservations: Sequence[str]) -> None:
        self.settled += reservations


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture(autouse=True)
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_lane, "_WATCH_SECONDS", 0.001)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what must come; a deadline that passes fails the test."""
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
    assert desk.commits == [5]
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
        value="80",
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


class KilledError(Exception):
    """The process ends here."""


async def kill(lane: QuotaLane) -> None:
    """End a lane without putting anything away."""
    lane._checkpoint = lambda: None  # type: ignore[method-assign]
    await lane.close()


async def test_after_a_crash_the_same_crossing_has_the_same_alert_id(desk: Desk) -> None:
    first = desk.lane()
    await first.open()

    async def killed(offset: int) -> None:
        raise KilledError

    first._commit = killed
    with pytest.raises(KilledError):
        await first.handle([desk.write(900)])
    await kill(first)
    desk.commits = [0]
    second = desk.lane()
    await second.open()
    await second.handle([desk.journal[-1]])
    await second.close()
    assert len(desk.announced) == 2
    assert len({message.alert_id for message in desk.announced}) == 1


async def test_a_restart_in_order_announces_nothing_again_and_reads_only_what_is_new(desk: Desk) -> None:
    first = desk.lane()
    await first.open()
    await first.handle([desk.write(900)])
    await first.handle([desk.write(950)])
    await first.close()
    second = desk.lane()
    await second.open()
    assert desk.reads[-1] == 2
    await second.handle([desk.write(960)])
    await second.close()
    assert len(desk.announced) == 1
    assert await desk.used() == 960


async def test_a_crossing_that_a_correction_undid_while_nobody_ran_is_announced_and_the_next_one_is_another(
    desk: Desk,
) -> None:
    first = desk.lane()
    await first.open()
    await first.handle([desk.write(100)])
    await first.close()
    waiting = [desk.write(850), desk.write(700, corrects=True), desk.write(820)]
    second = desk.lane()
    await second.open()
    assert desk.announced == []
    await second.handle(waiting)
    await second.close()
    assert [(message.used, message.arming) for message in desk.announced] == [("850", 0), ("820", 1)]
    assert len({message.alert_id for message in desk.announced}) == 2


async def test_without_its_book_a_lane_names_crossings_as_before(desk: Desk) -> None:
    lane = desk.lane()
    await lane.open()
    await lane.handle([desk.write(850)])
    await lane.handle([desk.write(700, corrects=True), desk.write(900)])
    await lane.close()
    before = {message.alert_id for message in desk.announced}
    desk.book.unlink()
    again = desk.lane()
    await again.open()
    await again.handle([desk.write(910)])
    await again.close()
    assert {message.alert_id for message in desk.announced} == before
    assert len(before) == 2


async def test_a_book_of_another_journal_is_thrown_away(desk: Desk) -> None:
    first = desk.lane()
    await first.open()
    await first.handle([desk.write(500), desk.write(600)])
    await first.close()
    desk.journal, desk.commits, desk.store = [], [], MemoryStore()
    desk.quotas = MemoryQuotas(desk.store, 0)
    desk.write(1)
    desk.write(2)
    second = desk.lane()
    await second.open()
    assert (desk.reads[-1], await desk.used()) == (0, 2)
    await second.close()


async def test_months_that_the_journal_forgot_come_from_the_archive(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota_lane, "_ARCHIVE_SECONDS", 0.0)
    monkeypatch.setattr(quota_lane, "_CHECKPOINT_SECONDS", 0.0)
    lane = desk.lane()
    await lane.open()
    await lane.handle([desk.write(70, period="2026-01"), desk.write(250)])

    async def archived() -> bool:
        return len(desk.archive) == 2

    await until(archived)
    await lane.close()
    desk.book.unlink()
    desk.store = MemoryStore()
    desk.quotas, desk.first = MemoryQuotas(desk.store, 0), 1
    again = desk.lane()
    await again.open()
    assert (await desk.used(period="2026-01"), await desk.used()) == (70, 250)
    await again.close()


async def test_a_reserved_event_that_arrives_ends_its_reservation(desk: Desk) -> None:
    lane = desk.lane()
    await lane.open()
    identity = event_identity("acme", "jobs", "rsv_1")
    desk.store.held = {"rsv_1": ("acme", identity), "rsv_2": ("acme", event_identity("acme", "jobs", "rsv_2"))}
    await lane.handle([desk.write(5, identity=event_identity("acme", "jobs", "other") + identity)])
    await lane.close()
    assert (desk.settled, list(desk.store.held)) == (["rsv_1"], ["rsv_2"])


async def test_hours_are_filled_behind_the_rest_and_marked_apart(desk: Desk) -> None:
    desk.write(250)
    desk.write(40, period="2026-10-31T07")
    lane = desk.lane()
    await lane.open()

    async def filled() -> bool:
        return 0 in desk.store.hours_filled and await desk.used(period="2026-10-31T07") == 40

    await until(filled)
    desk.store.wipe()
    await until(filled)
    assert await filled()
    await lane.close()


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
    desk.rules = QuotaRules({("acme", "tokens"): QuotaLimit(Decimal(1_250), "token", hard=True)})

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
    assert await healed()
    await lane.close()


async def test_a_wiped_store_repeats_no_alert(desk: Desk) -> None:
    lane = desk.lane()
    await lane.open()
    await lane.handle([desk.write(1_000)])
    assert len(desk.announced) == 2
    for quantity in (1_001, 1_002):
        desk.store.wipe()
        await lane.handle([desk.write(quantity)])
        assert await desk.used() == quantity
    await lane.close()
    assert len(desk.announced) == 2


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
    assert await healed()
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
    assert desk.commits == [1]
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
