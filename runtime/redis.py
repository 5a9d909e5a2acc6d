"""Connections to Redis: one server, or a cluster for `redis+cluster://` and `rediss+cluster://` addresses.

In a cluster no two keys of one call may lie in different slots; single commands of a pipeline may, because the client
sends each to its node.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import Connection, SSLConnection
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ConnectionError as BrokenConnectionError
from redis.exceptions import NoScriptError

# A node of a cluster can be wiped without the others. So what tells whether a store was wiped is kept once per block of
# slots, and every node of up to eight has one.
SLOT_BLOCKS = 16
# Beyond its most connections redis-py refuses a call rather than let it wait, so callers wait before: each adapter lets
# this many of its calls run at once.
CALLS_AT_ONCE = 64
_CONNECTIONS_MAX = 4 * CALLS_AT_ONCE


class _UvloopConnection(Connection):
    """Takes uvloop's word for a connection that broke meanwhile: RuntimeError, where asyncio says ConnectionError."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            raise BrokenConnectionError(f"the connection broke: {error}") from error


class _UvloopTlsConnection(_UvloopConnection, SSLConnection):
    """The same over TLS."""


def is_cluster(url: str) -> bool:
    """Say whether the address is that of a cluster."""
    return url.partition("://")[0].endswith("+cluster")


def connect_redis(url: str, *, timeout_s: float, connect_timeout_s: float) -> Any:
    """Return a client of decoded texts that connects when first used; typed as `Any`: the two kinds share no base."""
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": connect_timeout_s,
        "health_check_interval": 15,
        "max_connections": _CONNECTIONS_MAX,
    }
    if is_cluster(url):
        return RedisCluster.from_url(url.replace("+cluster", "", 1), **options)
    client = Redis.from_url(url, **options)
    pool = client.connection_pool
    is_tls = issubclass(pool.connection_class, SSLConnection)
    pool.connection_class = _UvloopTlsConnection if is_tls else _UvloopConnection
    return client


def slot_block(key: str) -> int:
    """Return the block of a key's cluster slot."""
    return key_slot(key.encode()) * SLOT_BLOCKS // REDIS_CLUSTER_HASH_SLOTS


def _tags() -> tuple[str, ...]:
    found: dict[int, str] = {}
    number = 0
    while len(found) < SLOT_BLOCKS:
        found.setdefault(slot_block(str(number)), str(number))
        number += 1
    return tuple(found[block] for block in range(SLOT_BLOCKS))


_BLOCK_TAGS = _tags()


def mark_keys(client: Any, name: str) -> list[str]:
    """Return the keys under which a mark is kept that a wipe must take away: one, or in a cluster one per block."""
    if not isinstance(client, RedisCluster):
        return [name]
    return [f"{name}:{{{tag}}}" for tag in _BLOCK_TAGS]


def mark_key_beside(client: Any, name: str, key: str) -> str:
    """Return the mark nearest to a key: in a cluster nearly always on the same node."""
    if not isinstance(client, RedisCluster):
        return name
    return f"{name}:{{{_BLOCK_TAGS[slot_block(key)]}}}"


class Script:
    """A Lua script, sent whole only to a server that does not know it."""

    def __init__(self, client: Any, text: str) -> None:
        self._client, self._text = client, text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """Run the script; all keys lie in one slot."""
        try:
            return await self._client.evalsha(self._sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self._client.eval(self._text, len(keys), *keys, *arguments)
        except AttributeError as error:
            # redis-py's cluster client closes a connection that another call is just opening, and then finds no writer.
            raise BrokenConnectionError(f"the connection broke: {error}") from error

    def queue(self, pipeline: Any, keys: Sequence[str], arguments: Sequence[str | int]) -> None:
        """Add a run to a pipeline; `NoScriptError` of its execution asks for `load` and the same again."""
        # Not `pipeline.evalsha`: redis-py's cluster pipeline blocks that name, though it finds the node all the same.
        pipeline.execute_command("EVALSHA", self._sha, len(keys), *keys, *arguments)

    async def load(self) -> None:
        """Make the script known to every server."""
        await self._client.script_load(self._text)
