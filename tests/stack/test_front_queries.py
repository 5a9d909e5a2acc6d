"""Contract of ClickHouse's HTTP interface: queries, bound values, settings and sessions of clickhouse-connect."""

from __future__ import annotations

import json
import threading
from datetime import UTC, date, datetime
from decimal import Decimal

import clickhouse_connect
import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.external import ExternalData

from tests.stack.plain_http import MANY, ask

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("compression", [False, "lz4", "zstd", "gzip", "deflate", "br"])
def test_a_large_result_streams_in_every_compression(url: str, compression: bool | str) -> None:
    client = clickhouse_connect.get_client(dsn=url, compress=compression)
    with client.query_row_block_stream(f"SELECT number, toString(number) FROM numbers({10 * MANY})") as blocks:
        seen = total = 0
        for block in blocks:
            seen += len(block)
            total += sum(row[0] for row in block)
    assert (seen, total) == (10 * MANY, 10 * MANY * (10 * MANY - 1) // 2)
    client.close()


async def test_the_async_client_streams(async_client: AsyncClient) -> None:
    async with await async_client.query_row_block_stream(f"SELECT number FROM numbers({5 * MANY})") as blocks:
        assert sum([len(block) async for block in blocks]) == 5 * MANY


def test_values_are_bound_on_the_server(client: Client) -> None:
    awkward = "it's a \\ tab\tline\nquote\" and ü 漢 \x00 end"
    at = datetime(2026, 3, 29, 2, 30, 0, 125_000, tzinfo=UTC)
    result = client.query(
        "SELECT {text:String}, {count:UInt64} + 1, {amount:Decimal(38, 9)}, {at:DateTime64(6, 'UTC')},"
        " {tags:Array(String)}, {nothing:Nullable(String)}, {day:Date}",
        parameters={
            "text": awkward,
            "count": 2**63,
            "amount": Decimal("1234567890.000000001"),
            "at": at,
            "tags": ["a'b", "c,d"],
            "nothing": None,
            "day": date(2024, 2, 29),
        },
        tz_mode="aware",
    )
    assert result.first_row == (
        awkward,
        2**63 + 1,
        Decimal("1234567890.000000001"),
        at,
        ["a'b", "c,d"],
        None,
        date(2024, 2, 29),
    )


def test_values_are_bound_in_an_insert_and_in_a_form(url: str, client: Client, table: str) -> None:
    client.command(
        f"INSERT INTO {table} SELECT {{id:UInt64}}, {{note:String}}", parameters={"id": 7, "note": "it's \\ 7"}
    )
    client.command(f"INSERT INTO {table} VALUES ({{id:UInt64}}, {{note:String}})", parameters={"id": 8, "note": "'8'"})
    form = clickhouse_connect.get_client(dsn=url, form_encode_query_params=True)
    found = form.query(f"SELECT note FROM {table} WHERE id = {{id:UInt64}}", parameters={"id": 7})
    assert found.result_rows == [("it's \\ 7",)]
    assert client.query(f"SELECT note FROM {table} WHERE id = 8").result_rows == [("'8'",)]
    form.close()


def test_a_missing_value_is_refused(client: Client) -> None:
    with pytest.raises(DatabaseError, match="UNKNOWN_QUERY_PARAMETER") as refusal:
        client.query("SELECT {absent:UInt8}")
    assert refusal.value.code == 456


def test_settings_hold_for_one_query(client: Client) -> None:
    asked = "SELECT getSetting('max_block_size'), getSetting('max_threads')"
    before = client.query(asked).first_row
    assert client.query(asked, settings={"max_block_size": 777, "max_threads": 3}).first_row == (777, 3)
    assert client.query(asked).first_row == before


def test_settings_of_a_session_outlive_settings_of_one_query(url: str) -> None:
    client = clickhouse_connect.get_client(dsn=url, autogenerate_session_id=True)
    client.command("SET max_block_size = 1234")
    assert client.command("SELECT getSetting('max_block_size')", settings={"max_block_size": 99}) == 99
    assert client.command("SELECT getSetting('max_block_size')") == 1234
    client.close()


def test_a_session_keeps_its_temporary_table_and_others_do_not_see_it(url: str) -> None:
    one, other = (clickhouse_connect.get_client(dsn=url, autogenerate_session_id=True) for _ in range(2))
    one.command("CREATE TEMPORARY TABLE mine (id UInt8)")
    one.insert("mine", [[1], [2]], ["id"])
    assert one.command("SELECT sum(id) FROM mine") == 3
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
        other.command("SELECT * FROM mine")
    one.close()
    other.close()


def test_a_session_is_for_one_request_at_a_time(url: str) -> None:
    answers: list[int] = []

    def slow() -> None:
        answers.append(ask(url, query="SELECT sleep(1.5)", session_id="shared")[0])

    thread = threading.Thread(target=slow)
    thread.start()
    while b"sleep(1.5)" not in ask(url, query="SHOW PROCESSLIST")[2]:
        pass
    status, headers, _ = ask(url, query="SELECT 1", session_id="shared")
    thread.join()
    assert (status, headers["x-clickhouse-exception-code"]) == (500, "373")
    assert answers == [200]
    assert ask(url, query="SELECT 1", session_id="shared")[2] == b"1\n"


def test_a_session_that_must_exist_and_does_not_is_refused(url: str) -> None:
    _, headers, _ = ask(url, query="SELECT 1", session_id="never begun", session_check="1")
    assert headers["x-clickhouse-exception-code"] == "372"


def test_a_wrong_session_timeout_is_refused(url: str) -> None:
    for wrong in ("soon", "-1", "999999"):
        _, headers, _ = ask(url, query="SELECT 1", session_id="s", session_timeout=wrong)
        assert headers["x-clickhouse-exception-code"] == "374"


def test_an_unknown_setting_is_refused(url: str) -> None:
    status, headers, text = ask(url, query="SELECT 1", no_such_setting="1")
    assert (status, headers["x-clickhouse-exception-code"]) == (404, "115")
    assert b"no_such_setting" in text


def test_readonly_is_obeyed(url: str, client: Client, table: str) -> None:
    with pytest.raises(DatabaseError, match="READONLY"):
        client.command(f"INSERT INTO {table} SELECT 1, 'x'", settings={"readonly": 1})
    assert client.command(f"SELECT count() FROM {table}", settings={"readonly": 1}) == 0
    for readonly in ("1", "2"):
        assert ask(url, body=f"TRUNCATE TABLE {table}".encode(), readonly=readonly)[0] == 500
        assert ask(url, body=f"SELECT count() FROM {table}".encode(), readonly=readonly)[2] == b"0\n"


def test_the_database_of_a_request_is_its_own(url: str, client: Client) -> None:
    assert client.command("SELECT currentDatabase()") == "meterbook"
    assert ask(url, query="SELECT currentDatabase()", database="system")[2] == b"system\n"
    assert ask(url, query="SELECT 1", database="nowhere")[0] == 404
    header = {"X-ClickHouse-Database": "system"}
    assert ask(url, body=b"SELECT currentDatabase()", headers=header, database="")[2] == b"system\n"


def test_data_can_come_with_a_query(client: Client) -> None:
    people = ExternalData(data=b"1,ann\n2,bob\n", file_name="people.csv", fmt="CSV", structure="id UInt8, name String")
    result = client.query("SELECT name FROM people WHERE id = {id:UInt8}", parameters={"id": 2}, external_data=people)
    assert result.result_rows == [("bob",)]


def test_raw_formats_stream_as_one_well_formed_document(client: Client) -> None:
    rows = 3 * MANY
    document = json.loads(client.raw_query(f"SELECT number AS n FROM numbers({rows})", fmt="JSONCompact"))
    assert document["rows"] == len(document["data"]) == rows
    lines = client.raw_query(f"SELECT number AS n FROM numbers({rows})", fmt="CSVWithNames").splitlines()
    assert (lines[0], len(lines)) == (b'"n"', rows + 1)
    with client.raw_stream(f"SELECT number FROM numbers({rows})", fmt="TSV") as stream:
        assert stream.read().count(b"\n") == rows


def test_arrow_is_answered(client: Client) -> None:
    table = client.query_arrow("SELECT number AS n, toString(number) AS s FROM numbers(100000)")
    assert (table.num_rows, table.column("n")[99_999].as_py()) == (100_000, 99_999)


def test_statements_without_a_result_and_those_with_one_row(client: Client, table: str) -> None:
    assert client.command(f"EXISTS TABLE {table}") == 1
    assert "CREATE TABLE" in str(client.command(f"SHOW CREATE TABLE {table}"))
    assert client.query(f"DESCRIBE TABLE {table}").result_columns[0] == ["id", "note"]
    assert table in client.query("SHOW TABLES").result_columns[0]
    assert client.query("SELECT * FROM numbers(10) WHERE number > 99").result_rows == []
    assert client.query("SELECT 1 AS a LIMIT 0").column_names == ("a",)
    assert client.query("WITH x AS (SELECT 2 AS two) SELECT two FROM x -- the end").first_row == (2,)
    client.command(f"ALTER TABLE {table} ADD COLUMN extra UInt8 DEFAULT 3")
    client.command(f"INSERT INTO {table} (id, note) VALUES (1, 'a;b'), (2, 'FORMAT CSV')")
    assert client.query(f"SELECT note, extra FROM {table} ORDER BY id").result_rows == [("a;b", 3), ("FORMAT CSV", 3)]
