"""Live totals in Redis, as the quota agent writes them (`core.live_quota`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from redis.exceptions import NoScriptError, RedisError

from core.errors import UnavailableError
from core.event_time import to_microseconds
from core.live_quota import EPOCH_KEY, FRESHNESS_KEY, quota_key
from quotas.domain.reading import Snapshot, read_freshness
from runtime.redis import CALLS_AT_ONCE, Script, mark_key_beside

# KEYS: earlier periods of a meter, newest first. ARGV: the start of the window in microseconds. Returns the first hash
# whose levels were all set by then.
_EARLIER = """
for _, key in ipairs(KEYS) do
  local fields = redis.call('HGETALL', key)
  local counts = #fields > 0
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 1) == 't' and tonumber(fields[i + 1]) > tonumber(ARGV[1]) then counts = false end
  end
  if counts then return fields end
end
return {}
"""


class RedisView:
    """Implements `quotas.ports.LiveView`."""

    def __init__(self, client: Any, partitions: int) -> None:
        self._client = client
        self._partitions = frozenset(f"p{number}" for number in range(partitions))
        self._earlier = Script(client, _EARLIER)
        self._turns = asyncio.Semaphore(CALLS_AT_ONCE)

    async def fetch(
        self,
        tenant: str,
        keys: Sequence[tuple[str, str]],
        earlier: Sequence[tuple[str, Sequence[str]]],
        start: datetime,
    ) -> Snapshot:
        """Return the hashes, with how fresh and whole the view is."""
        try:
            try:
                epoch, freshness, hashes = await self._fetch(tenant, keys, earlier, start)
            except NoScriptError:
                await self._earlier.load()
                epoch, freshness, hashes = await self._fetch(tenant, keys, earlier, start)
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError("live quotas cannot be read now") from error
        filled = frozenset(epoch)
        is_filled = self._partitions <= filled
        has_hours = is_filled and all(f"hours:{name}" in filled for name in self._partitions)
        return Snapshot(hashes, read_freshness(freshness), is_filled, has_hours)

    async def check(self) -> None:
        """Return when Redis answers; raises otherwise."""
        await self._client.ping()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _fetch(
        self,
        tenant: str,
        keys: Sequence[tuple[str, str]],
        earlier: Sequence[tuple[str, Sequence[str]]],
        start: datetime,
    ) -> tuple[list[str], dict[str, str], list[dict[str, str]]]:
        beside = quota_key(tenant, "", "")
        pipeline = self._client.pipeline(transaction=False)
        epoch_key = mark_key_beside(self._client, EPOCH_KEY, beside)
        pipeline.hgetall(epoch_key)
        pipeline.hgetall(mark_key_beside(self._client, FRESHNESS_KEY, beside))
        for meter, period in keys:
            pipeline.hgetall(quota_key(tenant, meter, period))
        for meter, periods in earlier:
            names = [quota_key(tenant, meter, period) for period in periods]
            self._earlier.queue(pipeline, names, [to_microseconds(start)])
        pipeline.hgetall(epoch_key)
        async with self._turns:
            before, freshness, *hashes, after = await pipeline.execute()
        # Only what was filled all the while: a wipe or a filling in between would leave another token, or none.
        epoch = [name for name, token in after.items() if before.get(name) == token]
        hashes[len(keys) :] = [dict(zip(found[::2], found[1::2], strict=True)) for found in hashes[len(keys) :]]
        return epoch, freshness, hashes
