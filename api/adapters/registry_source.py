"""The registry for the API: a snapshot a few seconds old, read anew by one request at a time."""

from __future__ import annotations

import asyncio

import psycopg
import structlog

from core.clock import Clock
from core.errors import UnavailableError
from core.meters import Registry
from runtime.registry import LoadedRegistry, RegistryCache

_WAIT_SECONDS = 3.0
# Refusals of unknown names cause a reading each; strangers guessing names must not become the store's load.
_PAUSE_MS = 250
log = structlog.get_logger()


class CachedRegistrySource:
    """Implements `api.ports.RegistrySource`."""

    def __init__(self, cache: RegistryCache, clock: Clock, *, refresh_seconds: int) -> None:
        self._cache, self._clock, self._refresh_ms = cache, clock, refresh_seconds * 1_000
        self._loaded: LoadedRegistry | None = None
        self._turn = asyncio.Lock()

    async def current(self) -> Registry:
        """Return the snapshot; in an outage of the store the last good one."""
        loaded = self._loaded
        if loaded is not None and (self._now_ms() - loaded.loaded_ms < self._refresh_ms or self._turn.locked()):
            return loaded.registry
        try:
            return await self._read(self._now_ms() - self._refresh_ms + 1)
        except UnavailableError:
            if loaded is None:
                raise
            return loaded.registry

    async def newest(self) -> Registry:
        """Return a registry that was read after this call began."""
        return await self._read(self._now_ms())

    async def _read(self, not_before_ms: int) -> Registry:
        try:
            async with asyncio.timeout(_WAIT_SECONDS), self._turn:
                loaded = self._loaded
                if loaded is None or loaded.loaded_ms < not_before_ms:
                    if loaded is not None:
                        wait_ms = _PAUSE_MS - (self._now_ms() - loaded.loaded_ms)
                        await asyncio.sleep(max(0, wait_ms) / 1_000)
                    loaded = self._loaded = await self._cache.refresh()
                return loaded.registry
        except (psycopg.Error, TimeoutError, OSError) as error:
            log.warning("registry.unreachable", error=repr(error))
            raise UnavailableError("tenants and meters cannot be read now") from error

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1_000)
