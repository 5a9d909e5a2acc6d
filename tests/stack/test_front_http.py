"""Contract of ClickHouse's HTTP interface: what curl and Grafana do ordinarily must work."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import pytest
from clickhouse_connect.driver.client import Client

from tests.stack.plain_http import ask

pytestmark = pytest.mark.integration


def test_ping_and_the_empty_request(url: str) -> None:
    for path in ("/ping", "/replicas_status", "/"):
        status, _, body = ask(url, "GET", path)
        assert (status, body) == (200, b"Ok.\n")
    assert ask(url, "GET", "/nowhere")[0] == 404
    assert ask(url, "DELETE", query="SELECT 1")[0] == 501


def test_headers_of_an_answer(url: str) -> None:
    _, headers, body = ask(url, query="SELECT 1 AS a FORMAT JSON", query_id="my-own-id")
    assert headers["x-clickhouse-query-id"] == "my-own-id"
    assert headers["x-clickhouse-format"] == "JSON"
    assert headers["x-clickhouse-timezone"] == "UTC"
    assert headers["x-clickhouse-server-display-name"]
    assert headers["content-type"] == "application/json; charset=UTF-8"
    assert json.loads(headers["x-clickhouse-summary"])["result_rows"] == "1"
    assert json.loads(body)["data"] == [{"a": 1}]


def test_the_summary_of_an_insert_counts_its_rows(url: str, table: str) -> None:
    _, headers, _ = ask(url, body=f"INSERT INTO {table} VALUES (1, 'a'), (2, 'b')".encode())
    assert json.loads(headers["x-clickhouse-summary"])["written_rows"] == "2"


def test_the_format_can_be_a_parameter_or_a_header(url: str) -> None:
    sql = b"SELECT 1 AS a, 'x' AS b"
    assert ask(url, body=sql)[2] == b"1\tx\n"
    assert ask(url, body=sql, default_format="CSVWithNames")[2] == b'"a","b"\n1,"x"\n'
    assert ask(url, body=sql, headers={"X-ClickHouse-Format": "CSV"})[2] == b'1,"x"\n'
    assert ask(url, body=sql + b" FORMAT JSONEachRow;", default_format="CSV")[2] == b'{"a":1,"b":"x"}\n'


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", b"INSERT INTO {} VALUES (1,'a'),(2,'b')"),
        ("INSERT INTO {} VALUES", b"(1,'a'),(2,'b')"),
        ("INSERT INTO {} FORMAT CSV", b"1,a\n2,b\n"),
        ("", b"INSERT INTO {} (id, note) FORMAT CSV\n1,a\n2,b\n"),
        ("", b'/* c */ insert into {} (note, id) settings max_threads=1 format JSONEachRow {"id":1}\n{"id":2}'),
        ("INSERT INTO {} SELECT number + 1, 'x' FROM numbers(2)", b""),
        ("", b"INSERT INTO {} WITH 1 AS one SELECT number + one, 'x' FROM numbers(2)"),
    ],
)
def test_the_ways_to_write_an_insert(url: str, client: Client, table: str, query: str, body: bytes) -> None:
    status, _, text = ask(url, query=query.format(table), body=body.replace(b"{}", table.encode(), 1))
    assert (status, text) == (200, b"")
    assert client.query(f"SELECT id FROM {table} ORDER BY id").result_columns == [[1, 2]]


def test_an_insert_through_the_input_function_is_refused_not_lost(url: str, client: Client, table: str) -> None:
    sql = f"INSERT INTO {table} SELECT id, 'x' FROM input('id UInt64') FORMAT CSV"
    status, headers, _ = ask(url, query=sql, body=b"1\n2\n")
    assert (status, headers["x-clickhouse-exception-code"]) == (501, "48")
    assert client.command(f"SELECT count() FROM {table}") == 0


def test_a_get_reads_and_does_not_write(url: str, client: Client, table: str) -> None:
    assert ask(url, "GET", query="SELECT 40 + 2")[2] == b"42\n"
    for sql in (f"INSERT INTO {table} VALUES (1, 'x')", f"DROP TABLE {table}", f"TRUNCATE TABLE {table}"):
        status, headers, _ = ask(url, "GET", query=sql)
        assert (status, headers["x-clickhouse-exception-code"]) == (500, "164")
    assert client.command(f"EXISTS TABLE {table}") == 1


def test_a_chunked_body_of_one_byte_pieces(url: str, client: Client, table: str) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    text = f"INSERT INTO {table} FORMAT CSV\n1,a\n2,b\n".encode()
    pieces = (text[place : place + 1] for place in range(len(text)))
    connection.request("POST", "/?database=meterbook", body=pieces, encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()
    assert client.command(f"SELECT count() FROM {table}") == 2


def test_the_user_is_default_without_a_password(url: str) -> None:
    assert ask(url, body=b"SELECT 1", headers={"X-ClickHouse-User": "default", "X-ClickHouse-Key": ""})[0] == 200
    status, headers, text = ask(url, body=b"SELECT 1", headers={"X-ClickHouse-User": "mallory"})
    assert (status, headers["x-clickhouse-exception-code"]) == (403, "516")
    assert b"Authentication failed" in text
    assert ask(url, body=b"SELECT 1", user="default", password="wrong")[0] == 403


def test_clickhouses_own_block_compression_is_refused_not_ignored(url: str) -> None:
    status, headers, _ = ask(url, body=b"SELECT 1", compress="1")
    assert (status, headers["x-clickhouse-exception-code"]) == (501, "48")
