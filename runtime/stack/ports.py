"""Loopback ports of the engines. Owns which ports are taken: free ones, outside the range of outgoing connections."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from runtime.stack.errors import StackError

LOOPBACK = "127.0.0.1"
LOWEST = 15_000
# Linux' default start of the range of outgoing connections, used where the kernel does not tell.
EPHEMERAL_FALLBACK = 32_768
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES = 500


def is_free(port: int) -> bool:
    """Whether a server may listen on this loopback port now; a port that only waits out old connections is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def pick(avoid: set[int]) -> int:
    """Return a free loopback port that is not in `avoid`; raises `StackError` when none is left.

    The port lies below the kernel's range for outgoing connections: a client that tries to reconnect to a stopped
    engine could otherwise be given that very port as its own and meet itself (TCP's simultaneous open).
    """
    highest = max(_ephemeral_start() - 1, LOWEST + _TRIES)
    for _ in range(_TRIES):
        port = random.randint(LOWEST, highest)  # noqa: S311 - a port is no secret
        if port not in avoid and is_free(port):
            return port
    raise StackError(f"no free port between {LOWEST} and {highest} on {LOOPBACK}: end some servers and try again")


def listening(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0):
            return True
    except OSError:
        return False


def _ephemeral_start() -> int:
    try:
        return int(_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return EPHEMERAL_FALLBACK
