"""Live quotas in Redis, as the quota agent writes them.

`quota:{<tenant>}:<meter>:<period>` is a hash with `q<partition>:<segment>` quantity (decimal text), `n…` events and
`v…` version; `meterbook:freshness` holds each partition's progress. `meterbook:quotas:epoch` has a field per partition
whose totals are there: after a wipe they are missing until the agent has filled Redis again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from api.domain.quota_answer import QuotaReading, read_freshness
from core.errors import UnavailableError
from runtime.settings import Settings

_EPOCH = "meterbook:quotas:epoch"
_FRESHNESS = "meterbook:freshness"


class RedisQuotas:
    """Implements `api.ports.QuotaView`."""

    def __init__(self, settings: Settings) -> None:
        self._partitions = {f"p{number}" for number in range(settings.usage_partitions)}
        self._client: Any = redis.asyncio.Redis.from_url(
            settings.redis, decode_responses=True, socket_connect_timeout=1, socket_timeout=2
        )

    async def read(self, tenant: str, meters: Sequence[str], period: str) -> list[QuotaReading]:
        """Return one reading per meter in one round trip."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hkeys(_EPOCH)
        pipeline.hgetall(_FRESHNESS)
        for meter in meters:
            pipeline.hgetall(f"quota:{{{tenant}}}:{meter}:{period}")
        try:
            filled, freshness, *quotas = await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError("live quotas cannot be read now") from error
        known = read_freshness(freshness)
        is_stale = not self._partitions <= set(filled)
        return [QuotaReading(fields, known, is_stale) for fields in quotas]

    async def check(self) -> None:
        """Return when Redis answers; raises otherwise."""
        await self._client.ping()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
