"""What the quota agent does with one journal partition: totals to Redis, crossings to `quota.crossed`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any, Protocol

import redis.exceptions
import structlog
from prometheus_client import Counter, Gauge

from core.clock import Clock
from core.journal import JournalEntry, decode_entry
from core.messages import QuotaCrossed
from core.period import format_instant
from runtime.patience import until_done
from streams.adapters.lanes import end_process_if_failed
from streams.adapters.redis_quotas import RedisQuotas
from streams.domain.quota_totals import Crossing, Limits, QuotaTotals

log = structlog.get_logger()
QUOTA_FRESHNESS = Gauge("meterbook_quota_freshness_seconds", "Age of the newest event visible in Redis", ["partition"])
CROSSED = Counter("meterbook_quota_crossings_total", "Quota thresholds announced", ["percent"])
HEALED = Counter("meterbook_quota_refills_total", "Times a wiped Redis was filled again")
REDIS_DOWN = (redis.exceptions.RedisError, OSError)
_WATCH_SECONDS = 1.0


class Announcements(Protocol):
    """Port: where crossings are announced; returns when they are safe."""

    async def announce(self, crossings: list[QuotaCrossed]) -> None:
        """Announce; the same crossing may come again and must be told apart by its alert id."""
        ...


class QuotaLane:
    """Keeps Redis equal to the journal for one source partition."""

    def __init__(
        self,
        partition: int,
        totals: QuotaTotals,
        store: RedisQuotas,
        announcements: Announcements,
        *,
        history: Callable[[], AsyncIterator[tuple[int, JournalEntry]]],
        limits: Callable[[], Awaitable[Limits]],
        commit: Callable[[int], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._partition, self._totals, self._store, self._announcements = partition, totals, store, announcements
        self._history, self._limits, self._commit, self._clock = history, limits, commit, clock
        self._version, self._received_ms = -1, 0
        # Up to where Redis was told that it is filled; less than that in Redis means that it lost writes.
        self._marked = -1
        self._turn = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read the journal from its start, fill Redis, and begin to watch for a wiped Redis and changed limits."""
        async for version, entry in self._history():
            self._totals.apply(version, entry)
            self._version, self._received_ms = version, entry.received_ms
        await until_done("redis", self._fill, transient=REDIS_DOWN)
        await self._announce(await self._limits(), None)
        self._watch = asyncio.create_task(self._keep_filled(), name=f"watch-{self._partition}")
        self._watch.add_done_callback(end_process_if_failed)

    async def handle(self, records: list[Any]) -> None:
        """Apply journal records, write what changed, announce crossings, then commit the journal offset."""
        async with self._turn:
            changed, touched = [], set()
            for record in records:
                entry = decode_entry(record.value)
                changed += self._totals.apply(record.offset, entry)
                # Also of records read again: their crossings may not have been announced when the process ended.
                touched |= {(row.tenant, row.meter, row.period) for row in entry.periods}
                if record.offset > self._version:
                    self._version, self._received_ms = record.offset, entry.received_ms
            await until_done("redis", lambda: self._write(changed), transient=REDIS_DOWN)
            await self._announce(await self._limits(), touched)
        await self._commit(records[-1].offset + 1)
        QUOTA_FRESHNESS.labels(self._partition).set(max(0.0, time.time() - self._received_ms / 1_000))

    async def close(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.cancel()

    async def _write(self, changed: list[Any]) -> None:
        if not await self._store.has_all(self._marked):
            await self._fill()
            HEALED.inc()
            return
        await self._store.write(changed)
        await self._mark_progress()

    async def _fill(self) -> None:
        totals = self._totals.all_totals()
        filled = False
        while not filled:
            token = await self._store.begin_filling()
            await self._store.write(totals)
            await self._mark_progress()
            # Last, so that a crash in between leaves it marked as wiped; refused if it was wiped in between.
            filled = await self._store.mark_filled(int(self._clock.now().timestamp() * 1_000), token)
        log.info("quotas.filled", partition=self._partition, totals=len(totals))

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
                    await self._announce(await self._limits(), None)
            except REDIS_DOWN as error:
                log.warning("quotas.redis_unreachable", error=repr(error)[:200])

    async def _announce(self, limits: Limits, among: set[tuple[str, str, str]] | None) -> None:
        crossings = self._totals.crossings(limits, among)
        if not crossings:
            return
        now = format_instant(self._clock.now())
        await self._announcements.announce([_message(crossing, now) for crossing in crossings])
        for crossing in crossings:
            CROSSED.labels(crossing.percent).inc()
            log.info(
                "quota.crossed",
                tenant=crossing.tenant,
                meter=crossing.meter,
                period=crossing.period,
                percent=crossing.percent,
            )


def _message(crossing: Crossing, now: str) -> QuotaCrossed:
    return QuotaCrossed(
        tenant_id=crossing.tenant,
        meter=crossing.meter,
        unit=crossing.unit,
        period=crossing.period,
        percent=crossing.percent,
        used=_plain(crossing.used),
        limit=_plain(crossing.limit),
        crossed_at=now,
    )


def _plain(quantity: Decimal) -> str:
    return f"{quantity.normalize():f}"
