"""What the quota agent does with one journal partition: totals to Redis, crossings to `quota.crossed`.

The lane's state is a function of the journal up to the group's committed offset, kept in a local book; from there on
records are handled one by one, so that every crossing is seen by whoever handles it, and named alike by all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

import redis.exceptions
import structlog
from prometheus_client import Counter, Gauge

from core.clock import Clock
from core.event_time import to_microseconds
from core.journal import JournalEntry, decode_entry, must_follow
from core.live_quota import HOURS_KEPT
from core.messages import QuotaCrossed
from core.period import format_instant
from core.usage_event import IDENTITY_BYTES
from runtime.patience import until_done
from streams.adapters.lanes import end_process_if_failed
from streams.adapters.quota_book import QuotaBook, digest_of
from streams.domain.quota_totals import (
    HOUR_LENGTH,
    Crossing,
    PeriodKey,
    QuotaRules,
    QuotaTotals,
    Total,
    decode_state,
)

log = structlog.get_logger()
QUOTA_FRESHNESS = Gauge("meterbook_quota_freshness_seconds", "Age of the newest event visible in Redis", ["partition"])
CROSSED = Counter("meterbook_quota_crossings_total", "Quota thresholds announced", ["percent"])
HEALED = Counter("meterbook_quota_refills_total", "Times a wiped Redis was filled again")
REDIS_DOWN = (redis.exceptions.RedisError, OSError)
_WATCH_SECONDS = 1.0
_CHECKPOINT_SECONDS = 2.0
_ARCHIVE_SECONDS = 60.0
_ARCHIVED_AT_ONCE = 5_000
_FILLED_AT_ONCE = 5_000


class Announcements(Protocol):
    """Port: where crossings are announced; returns when they are safe."""

    async def announce(self, crossings: list[QuotaCrossed]) -> None:
        """Announce; the same crossing may come again and must be told apart by its alert id."""
        ...


class LiveStore(Protocol):
    """Port: where live quotas are read; can be wiped at any moment."""

    async def write(self, totals: Iterable[Total]) -> None:
        """Write totals, each only if newer."""
        ...

    async def take_held(self, tenants: Collection[str], identities: Collection[bytes]) -> list[str]:
        """Drop reservations whose events are among `identities`; returns their ids."""
        ...

    async def has_all(self, journal_offset: int) -> bool:
        """Say whether all that was written up to an offset is still there."""
        ...

    async def begin_filling(self) -> str:
        """Take the marks away; returns the filling's token."""
        ...

    async def mark_filled(self, token: str, *, hours: bool = False) -> bool:
        """Mark as filled, unless wiped since."""
        ...

    async def mark_progress(self, journal_offset: int, received_ms: int) -> None:
        """Tell how far the totals reach."""
        ...


