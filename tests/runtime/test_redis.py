"""The Redis client under uvloop: a connection that broke is an outage like any other, not an error of our own."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ConnectionError as BrokenConnectionError

from runtime.redis import connect_redis


class ClosedTransport:
    """Says what uvloop says of a transport that was closed meanwhile."""

    def writelines(self, _: Any) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    def close(self) -> None: ...


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_a_connection_that_broke_under_uvloop_counts_as_broken(scheme: str) -> None:
    client = connect_redis(f"{scheme}://127.0.0.1:1/0", timeout_s=1, connect_timeout_s=1)
    connection = client.connection_pool.make_connection()
    connection._writer = connection._reader = ClosedTransport()
    with pytest.raises(BrokenConnectionError, match="broke"):
        await connection.send_packed_command(b"PING", check_health=False)
    assert not connection.is_connected
