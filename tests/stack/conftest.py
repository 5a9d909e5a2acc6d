"""Clients of the embedded ClickHouse over its HTTP interface, and a table for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import clickhouse_connect
import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client

from runtime.stack.state import StackState

_names = itertools.count()


@pytest.fixture
def url(stack: StackState) -> str:
    return stack.urls["clickhouse"]


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    made = clickhouse_connect.get_client(dsn=url)
    yield made
    made.close()


@pytest.fixture
async def async_client(url: str) -> AsyncIterator[AsyncClient]:
    made = await clickhouse_connect.get_async_client(dsn=url)
    yield made
    await made.close()


@pytest.fixture
def table(client: Client) -> Iterator[str]:
    name = f"front_{next(_names)}"
    client.command(f"DROP TABLE IF EXISTS {name}")
    client.command(f"CREATE TABLE {name} (id UInt64, note String) ENGINE = MergeTree ORDER BY id")
    yield name
    client.command(f"DROP TABLE {name}")
