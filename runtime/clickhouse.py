"""Connections to ClickHouse over HTTP. Owns the settings every insert states explicitly.

ClickHouse moved the defaults of `async_insert` and of deduplication between releases, so each insert says what it
wants: written when answered, and no block deduplication (our tables replace by version; equal blocks are harmless,
while a token reused by mistake would swallow rows).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from typing import Any
from urllib.parse import unquote, urlsplit

import clickhouse_connect

from runtime.settings import Settings

INSERT_SETTINGS: dict[str, Any] = {"async_insert": 0, "insert_deduplicate": 0, "wait_end_of_query": 1}


def connection_arguments(settings: Settings) -> dict[str, Any]:
    """Return clickhouse-connect's arguments for the settings' ClickHouse URL."""
    parts = urlsplit(settings.clickhouse)
    secure = parts.scheme == "https"
    return {
        "host": parts.hostname,
        "port": parts.port or (8443 if secure else 8123),
        "username": unquote(parts.username or "default"),
        "password": unquote(parts.password or ""),
        "database": parts.path.strip("/") or "default",
        "secure": secure,
        "connect_timeout": 3,
        "send_receive_timeout": 60,
        # Sessions forbid concurrent queries on one client, and nothing here needs session state.
        "autogenerate_session_id": False,
    }


def connect_clickhouse(settings: Settings) -> Any:
    """Return a blocking clickhouse-connect client."""
    return clickhouse_connect.get_client(**connection_arguments(settings))


async def connect_clickhouse_async(settings: Settings, *, answer_seconds: int = 60) -> Any:
    """Return an asyncio clickhouse-connect client; a server that says nothing for `answer_seconds` is given up."""
    # Its first insert imports pandas, where that is installed: a second or more in which the loop would stand still.
    await asyncio.to_thread(_import_if_installed, "pandas")
    arguments = {**connection_arguments(settings), "send_receive_timeout": answer_seconds}
    return await clickhouse_connect.get_async_client(**arguments)


def _import_if_installed(module: str) -> None:
    with contextlib.suppress(ImportError):
        importlib.import_module(module)
