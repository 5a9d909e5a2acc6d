"""Live quotas in Redis: absolute totals, set only if newer, one Lua call per tenant. Redis is never the truth.

Keys: `quota:{tenant}:meter:period` is a hash with `q<partition>:<segment>` (decimal text), `n…` (events), `v…`
(version: journal offset) and `at` (received ms); a period's value is the sum of its q fields. `meterbook:quotas:epoch`
has a field per partition: missing means Redis was wiped and must be filled again. `meterbook:freshness` tells how far
each partition is; a store that is less far than what was written to it has lost its newest writes (a restart from its
last save) and must be filled again, too.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable
from importlib import resources

import msgspec
from redis.asyncio import Redis

from core.quantity import format_scaled
from streams.domain.quota_totals import HOURS_KEPT_MS, MONTH_LENGTH, Total

EPOCH_KEY = "meterbook:quotas:epoch"
FRESHNESS_KEY = "meterbook:freshness"
MONTH_TTL_SECONDS = 400 * 86_400
HOUR_TTL_SECONDS = HOURS_KEPT_MS // 1_000
_SCRIPT = (resources.files("streams.adapters") / "set_if_newer.lua").read_text()
_CALLS_PER_PIPELINE = 500
# Marks a partition as filled only if the store is still the one in which the filling began.
_MARK_FILLED = """
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
redis.call('HDEL', KEYS[1], ARGV[2])
return 1
"""


def quota_key(tenant: str, meter: str, period: str) -> str:
    """Return the key of a period's total; all keys of a tenant share a cluster slot."""
    return f"quota:{{{tenant}}}:{meter}:{period}"


class RedisQuotas:
    """Writes the totals of one source partition."""

    def __init__(self, redis: Redis, partition: int) -> None:
        self._redis = redis
        self._partition = partition
        self._field = f"p{partition}"
        self._script = redis.register_script(_SCRIPT)
        self._mark_filled = redis.register_script(_MARK_FILLED)

    async def write(self, totals: Iterable[Total]) -> None:
        """Write totals; older versions than stored are ignored by the store itself."""
        ordered = sorted(totals, key=_call_of)
        calls = [(call, list(group)) for call, group in itertools.groupby(ordered, key=_call_of)]
        for start in range(0, len(calls), _CALLS_PER_PIPELINE):
            async with self._redis.pipeline(transaction=False) as pipeline:
                for (_, version, received_ms, is_month), group in calls[start : start + _CALLS_PER_PIPELINE]:
                    arguments: list[str | int] = [
                        self._partition,
                        version,
                        received_ms,
                        MONTH_TTL_SECONDS if is_month else HOUR_TTL_SECONDS,
                    ]
                    for total in group:
                        arguments += [total.segment, format_scaled(total.quantity), total.events]
                    keys = [quota_key(total.tenant, total.meter, total.period) for total in group]
                    await self._script(keys=keys, args=arguments, client=pipeline)
                await pipeline.execute()

    async def has_all(self, journal_offset: int) -> bool:
        """Say whether this partition's totals are there up to `journal_offset`, which was marked before."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hget(EPOCH_KEY, self._field)
            pipeline.hget(FRESHNESS_KEY, self._field)
            filled, progress = await pipeline.execute()
        if filled is None or progress is None:
            return False
        return bool(msgspec.json.decode(progress)["journal_offset"] >= journal_offset)

    async def begin_filling(self) -> str:
        """Take this partition's mark away while its totals are written; returns what `mark_filled` wants to see."""
        token = uuid.uuid4().hex
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hdel(EPOCH_KEY, self._field)
            pipeline.hset(EPOCH_KEY, f"filling:{self._field}", token)
            await pipeline.execute()
        return token

    async def mark_filled(self, at_ms: int, token: str | None = None) -> bool:
        """Remember in Redis that this partition's totals are there.

        With the token of `begin_filling` only if Redis still has it: returns False if it was wiped since.
        """
        if token is None:
            token = await self.begin_filling()
        arguments = [self._field, f"filling:{self._field}", token, str(at_ms)]
        return bool(await self._mark_filled(keys=[EPOCH_KEY], args=arguments))

    async def mark_progress(self, journal_offset: int, received_ms: int) -> None:
        """Tell readers up to which journal offset and append time the totals reach."""
        progress = msgspec.json.encode({"journal_offset": journal_offset, "at_ms": received_ms}).decode()
        await self._redis.hset(FRESHNESS_KEY, self._field, progress)


def _call_of(total: Total) -> tuple[str, int, int, bool]:
    return (total.tenant, total.version, total.received_ms, len(total.period) == MONTH_LENGTH)
