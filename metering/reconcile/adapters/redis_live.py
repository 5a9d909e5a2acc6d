"""Live totals as Redis has them; dropping what is wrong, so that the quota agent writes it anew from its book."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import redis.exceptions

from core.errors import BrokenInvariantError, UnavailableError
from core.live_quota import EPOCH_KEY, FRESHNESS_KEY, merge_parts, quota_key, read_parts
from core.meters import Meter
from metering.reconcile.ports import LiveState, PeriodTotal
from runtime.redis import connect_redis, mark_keys
from runtime.settings import Settings

_KEYS_PER_CALL = 500
_DOWN = (redis.exceptions.RedisError, OSError, TimeoutError)


class RedisLive:
    """Implements `LiveTotals`; connects when first used."""

    def __init__(self, settings: Settings) -> None:
        self._redis: Any = connect_redis(settings.redis, timeout_s=10, connect_timeout_s=3)

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose()

    async def states(self) -> dict[int, LiveState]:
        """Return the state of each partition: filled only if no node of a cluster was wiped, and the least progress."""
        try:
            epochs = [await self._redis.hgetall(key) for key in mark_keys(self._redis, EPOCH_KEY)]
            progress = [await self._redis.hgetall(key) for key in mark_keys(self._redis, FRESHNESS_KEY)]
        except _DOWN as error:
            raise UnavailableError(f"Redis does not answer: {error!r}") from error
        names = {name for found in (*epochs, *progress) for name in found if name[0] == "p" and name[1:].isdigit()}
        return {
            int(name[1:]): LiveState(
                min(_offset(found.get(name)) for found in progress), all(name in found for found in epochs)
            )
            for name in names
        }

    async def totals(self, keys: Sequence[tuple[str, Meter, str]]) -> list[PeriodTotal]:
        """Return live totals; one that cannot be read as such is told as one that no other side will equal."""
        found: list[PeriodTotal] = []
        for start in range(0, len(keys), _KEYS_PER_CALL):
            part = keys[start : start + _KEYS_PER_CALL]
            try:
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for tenant, meter, period in part:
                        pipeline.hgetall(quota_key(tenant, meter.meter_id, period))
                    answers = await pipeline.execute()
            except _DOWN as error:
                raise UnavailableError(f"Redis does not answer: {error!r}") from error
            found += [_total(meter, fields) for (_, meter, _), fields in zip(part, answers, strict=True)]
        return found

    async def refill(self, partition: int, keys: Sequence[tuple[str, str, str]]) -> None:
        """Drop totals, then the mark. In this order: filled again in between, the mark goes all the same."""
        try:
            for key in keys:
                await self._redis.delete(quota_key(*key))
            for mark in mark_keys(self._redis, EPOCH_KEY):
                await self._redis.hdel(mark, f"p{partition}")
        except _DOWN as error:
            raise UnavailableError(f"Redis does not answer: {error!r}") from error


def _offset(progress: str | None) -> int:
    return -1 if progress is None else int(msgspec.json.decode(progress)["journal_offset"])


def _total(meter: Meter, fields: Mapping[str, str]) -> PeriodTotal:
    try:
        part = merge_parts(meter.aggregation, read_parts(fields))
        version = max((int(value) for name, value in fields.items() if name[0] == "v"), default=-1)
    except (ValueError, BrokenInvariantError):
        # Not our own mistake: Redis holds what somebody wrote into it.
        return PeriodTotal(0, -1, 0, 0, -1)
    return PeriodTotal(part.quantity, part.events, part.level, part.at_us, version)
