"""Live quotas in Redis: absolute totals, set only if newer, one Lua call per tenant. Redis is never the truth.

`core.live_quota` says what the keys and fields are. `meterbook:quotas:epoch` has a field per partition with the token
of its filling, and `hours:` + that field once the hours are there too: missing means Redis was wiped and must be
filled again. `meterbook:freshness` tells how far each partition is; a store that is less far than what was written to
it has lost its newest writes (a restart from its last save) and must be filled again, too. In a cluster both are kept
once per block of slots (`runtime.redis`), so that one wiped node is noticed.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Collection, Iterable, Sequence
from importlib import resources
from typing import Any

import msgspec
from redis.exceptions import NoScriptError

from core.live_quota import EPOCH_KEY, FRESHNESS_KEY, HOURS_KEPT, RESERVING_KEY, hold_key, quota_key
from core.quantity import format_scaled
from runtime.redis import Script, mark_keys
from streams.domain.quota_totals import Total

PERIOD_TTL_SECONDS = 400 * 86_400
HOUR_TTL_SECONDS = (HOURS_KEPT + 24) * 3_600
_SCRIPT = (resources.files("streams.adapters") / "set_if_newer.lua").read_text()
_CALLS_PER_PIPELINE = 500
# A token names the run of the server, too: one that was restarted may have come back without its newest writes.
_BEGIN = """
local token = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') .. ':' .. ARGV[2]
redis.call('HDEL', KEYS[1], ARGV[1], 'hours:' .. ARGV[1])
redis.call('HSET', KEYS[1], 'filling:' .. ARGV[1], token)
return token
"""
# Marks a partition (or its hours) as filled only if the store is still the one in which the filling began.
_MARK_FILLED = """
local token = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') .. ':' .. ARGV[2]
if redis.call('HGET', KEYS[1], 'filling:' .. ARGV[1]) ~= token then return 0 end
redis.call('HSET', KEYS[1], ARGV[3] .. ARGV[1], token)
return 1
"""
# KEYS: epoch and freshness marks of one block; ARGV: partition. Returns its progress, '' if it is not filled.
_HAS = """
local token = redis.call('HGET', KEYS[1], ARGV[1])
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if not token or string.sub(token, 1, #run + 1) ~= run .. ':' then return '' end
return redis.call('HGET', KEYS[2], ARGV[1]) or ''
"""
# A reserved event has arrived in the totals: what was held for it no longer counts beside them. That it was taken is
# remembered for an hour, for a commit that comes after its event.
# KEYS: held, expiry, awaited, taken of one tenant and meter; ARGV: reservation, identity.
_TAKE_HELD = """
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[2])
local now = redis.call('TIME')[1] * 1000
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
redis.call('ZADD', KEYS[4], now + 3600000, ARGV[1])
return 1
"""


class RedisQuotas:
    """Writes the totals of one source partition."""

    def __init__(self, redis: Any, partition: int) -> None:
        self._redis = redis
        self._partition = partition
        self._field = f"p{partition}"
        self._script = Script(redis, _SCRIPT)
        self._begin = Script(redis, _BEGIN)
        self._mark = Script(redis, _MARK_FILLED)
        self._has = Script(redis, _HAS)
        self._take = Script(redis, _TAKE_HELD)

    async def write(self, totals: Iterable[Total]) -> None:
        """Write totals; older versions than stored are ignored by the store itself."""
        ordered = sorted(totals, key=_call_of)
        calls = [(call, list(group)) for call, group in itertools.groupby(ordered, key=_call_of)]
        for start in range(0, len(calls), _CALLS_PER_PIPELINE):
            some = calls[start : start + _CALLS_PER_PIPELINE]
            try:
                await self._write_calls(some)
            except NoScriptError:
                # The server was restarted or told to forget its scripts; what was written is written again.
                await self._script.load()
                await self._write_calls(some)

    async def take_held(self, tenants: Collection[str], identities: Collection[bytes]) -> list[str]:
        """Drop the reservations whose events are among `identities`; returns their ids.

        After the totals with these events were written: in between they count twice, which refuses, never overshoots.
        """
        names = list(tenants)
        if not names or not identities:
            return []
        reserving = await self._redis.smismember(RESERVING_KEY, names)
        taken: list[str] = []
        for tenant in (name for name, is_reserving in zip(names, reserving, strict=True) if is_reserving):
            awaited = await self._redis.hgetall(hold_key(tenant, "awaited"))
            for identity, place in awaited.items():
                if bytes.fromhex(identity) in identities:
                    meter, _, reservation = place.rpartition("|")
                    held, expiry, gone = (hold_key(tenant, f"{part}:{meter}") for part in ("held", "expiry", "taken"))
                    keys = [held, expiry, hold_key(tenant, "awaited"), gone]
                    await self._take.run(keys, [reservation, identity])
                    taken.append(reservation)
        return taken

    async def has_all(self, journal_offset: int) -> bool:
        """Say whether this partition's totals are there up to `journal_offset`, which was marked before."""
        keys = zip(self._marks(EPOCH_KEY), self._marks(FRESHNESS_KEY), strict=True)
        found = await asyncio.gather(*(self._has.run(pair, [self._field]) for pair in keys))
        return all(progress and msgspec.json.decode(progress)["journal_offset"] >= journal_offset for progress in found)

    async def begin_filling(self) -> str:
        """Take this partition's mark away while its totals are written; returns what `mark_filled` wants to see."""
        token = uuid.uuid4().hex
        for key in self._marks(EPOCH_KEY):
            await self._begin.run([key], [self._field, token])
        return token

    async def mark_filled(self, token: str, *, hours: bool = False) -> bool:
        """Remember that this partition's totals, or its hours too, are there; False if Redis was wiped since."""
        arguments = [self._field, token, "hours:" if hours else ""]
        return all([await self._mark.run([key], arguments) for key in self._marks(EPOCH_KEY)])

    async def mark_progress(self, journal_offset: int, received_ms: int) -> None:
        """Tell readers up to which journal offset and append time the totals reach."""
        progress = msgspec.json.encode({"journal_offset": journal_offset, "at_ms": received_ms}).decode()
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in self._marks(FRESHNESS_KEY):
                pipeline.hset(key, self._field, progress)
            await pipeline.execute()

    async def _write_calls(self, calls: Sequence[tuple[tuple[str, int, int, bool], list[Total]]]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for (_, version, received_ms, is_hour), group in calls:
                arguments: list[str | int] = [
                    self._partition,
                    version,
                    received_ms,
                    HOUR_TTL_SECONDS if is_hour else PERIOD_TTL_SECONDS,
                ]
                for total in group:
                    arguments += [
                        total.segment,
                        format_scaled(total.quantity),
                        total.events,
                        total.aggregation,
                        format_scaled(total.level),
                        total.at_us,
                    ]
                keys = [quota_key(total.tenant, total.meter, total.period) for total in group]
                self._script.queue(pipeline, keys, arguments)
            await pipeline.execute()

    def _marks(self, name: str) -> list[str]:
        return mark_keys(self._redis, name)


def _call_of(total: Total) -> tuple[str, int, int, bool]:
    return (total.tenant, total.version, total.received_ms, total.is_hour)
