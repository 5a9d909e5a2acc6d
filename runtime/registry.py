"""The registry of tenants and meters, read from PostgreSQL and kept fresh; in an outage the last good one serves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog

from core.calendar import UTC_MONTHS, Calendar, check_calendar
from core.clock import Clock
from core.errors import InvalidInputError
from core.meters import Registry
from runtime.postgres import Pool
from runtime.stored_meters import read_meters

log = structlog.get_logger()
# A server that went silent in the middle of an answer is given up after this; the partition that asked waits meanwhile.
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class LoadedRegistry:
    """A registry and when its reading began (milliseconds since 1970 UTC): it knows all that was committed by then.

    `reading` numbers the readings of one cache: unlike two instants, two of them are compared without a clock.
    """

    registry: Registry
    loaded_ms: int
    reading: int = 0


class RegistryCache:
    """Reads the registry when asked and every `refresh_seconds`."""

    def __init__(self, pool: Pool, clock: Clock, *, refresh_seconds: int) -> None:
        self._pool, self._clock, self._refresh_ms = pool, clock, refresh_seconds * 1_000
        self._loaded: LoadedRegistry | None = None
        self._tried_ms = 0
        self._turn = asyncio.Lock()
        self.readings = 0  # begun so far

    async def get(self) -> LoadedRegistry:
        """Return the registry, read anew if it is older than the refresh time; during an outage the last good one.

        In an outage one caller waits, and only once per refresh time: whoever needs a newer one asks for it.
        """
        loaded, now_ms = self._loaded, self._now_ms()
        if loaded is None:
            return await self.newer_than(0)
        if now_ms - max(loaded.loaded_ms, self._tried_ms) >= self._refresh_ms:
            self._tried_ms = now_ms
            try:
                return await self.refresh()
            except (psycopg.Error, TimeoutError) as error:
                log.warning("registry.stale", error=str(error), age_ms=self._now_ms() - loaded.loaded_ms)
        return loaded

    async def newer_than(self, reading: int) -> LoadedRegistry:
        """Return a registry of a later reading than that; waits out an outage: a wrong refusal costs more."""
        pause = 0.1
        while True:
            async with self._turn:
                if self._loaded is not None and self._loaded.reading > reading:
                    return self._loaded
                try:
                    return await self.refresh()
                except (psycopg.Error, TimeoutError) as error:
                    log.warning("registry.unreachable", error=str(error), retry_in_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)

    async def refresh(self) -> LoadedRegistry:
        """Read the registry now; raises psycopg's errors, and `TimeoutError` if the store does not answer in time."""
        loaded_ms = self._now_ms()
        self.readings += 1
        reading = self.readings
        async with asyncio.timeout(_ANSWER_SECONDS), self._pool.connection(timeout=5) as connection:
            tenants = await (
                await connection.execute("SELECT tenant_id, time_zone, billing_anchor_day FROM tenants")
            ).fetchall()
            meters = await read_meters(connection)
        registry = Registry.of((row["tenant_id"] for row in tenants), meters.values(), _calendars(tenants))
        self._loaded = LoadedRegistry(registry, loaded_ms, reading)
        return self._loaded

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1_000)


def _calendars(tenants: Iterable[Mapping[str, Any]]) -> dict[str, Calendar]:
    """Return the calendars that are not UTC's months.

    A zone this machine does not know (its time zone data may be older than that of who wrote it) is told and left at
    UTC: one tenant's setting must not stop the stream for all.
    """
    calendars = {}
    for row in tenants:
        calendar = Calendar(row["time_zone"], row["billing_anchor_day"])
        if calendar == UTC_MONTHS:
            continue
        try:
            calendars[row["tenant_id"]] = check_calendar(calendar.time_zone, calendar.anchor_day)
        except InvalidInputError as refused:
            log.error("registry.calendar_refused", tenant=row["tenant_id"], error=str(refused))
    return calendars
