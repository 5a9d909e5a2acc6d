"""Reservations in Redis, one Lua call each. What Redis forgot is brought back from the books before it decides again.

The loaded mark of a tenant names the run of the server: it is gone after a wipe and says something else after a
restart. Loading puts a mark of its own first, then asks whether the live totals are all there; whatever wipes the
tenant's totals after that takes the mark with it, so reservations are never decided beside totals that are not whole.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from importlib import resources
from typing import Any

from redis.exceptions import RedisError

from core.errors import UnavailableError
from core.live_quota import EPOCH_KEY, RESERVING_KEY, hold_key, quota_key
from core.quantity import unscale
from quotas.domain.reservation import OPEN_MAX, Reservation, plain
from quotas.ports import Decision, ReservationBooks
from runtime.redis import CALLS_AT_ONCE, Script, mark_keys

_AWAY = (RedisError, OSError, TimeoutError)
_FOLDER = resources.files("quotas.adapters")
EXACT = (_FOLDER / "exact.lua").read_text()
_RESERVE = EXACT + (_FOLDER / "reserve.lua").read_text()
# KEYS: loaded mark; ARGV: mark of this loading. A mark that says this very run stays.
_BEGIN = """
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if redis.call('GET', KEYS[1]) == run then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""
# KEYS: loaded mark, held, expiry, awaited; ARGV: mark of this loading, reservation, meter, amount, identity, expiry.
_PUT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('HSETNX', KEYS[2], ARGV[2], 'u|' .. ARGV[4] .. '|' .. ARGV[5]) == 1 then
  redis.call('ZADD', KEYS[3], ARGV[6], ARGV[2])
  redis.call('HSET', KEYS[4], ARGV[5], ARGV[3] .. '|' .. ARGV[2])
end
return 1
"""
# KEYS: loaded mark; ARGV: mark of this loading.
_CONFIRM = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], string.match(redis.call('INFO', 'server'), 'run_id:(%w+)'))
return 1
"""
# KEYS: epoch mark; returns its tokens if they are all of this run of the server.
_EPOCH = """
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local found = redis.call('HGETALL', KEYS[1])
local names = {}
for at = 1, #found, 2 do
  if string.sub(found[at + 1], 1, #run + 1) == run .. ':' then names[#names + 1] = found[at] end
end
return names
"""
_ATTEMPTS = 3


class RedisReservations:
    """Implements `quotas.ports.ReservationDesk`."""

    def __init__(self, client: Any, books: ReservationBooks, partitions: int) -> None:
        self._client, self._books = client, books
        self._turns = asyncio.Semaphore(CALLS_AT_ONCE)
        self._loads: dict[str, asyncio.Task[None]] = {}
        names = [f"p{number}" for number in range(partitions)]
        self._marks = frozenset(names) | {f"hours:{name}" for name in names}
        self._reserve, self._begin = Script(client, _RESERVE), Script(client, _BEGIN)
        self._put, self._confirm, self._epoch = Script(client, _PUT), Script(client, _CONFIRM), Script(client, _EPOCH)

    async def hold(
        self, reservation: Reservation, ttl_seconds: int, periods: Sequence[str], ceiling: Decimal | None
    ) -> Decision:
        """Hold, if there is room."""
        bound = "" if ceiling is None else plain(ceiling)
        return await self._decide("hold", reservation, reservation.amount, ttl_seconds * 1_000, periods, bound)

    async def commit(self, reservation: Reservation, actual: Decimal) -> Decision:
        """Keep what was used until its event has arrived."""
        until = int(reservation.expires_at.timestamp() * 1_000)
        return await self._decide("commit", reservation, actual, until, (), "")

    async def release(self, reservation: Reservation) -> None:
        """Give up what is held."""
        await self._decide("release", reservation, reservation.amount, 0, (), "")

    async def look(self, tenant: str, meter: str, periods: Sequence[str]) -> Decision:
        """Return what is used and held."""
        return await self._run(tenant, meter, ["look", "", meter, "0", 0, "", "", OPEN_MAX], periods)

    async def _decide(
        self, verb: str, reservation: Reservation, amount: Decimal, until: int, periods: Sequence[str], ceiling: str
    ) -> Decision:
        identity = reservation.identity.hex()
        arguments: list[str | int] = [
            verb,
            reservation.reservation_id,
            reservation.meter_id,
            plain(amount),
            until,
            identity,
            ceiling,
            OPEN_MAX,
        ]
        return await self._run(reservation.tenant_id, reservation.meter_id, arguments, periods)

    async def _run(self, tenant: str, meter: str, arguments: list[str | int], periods: Sequence[str]) -> Decision:
        keys = [*_keys(tenant, meter), *(quota_key(tenant, meter, period) for period in periods)]
        try:
            for _ in range(_ATTEMPTS):
                async with self._turns:
                    outcome, used, held, ends = await self._reserve.run(keys, arguments)
                if outcome != "not_loaded":
                    return Decision(
                        outcome, unscale(int(used)), unscale(int(held)), datetime.fromtimestamp(int(ends) / 1_000, UTC)
                    )
                await self._load_once(tenant)
        except _AWAY as error:
            raise UnavailableError("reservations cannot be decided now") from error
        raise UnavailableError("live quotas are being filled")

    async def _load_once(self, tenant: str) -> None:
        """Let all who wait for a tenant's reservations share one loading: two would take each other's mark away."""
        load = self._loads.get(tenant)
        if load is None:
            load = self._loads[tenant] = asyncio.create_task(self._load(tenant))
            load.add_done_callback(lambda _: self._loads.pop(tenant, None))
        await asyncio.shield(load)

    async def _load(self, tenant: str) -> None:
        """Bring back the tenant's open reservations; without effect if Redis was wiped meanwhile."""
        mark, loaded = f"loading:{uuid.uuid4().hex}", hold_key(tenant, "loaded")
        if not await self._begin.run([loaded], [mark]):
            return
        epochs = await asyncio.gather(*(self._epoch.run([key], []) for key in mark_keys(self._client, EPOCH_KEY)))
        if not all(self._marks <= set(names) for names in epochs):
            raise UnavailableError("live quotas are being filled")
        # Before anything can be held: from now on the quota agent looks for this tenant's reserved events.
        await self._client.sadd(RESERVING_KEY, tenant)
        for reservation in await self._books.open_of(tenant):
            _, held, expiry, awaited, _ = _keys(tenant, reservation.meter_id)
            await self._put.run(
                [loaded, held, expiry, awaited],
                [
                    mark,
                    reservation.reservation_id,
                    reservation.meter_id,
                    plain(reservation.amount),
                    reservation.identity.hex(),
                    int(reservation.expires_at.timestamp() * 1_000),
                ],
            )
        await self._confirm.run([loaded], [mark])


def _keys(tenant: str, meter: str) -> list[str]:
    parts = ("loaded", f"held:{meter}", f"expiry:{meter}", "awaited", f"taken:{meter}")
    return [hold_key(tenant, part) for part in parts]
