"""Contract of ClickHouse's HTTP interface: many at once, and clients that leave."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client

from tests.stack.plain_http import ask

pytestmark = pytest.mark.integration


async def test_readers_and_writers_at_once(async_client: AsyncClient, table: str) -> None:
    async def write(writer: int) -> None:
        for batch in range(5):
            rows = [[writer * 1000 + batch * 10 + number, "x"] for number in range(10)]
            await async_client.insert(table, rows, ["id", "note"])

    async def read() -> None:
        for _ in range(10):
            count, distinct = (await async_client.query(f"SELECT count(), uniqExact(id) FROM {table}")).first_row
            assert count == distinct

    await asyncio.gather(*(write(writer) for writer in range(8)), *(read() for _ in range(8)))
    assert (await async_client.query(f"SELECT uniqExact(id) FROM {table}")).first_row == (400,)


@contextmanager
def asking(url: str, query: str) -> Iterator[socket.socket]:
    """Ask over a connection of one's own, and hang up at the end."""
    parts, sql = urlsplit(url), query.encode()
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(sql), sql))
        yield connection


def test_a_client_that_hangs_up_while_reading_stops_its_query(url: str, client: Client) -> None:
    marker = "hangs up while reading"
    with asking(url, f"SELECT number, '{marker}' FROM numbers(100000000000)") as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert _running(client, marker) == 1
    while _running(client, marker):  # bounded by the test's own timeout
        pass
    assert client.command("SELECT 1") == 1


def test_a_client_that_hangs_up_before_the_first_row_stops_its_query(url: str, client: Client) -> None:
    marker = "hangs up before the first row"
    with asking(url, f"SELECT sleepEachRow(1), '{marker}' FROM numbers(1000) SETTINGS max_block_size = 1"):
        while not _running(client, marker):
            pass
    while _running(client, marker):
        pass
    assert client.command("SELECT 1") == 1


def test_a_client_that_hangs_up_while_inserting_stores_nothing(url: str, client: Client, table: str) -> None:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
        head = f"POST /?database=meterbook&query=INSERT+INTO+{table}+FORMAT+CSV HTTP/1.1\r\nHost: x\r\n"
        rows = b"1,x\n" * 100_000
        connection.sendall(head.encode() + b"Content-Length: 10000000\r\n\r\n" + rows)
    client.insert(table, [[2, "after"]], ["id", "note"])
    assert client.query(f"SELECT id FROM {table}").result_rows == [(2,)]


def test_slow_readers_do_not_hold_up_others(url: str, client: Client) -> None:
    parts = urlsplit(url)
    sql = b"SELECT number, toString(number) FROM numbers(100000000000)"
    stalled = []
    for _ in range(20):
        connection = socket.create_connection((parts.hostname or "", parts.port or 0))
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(sql), sql))
        stalled.append(connection)
    for connection in stalled:
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    assert client.command("SELECT count() FROM numbers(1000)") == 1000
    for connection in stalled:
        connection.close()
    while _running(client, "numbers(100000000000)"):
        pass


def test_too_many_at_once_are_refused_with_clickhouses_code(url: str, client: Client) -> None:
    parts = urlsplit(url)
    marker = "one of too many"
    sql = f"SELECT sleepEachRow(1), '{marker}' FROM numbers(1000) SETTINGS max_block_size = 1".encode()
    waiting = []
    for _ in range(100):
        connection = socket.create_connection((parts.hostname or "", parts.port or 0))
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(sql), sql))
        waiting.append(connection)
    codes: set[Any] = set()
    while "202" not in codes:  # bounded by the test's own timeout
        codes.add(ask(url, body=b"SELECT 1")[1].get("x-clickhouse-exception-code"))
    for connection in waiting:
        connection.close()
    while ask(url, body=b"SELECT 1")[0] != 200 or _running(client, marker):
        pass
    assert client.command("SELECT 1") == 1


def _running(client: Client, marker: str) -> int:
    """How many queries with this text are running, the one that asks not counted."""
    found = client.query(
        "SELECT count() FROM system.processes WHERE position(query, {marker:String}) > 0 AND query_id != queryID()",
        parameters={"marker": marker},
    )
    return int(found.first_row[0])
