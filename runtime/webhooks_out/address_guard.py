"""Where outgoing requests may go. Owns which URLs and addresses are refused, so that nobody reaches our own network.

A name is resolved once, every address it has is checked, and the connection is made to one of those addresses; so a
name that answers otherwise the second time (DNS rebinding) gains nothing. TLS and `Host` still carry the name.
`ipaddress.is_global` alone is not enough: on Python 3.11 it calls 64:ff9b::/96, 2002::/16 and 224.0.0.1 global, and
`getaddrinfo` reads `2130706433`, `0x7f.1` and `0177.0.0.1` as 127.0.0.1; the check is of what they resolve to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import httpcore2

from core.errors import Fault, InvalidInputError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Addresses that carry an IPv4 address inside, or that lead to ourselves, though they are called global.
_REFUSED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "::/96",  # IPv4-compatible (RFC 4291)
        "64:ff9b::/96",  # NAT64 (RFC 6052)
        "64:ff9b:1::/48",  # local NAT64 (RFC 8215)
        "2001::/32",  # Teredo (RFC 4380)
        "2002::/16",  # 6to4 (RFC 3056)
        "fec0::/10",  # site-local (RFC 3879)
    )
)
_URL_LENGTH_MAX = 2_000


class RefusedAddressError(Exception):
    """The name leads to an address that outgoing requests may not reach."""


@dataclass(frozen=True, slots=True)
class OutgoingPolicy:
    """What is allowed. `allow_private` also lets plain HTTP, any port and private addresses through."""

    allow_private: bool = False
    ports: tuple[int, ...] = (443,)


def check_url(url: str, policy: OutgoingPolicy) -> SplitResult:
    """Return the parts of a URL that may be called; raises `InvalidInputError` (`invalid_url`, `refused_url`).

    Names are not resolved here: what counts is where they lead when something is sent.
    """
    faults: list[Fault] = []
    if len(url) > _URL_LENGTH_MAX or not url.isascii() or any(char <= " " or char in '\\"<>' for char in url):
        raise InvalidInputError([Fault("invalid_url", "expected an ASCII URL without blanks", "url")])
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidInputError([Fault("invalid_url", "that is no URL", "url")]) from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        faults.append(Fault("invalid_url", "expected https://host/path", "url"))
    elif parts.scheme == "http" and not policy.allow_private:
        faults.append(Fault("refused_url", "only https is allowed", "url"))
    if parts.username is not None or parts.password is not None:
        faults.append(Fault("refused_url", "a user and password do not belong into the URL", "url"))
    if parts.fragment:
        faults.append(Fault("invalid_url", "a fragment is never sent", "url"))
    if not policy.allow_private and (port or 443) not in policy.ports:
        faults.append(Fault("refused_url", f"only port {', '.join(map(str, policy.ports))} is allowed", "url"))
    if parts.hostname and not policy.allow_private and _is_refused_literal(parts.hostname):
        faults.append(Fault("refused_url", "that address is not a public one", "url"))
    if faults:
        raise InvalidInputError(faults)
    return parts


def is_public(address: str) -> bool:
    """Say whether an address as `getaddrinfo` writes it belongs to the public internet."""
    try:
        found: _Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.is_global and not found.is_multicast and not any(found in network for network in _REFUSED)


async def resolve(host: str, port: int, policy: OutgoingPolicy) -> list[str]:
    """Return every address of a host; raises `RefusedAddressError` if one of them may not be reached, `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    if not policy.allow_private:
        refused = [address for address in addresses if not is_public(address)]
        if refused:
            raise RefusedAddressError("the name leads to an address that is not a public one")
    return addresses


class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """How the HTTP library reaches the network: by `resolve`, and to nothing else."""

    def __init__(self, policy: OutgoingPolicy) -> None:
        self._policy, self._plain = policy, httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of the host that answers."""
        try:
            addresses = await resolve(host, port, self._policy)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"the name is not known: {error}") from error
        failed: Exception = httpcore2.ConnectError("the name has no address")
        for address in addresses:
            try:
                return await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed


def _is_refused_literal(host: str) -> bool:
    """Say whether the host is an address in any form the system reads (`0x7f.1`), and not a public one."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return not all(is_public(str(sockaddr[0])) for *_, sockaddr in found)
