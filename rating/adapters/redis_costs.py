"""Running costs in Redis, for who asks what a tenant has spent and cannot wait. Never the truth: ClickHouse is.

One hash per tenant and billing period: `b:` and `v:` with the subscription behind it are its lines and their version,
`e` the epoch, `w` says that all subscriptions are there. A hash is only believed if it is whole and of the present
epoch, else ClickHouse is read and the hash filled. Whoever could not write starts another epoch as soon as it can, and
so does every consumer that starts: nothing that was missed is ever shown as the present.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import structlog
from redis.exceptions import RedisError

from rating.domain.running_cost import CostPart, CostSoFar, cost_line
from rating.ports import CostRow
from runtime.redis import Script

EPOCH_KEY = "meterbook:costs:epoch"
_KEPT_MS = 100 * 86_400_000
# KEYS[1] the hash; ARGV epoch, milliseconds to live, "1" if all is there, then subscription, version, body of each.
_PUT = """
if redis.call('HGET', KEYS[1], 'e') ~= ARGV[1] then
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'e', ARGV[1])
end
for place = 4, #ARGV, 3 do
    local known = redis.call('HGET', KEYS[1], 'v:' .. ARGV[place])
    if not known or tonumber(known) <= tonumber(ARGV[place + 1]) then
        redis.call('HSET', KEYS[1], 'v:' .. ARGV[place], ARGV[place + 1], 'b:' .. ARGV[place], ARGV[place + 2])
    end
end
if ARGV[3] == '1' then redis.call('HSET', KEYS[1], 'w', '1') end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_DOWN = (RedisError, OSError, TimeoutError)
_encode, _decode = msgspec.json.encode, msgspec.json.Decoder(CostPart).decode
log = structlog.get_logger()


def cost_key(tenant_id: str, period: str) -> str:
    """Return the key of a tenant's running cost; all keys of a tenant share a cluster slot."""
    return f"cost:{{{tenant_id}}}:{period}"


class CostsBehind(Protocol):
    """Where running costs truly are."""

    async def costs(self, tenant_id: str, period: str) -> Mapping[str, CostPart]:
        """Return a tenant's running cost of a period by subscription."""
        ...


class RedisCosts:
    """Writes and reads running costs; an outage of Redis stops neither rating nor reading."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._script = Script(client, _PUT)
        # Whatever was missed before this process began is not known: the first write begins another epoch.
        self._missed = True

    async def put(self, rows: Sequence[CostRow]) -> None:
        """Write what was rated; all rows of a subscription's period stand in one call."""
        parts: dict[tuple[str, str], dict[str, list[CostRow]]] = {}
        for row in rows:
            parts.setdefault((row.tenant_id, row.period), {}).setdefault(row.subscription_id, []).append(row)
        try:
            if self._missed:
                await self._client.incr(EPOCH_KEY)
                self._missed = False
            epoch = await self._epoch()
            for (tenant_id, period), of_tenant in parts.items():
                found = {subscription: _part(of_one) for subscription, of_one in of_tenant.items()}
                await self._write(epoch, tenant_id, period, found, whole=False)
        except _DOWN as error:
            self._missed = True
            log.warning("costs.not_in_redis", error=repr(error)[:200])

    async def read(self, tenant_id: str, period: str, behind: CostsBehind) -> CostSoFar:
        """Return a tenant's running cost, from Redis if it is there and whole, else from where it truly is."""
        epoch: str | None = None
        try:
            epoch = await self._epoch()
            fields = await self._client.hgetall(cost_key(tenant_id, period))
            if fields.get("e") == epoch and fields.get("w") == "1":
                return CostSoFar(tenant_id, period, _parts(fields))
        except _DOWN:
            epoch = None
        found = dict(await behind.costs(tenant_id, period))
        if epoch is not None:
            try:
                await self._write(epoch, tenant_id, period, found, whole=True)
            except _DOWN as error:
                log.warning("costs.not_in_redis", error=repr(error)[:200])
        return CostSoFar(tenant_id, period, {name: part for name, part in found.items() if part.lines})

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()

    async def _epoch(self) -> str:
        return str(await self._client.get(EPOCH_KEY) or "0")

    async def _write(
        self, epoch: str, tenant_id: str, period: str, parts: Mapping[str, CostPart], *, whole: bool
    ) -> None:
        arguments: list[str | int] = [epoch, _KEPT_MS, int(whole)]
        for subscription_id, part in parts.items():
            arguments += [subscription_id, part.version, _encode(part).decode()]
        await self._script.run([cost_key(tenant_id, period)], arguments)


def _part(rows: Iterable[CostRow]) -> CostPart:
    kept = list(rows)
    lines = [
        cost_line(row.plan_id, row.holding, row.charge_id, row.meter_id, row.quantity, row.amount, row.currency)
        for row in kept
        if row.quantity or row.amount
    ]
    return CostPart(max(row.version for row in kept), tuple(lines))


def _parts(fields: Mapping[str, str]) -> dict[str, CostPart]:
    found = {name[2:]: _decode(body) for name, body in fields.items() if name.startswith("b:")}
    return {name: part for name, part in found.items() if part.lines}
