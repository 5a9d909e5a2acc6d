"""Contract of ClickHouse's HTTP interface: what clickhouse-connect inserts is stored whole, or refused."""

from __future__ import annotations

import gzip
import zlib
from datetime import UTC, date, datetime
from decimal import Decimal

import clickhouse_connect
import lz4.frame
import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client

from tests.stack.plain_http import MANY, ask

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("compression", [False, "lz4", "zstd", "gzip", "br"])
def test_an_insert_past_one_block_is_stored_whole_in_every_compression(
    url: str, table: str, compression: bool | str
) -> None:
    client = clickhouse_connect.get_client(dsn=url, compress=compression)
    summary = client.insert(table, [[number, f"note {number:06}"] for number in range(MANY)], ["id", "note"])
    assert summary.written_rows == MANY
    stored = client.query(f"SELECT count(), sum(id), uniqExact(note), max(note) FROM {table}").first_row
    assert stored == (MANY, MANY * (MANY - 1) // 2, MANY, f"note {MANY - 1:06}")
    client.close()


async def test_the_async_client_inserts_past_one_block(async_client: AsyncClient, table: str) -> None:
    await async_client.insert(table, [[number, "x"] for number in range(MANY)], ["id", "note"])
    result = await async_client.query(f"SELECT count(), sum(id) FROM {table}")
    assert result.first_row == (MANY, MANY * (MANY - 1) // 2)


def test_one_insert_makes_one_part(client: Client, table: str) -> None:
    client.insert(table, [[number, "x"] for number in range(MANY)], ["id", "note"])
    assert client.command(f"SELECT uniqExact(_part) FROM {table}") == 1


@pytest.mark.parametrize("encoding", ["lz4", "gzip", "deflate", "zstd"])
def test_a_body_of_several_frames_is_read_to_its_end(url: str, client: Client, table: str, encoding: str) -> None:
    from backports import zstd

    compress = {"lz4": lz4.frame.compress, "gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}
    rows = [f"{number}\tx\n".encode() for number in range(3)]
    status, _, _ = ask(
        url,
        query=f"INSERT INTO {table} FORMAT TSV",
        body=b"".join(compress[encoding](row) for row in rows),
        headers={"Content-Encoding": encoding},
    )
    assert status == 200
    assert client.query(f"SELECT id FROM {table} ORDER BY id").result_columns == [[0, 1, 2]]


def test_a_body_that_ends_inside_a_frame_is_refused_and_nothing_is_stored(url: str, client: Client, table: str) -> None:
    body = lz4.frame.compress(b"1\tx\n" * 1000)[:-10]
    status, headers, text = ask(
        url, query=f"INSERT INTO {table} FORMAT TSV", body=body, headers={"Content-Encoding": "lz4"}
    )
    assert (status, headers["x-clickhouse-exception-code"]) == (500, "33")
    assert b"ends inside a frame" in text
    assert client.command(f"SELECT count() FROM {table}") == 0


def test_a_body_that_is_not_its_encoding_is_refused(url: str, table: str) -> None:
    status, headers, _ = ask(
        url, query=f"INSERT INTO {table} FORMAT TSV", body=b"1\tplain text\n", headers={"Content-Encoding": "lz4"}
    )
    assert (status, headers["x-clickhouse-exception-code"]) == (500, "618")


def test_an_unknown_encoding_is_refused(url: str, table: str) -> None:
    status, headers, _ = ask(
        url, query=f"INSERT INTO {table} FORMAT TSV", body=b"1\tx\n", headers={"Content-Encoding": "sdch"}
    )
    assert (status, headers["x-clickhouse-exception-code"]) == (415, "779")


def test_exact_types_come_back_as_they_went(client: Client) -> None:
    client.command("DROP TABLE IF EXISTS front_types")
    client.command(
        "CREATE TABLE front_types (d Decimal(38, 12), n Nullable(Int64), a Array(String), m Map(String, UInt8),"
        " t DateTime64(6, 'UTC'), day Date, l LowCardinality(String), u UInt256, f FixedString(3))"
        " ENGINE = MergeTree ORDER BY day"
    )
    row = [
        Decimal("12345678901234567890123456.123456789012"),
        None,
        ["it's", 'a "tab\t"', ""],
        {"k": 1},
        datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC),
        date(2026, 2, 28),
        "low",
        2**200,
        b"abc",
    ]
    client.insert("front_types", [row])
    assert list(client.query("SELECT * FROM front_types", tz_mode="aware").first_row) == row
    client.command("DROP TABLE front_types")


def test_a_token_makes_a_repeated_insert_count_once(client: Client) -> None:
    client.command("DROP TABLE IF EXISTS front_tokens")
    client.command(
        "CREATE TABLE front_tokens (id UInt64) ENGINE = MergeTree ORDER BY id"
        " SETTINGS non_replicated_deduplication_window = 100"
    )
    for token, rows in (("a", [[1]]), ("a", [[1]]), ("b", [[1]])):
        client.insert("front_tokens", rows, ["id"], settings={"insert_deduplication_token": token})
    assert client.command("SELECT count() FROM front_tokens") == 2
    client.command("DROP TABLE front_tokens")


def test_an_async_insert_is_there_when_it_is_answered(client: Client, table: str) -> None:
    client.insert(table, [[1, "x"]], ["id", "note"], settings={"async_insert": 1, "wait_for_async_insert": 1})
    assert client.command(f"SELECT count() FROM {table}") == 1


def test_bad_data_is_refused_with_its_code_and_stores_nothing(url: str, client: Client, table: str) -> None:
    status, headers, text = ask(url, query=f"INSERT INTO {table} FORMAT CSV", body=b"1,x\nnot a number,y\n")
    assert status == 400
    assert headers["x-clickhouse-exception-code"] in ("27", "72", "117")
    assert text.startswith(b"Code: ")
    assert client.command(f"SELECT count() FROM {table}") == 0
