"""ClickHouse asked over plain HTTP, as curl does it."""

from __future__ import annotations

import http.client
from urllib.parse import urlencode, urlsplit

# More than one block of clickhouse-connect (65,409 rows) and more than one of ClickHouse's reads (65,536).
MANY = 70_000


def ask(
    url: str,
    method: str = "POST",
    path: str = "/",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    **arguments: str,
) -> tuple[int, dict[str, str], bytes]:
    """One plain HTTP request, as curl sends it."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    arguments.setdefault("database", "meterbook")
    connection.request(method, f"{path}?{urlencode(arguments)}", body=body, headers=headers or {})
    response = connection.getresponse()
    answered = response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    connection.close()
    return answered