class History(Protocol):
    """Port: the journal before what is handled."""

    async def bounds(self) -> tuple[int, int, int]:
        """Return first offset, end, and up to where this group has committed."""
        ...

    async def record_at(self, offset: int) -> bytes | None:
        """Return one record."""
        ...

    def read(self, start: int, end: int) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (offset, value) in [start, end)."""
        ...


class Archive(Protocol):
    """Port: totals of periods that outlive the journal."""

    async def save(self, rows: Sequence[tuple[PeriodKey, bytes]]) -> bool:
        """Keep rows; False if that must wait."""
        ...

    async def load(self, before_version: int) -> list[tuple[PeriodKey, bytes]]:
        """Return rows last changed before a journal offset."""
        ...


class QuotaLane:
    """Keeps Redis equal to the journal for one source partition."""

    def __init__(
        self,
        partition: int,
        store: LiveStore,
        announcements: Announcements,
        *,
        open_book: Callable[[], Awaitable[QuotaBook]],
        history: History,
        archive: Archive,
        rules: Callable[[], Awaitable[QuotaRules]],
        commit: Callable[[int], Awaitable[None]],
        settle: Callable[[Sequence[str]], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._partition, self._store, self._announcements = partition, store, announcements
        self._open_book, self._history, self._archive = open_book, history, archive
        self._rules, self._commit, self._settle, self._clock = rules, commit, settle, clock
        self._version, self._received_ms, self._digest = -1, 0, b""
        self._read_up_to = 0
        # Up to where Redis was told that it is filled; less than that in Redis means that it lost writes.
        self._marked = -1
        self._book_version = -1
        self._checkpointed_at = self._archived_at = time.monotonic()
        self._announced_since: list[Crossing] = []
        self._seen_rules: QuotaRules | None = None
        self._forgot_hours_before = ""
        self._turn = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self._hours: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Bring the book up to the committed offset, fill Redis, and begin to watch for wipes and changed limits."""
        began = time.monotonic()
        self._book = await self._open_book()
        first, end, committed = await self._history.bounds()
        start = await self._check_book(first, end)
        self._totals = QuotaTotals(self._book, self._book.announced())
        entries = 0
        async for offset, raw in self._history.read(start, committed):
            self._apply(offset, raw)
            entries += 1
            if entries % 1_000 == 0:
                self._checkpoint()
        self._checkpoint()
        read_seconds = time.monotonic() - began
        await until_done("redis", self._fill, transient=REDIS_DOWN)
        await self._tell(self._totals.crossings(await self._rules(), self._now_us()))
        log.info(
            "quotas.opened",
            partition=self._partition,
            entries=entries,
            read_seconds=round(read_seconds, 3),
            seconds=round(time.monotonic() - began, 3),
        )
        self._watch = self._start(self._keep_filled(), "watch")

    async def handle(self, records: list[Any]) -> None:
        """Apply journal records, write what changed, announce crossings, then commit the journal offset."""
        async with self._turn:
            rules, now_us = await self._rules(), self._now_us()
            changed: dict[tuple[PeriodKey, int], Total] = {}
            crossings: list[Crossing] = []
            identities: set[bytes] = set()
            for record in records:
                entry, totals = self._apply(record.offset, record.value)
                for total in totals:
                    changed[(total.tenant, total.meter, total.period), total.segment] = total
                # Also of records read again: their crossings may not have been announced when the process ended.
                touched = [(r.tenant, r.meter, r.period) for r in entry.periods if len(r.period) != HOUR_LENGTH]
                crossings += self._totals.crossings(rules, now_us, touched)
                identities.update(_split(entry.identities))
            await until_done("redis", lambda: self._write(list(changed.values()), identities), transient=REDIS_DOWN)
            await self._tell(crossings)
            if time.monotonic() - self._checkpointed_at >= _CHECKPOINT_SECONDS:
                self._checkpoint()
        await self._commit(records[-1].offset + 1)
        QUOTA_FRESHNESS.labels(self._partition).set(max(0.0, self._now_us() / 1e6 - self._received_ms / 1e3))

    async def close(self) -> None:
        """Stop watching and give the book up."""
        for task in (self._watch, self._hours):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        if hasattr(self, "_book"):
            self._checkpoint()
            self._book.close()

    def _start(self, work: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=f"{name}-{self._partition}")
        task.add_done_callback(end_process_if_failed)
        return task

    async def _check_book(self, first: int, end: int) -> int:
        """Return from which journal offset to go on; empties a book that is not of this journal."""
        progress = self._book.progress
        if progress is not None:
            offset, self._received_ms, self._digest = progress
            raw = await self._history.record_at(offset) if first <= offset < end else None
            if raw is not None and digest_of(raw) == self._digest:
                self._version = self._book_version = offset
                return offset + 1
            log.warning("quota_book.discarded", partition=self._partition, reaches=offset, first=first, end=end)
            self._book.clear()
        self._received_ms, self._digest = 0, b""
        archived = await self._archive.load(first) if first > 0 else []
        self._book.put({key: decode_state(key, body) for key, body in archived})
        return first

    def _apply(self, offset: int, raw: bytes) -> tuple[JournalEntry, list[Total]]:
        entry = decode_entry(raw)
        self._read_up_to = must_follow(entry, self._read_up_to)
        totals = self._totals.apply(offset, entry)
        if offset > self._version:
            self._version, self._received_ms, self._digest = offset, entry.received_ms, digest_of(raw)
        return entry, totals

    def _checkpoint(self) -> None:
        """Bring the book up to the newest record; cheap if there is nothing new."""
        self._checkpointed_at = time.monotonic()
        if self._version == self._book_version and not self._announced_since:
            return
        self._book.put(self._totals.take_changed())
        self._book.add_announced([crossing.mark for crossing in self._announced_since])
        oldest = datetime.fromtimestamp(self._received_ms / 1_000, UTC) - timedelta(hours=HOURS_KEPT + 1)
        if self._received_ms and (hour := oldest.strftime("%Y-%m-%dT%H")) != self._forgot_hours_before:
            self._book.forget_hours_before(hour)
            self._forgot_hours_before = hour
        if self._version >= 0:
            self._book.commit(self._version, self._received_ms, self._digest)
        self._book_version, self._announced_since = self._version, []

    async def _write(self, changed: list[Total], identities: Collection[bytes]) -> None:
        if await self._store.has_all(self._marked):
            await self._store.write(changed)
            await self._mark_progress()
        else:
            await self._fill()
            HEALED.inc()
        taken = await self._store.take_held({total.tenant for total in changed}, identities)
        if taken:
            await self._settle(taken)

    async def _fill(self) -> None:
        if self._hours is not None:
            self._hours.cancel()
        # What is only in memory must be found by the walk through the book.
        self._checkpoint()
        filled, count, token = False, 0, ""
        while not filled:
            token = await self._store.begin_filling()
            count = await self._write_all(self._totals.all_totals(hours=False))
            await self._mark_progress()
            # Last, so that a crash in between leaves it marked as wiped; refused if it was wiped in between.
            filled = await self._store.mark_filled(token)
        log.info("quotas.filled", partition=self._partition, totals=count)
        self._hours = self._start(self._fill_hours(token), "hours")

    async def _fill_hours(self, token: str) -> None:
        """Fill the hours behind the rest: there are many, and only rolling windows wait for them."""

        async def fill() -> None:
            count = await self._write_all(self._totals.all_totals(hours=True))
            await self._store.mark_filled(token, hours=True)
            log.info("quotas.hours_filled", partition=self._partition, totals=count)

        await until_done("redis", fill, transient=REDIS_DOWN)

    async def _write_all(self, totals: Iterable[Total]) -> int:
        page: list[Total] = []
        count = 0
        for total in totals:
            page.append(total)
            count += 1
            if len(page) >= _FILLED_AT_ONCE:
                await self._store.write(page)
                page = []
        await self._store.write(page)
        return count

    async def _mark_progress(self) -> None:
        await self._store.mark_progress(self._version, self._received_ms)
        self._marked = self._version

    async def _keep_filled(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                async with self._turn:
                    if not await self._store.has_all(self._marked):
                        await self._fill()
                        HEALED.inc()
            except REDIS_DOWN as error:
                log.warning("quotas.redis_unreachable", error=repr(error)[:200])
            async with self._turn:
                rules = await self._rules()
                # A total of a meter by time grows by itself; all others only now that the rules are others.
                among = self._totals.moves_by_itself() if rules is self._seen_rules else None
                self._seen_rules = rules
                await self._tell(self._totals.crossings(rules, self._now_us(), among))
                if time.monotonic() - self._checkpointed_at >= _CHECKPOINT_SECONDS:
                    self._checkpoint()
            await self._archive_some()

    async def _archive_some(self) -> None:
        if time.monotonic() - self._archived_at < _ARCHIVE_SECONDS:
            return
        while rows := self._book.to_archive(_ARCHIVED_AT_ONCE):
            if not await self._archive.save(rows):
                break
            self._book.mark_archived(rows)
        self._archived_at = time.monotonic()

    async def _tell(self, crossings: list[Crossing]) -> None:
        if not crossings:
            return
        now = format_instant(self._clock.now())
        await self._announcements.announce([message_of(crossing, now) for crossing in crossings])
        self._announced_since += crossings
        for crossing in crossings:
            CROSSED.labels(_plain(crossing.threshold.value)).inc()
            log.info(
                "quota.crossed",
                tenant=crossing.tenant,
                meter=crossing.meter,
                period=crossing.period,
                threshold=_plain(crossing.threshold.value),
                kind=crossing.threshold.kind,
                arming=crossing.arming,
            )

    def _now_us(self) -> int:
        return to_microseconds(self._clock.now())


def message_of(crossing: Crossing, now: str) -> QuotaCrossed:
    """Return the message that tells of a crossing."""
    value = crossing.threshold.value
    is_whole_percent = crossing.threshold.kind == "percent" and value == int(value)
    return QuotaCrossed(
        tenant_id=crossing.tenant,
        meter=crossing.meter,
        unit=crossing.unit,
        period=crossing.period,
        percent=int(value) if is_whole_percent else 0,
        used=_plain(crossing.used),
        limit="" if crossing.limit is None else _plain(crossing.limit),
        crossed_at=now,
        kind=crossing.threshold.kind,
        value=_plain(value),
        arming=crossing.arming,
    )


def _split(identities: bytes) -> Iterable[bytes]:
    return (identities[at : at + IDENTITY_BYTES] for at in range(0, len(identities), IDENTITY_BYTES))


def _plain(quantity: Decimal) -> str:
    return f"{quantity.normalize():f}"
