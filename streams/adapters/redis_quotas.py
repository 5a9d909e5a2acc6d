"""Live quotas in Redis: absolute totals, set only if newer, one Lua call per tenant. Redis is never the truth.

Keys: `quota:{tenant}:meter:period` is a hash with `q<partition>:<segment>` (decimal text), `n…` (events), `v…`
(version: journal offset) and `at` (received ms); a period's value is the sum of its q fields. `meterbook:quotas:epoch`
has a field per partition: missing means Redis was wiped and must be filled again. `meterbook:freshness` tells how far
each partition is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from importlib import resources

import msgspec
from redis.asyncio import Redis

from core.quantity import format_scaled
from streams.domain.quota_totals import MONTH_LENGTH, Total

EPOCH_KEY = "meterbook:quotas:epoch"
FRESHNESS_KEY = "meterbook:freshness"
MONTH_TTL_SECONDS = 400 * 86_400
HOUR_TTL_SECONDS = 3 * 86_400
_SCRIPT = (resources.files("streams.adapters") / "set_if_newer.lua").read_text()
_CALLS_PER_PIPELINE = 500


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

    async def is_wiped(self) -> bool:
        """Say whether this partition's totals are missing from Redis."""
        return not await self._redis.hexists(EPOCH_KEY, self._field)

    async def mark_filled(self, at_ms: int) -> None:
        """Remember in Redis that this partition's totals are there."""
        await self._redis.hset(EPOCH_KEY, self._field, str(at_ms))

    async def mark_progress(self, journal_offset: int, received_ms: int) -> None:
        """Tell readers up to which journal offset and append time the totals reach."""
        progress = msgspec.json.encode({"journal_offset": journal_offset, "at_ms": received_ms}).decode()
        await self._redis.hset(FRESHNESS_KEY, self._field, progress)


def _call_of(total: Total) -> tuple[str, int, int, bool]:
    return (total.tenant, total.version, total.received_ms, len(total.period) == MONTH_LENGTH)
