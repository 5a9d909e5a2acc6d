"""Live totals in Redis, as the quota agent writes them (`core.live_quota`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from typing import Any

import msgspec
from redis.exceptions import RedisError

from core.errors import UnavailableError
from core.event_time import to_microseconds
from core.live_quota import EPOCH_KEY, FRESHNESS_KEY, quota_key
from quotas.domain.reading import Snapshot, read_freshness
from runtime.redis import CALLS_AT_ONCE, Script, mark_key_beside, mark_keys

_SCRIPT = (resources.files("quotas.adapters") / "read_totals.lua").read_text()


class RedisView:
    """Implements `quotas.ports.LiveView`."""

    def __init__(self, client: Any, partitions: int) -> None:
        self._client = client
        self._partitions = frozenset(f"p{number}" for number in range(partitions))
        self._hours = frozenset(f"hours:{name}" for name in self._partitions)
        self._script = Script(client, _SCRIPT)
        self._is_cluster = len(mark_keys(client, EPOCH_KEY)) > 1
        self._turns = asyncio.Semaphore(CALLS_AT_ONCE)

    async def fetch(
        self,
        tenant: str,
        keys: Sequence[tuple[str, str]],
        earlier: Sequence[tuple[str, Sequence[str]]],
        start: datetime,
    ) -> Snapshot:
        """Return the hashes, with how fresh and whole the view is."""
        names = [quota_key(tenant, meter, period) for meter, period in keys]
        names += [quota_key(tenant, meter, period) for meter, periods in earlier for period in periods]
        arguments = [len(keys), to_microseconds(start), *(len(periods) for _, periods in earlier)]
        try:
            async with self._turns:
                read = self._read_beside_marks if self._is_cluster else self._read_with_marks
                epoch, freshness, hashes = await read(tenant, names, arguments)
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError("live quotas cannot be read now") from error
        is_filled = self._partitions <= epoch.keys()
        return Snapshot(hashes, read_freshness(freshness), is_filled, is_filled and self._hours <= epoch.keys())

    async def check(self) -> None:
        """Return when Redis answers; raises otherwise."""
        await self._client.ping()

    async def _read_with_marks(self, tenant: str, names: list[str], arguments: list[int]) -> _Answer:
        answer = await self._script.run([EPOCH_KEY, FRESHNESS_KEY, *names], [2, *arguments])
        epoch, freshness, hashes = msgspec.json.decode(answer)
        return _pairs(epoch), _pairs(freshness), [_pairs(fields) for fields in hashes]

    async def _read_beside_marks(self, tenant: str, names: list[str], arguments: list[int]) -> _Answer:
        """Read in a cluster, where the marks lie in other slots: before and after the totals."""
        beside = quota_key(tenant, "", "")
        epoch_key = mark_key_beside(self._client, EPOCH_KEY, beside)
        before = await self._client.hgetall(epoch_key)
        answer = await self._script.run(names, [0, *arguments])
        after, freshness = await asyncio.gather(
            self._client.hgetall(epoch_key),
            self._client.hgetall(mark_key_beside(self._client, FRESHNESS_KEY, beside)),
        )
        _, _, hashes = msgspec.json.decode(answer)
        # Only what was filled all the while: a wipe or a filling in between leaves another token, or none.
        epoch = {name: token for name, token in after.items() if before.get(name) == token}
        return epoch, freshness, [_pairs(fields) for fields in hashes]


_Answer = tuple[dict[str, str], dict[str, str], list[dict[str, str]]]


def _pairs(flat: Sequence[str]) -> dict[str, str]:
    # Lua's empty list arrives as {}.
    return dict(zip(flat[::2], flat[1::2], strict=True)) if flat else {}
