"""Contract of ClickHouse's HTTP interface: what clickhouse-connect, curl and Grafana do ordinarily must work."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import itertools
import json
import socket
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode, urlsplit

import clickhouse_connect
import lz4.frame
import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError
from clickhouse_connect.driver.external import ExternalData

from runtime.stack.state import StackState

pytestmark = pytest.mark.integration

# More than one block of clickhouse-connect (65,409 rows) and more than one of ClickHouse's reads (65,536).
MANY = 70_000
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


# --- clickhouse-connect: inserts ---------------------------------------------------------------------------------


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


# --- clickhouse-connect: queries ---------------------------------------------------------------------------------


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


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "code", "name", "status"),
    [
        ("SELECT * FROM nowhere", 60, "UNKNOWN_TABLE", 404),
        ("SELEC 1", 62, "SYNTAX_ERROR", 400),
        ("SELECT 1; SELECT 2", 62, "SYNTAX_ERROR", 400),
        ("", 62, "SYNTAX_ERROR", 400),
        ("SELECT no_such_column FROM numbers(1)", 47, "UNKNOWN_IDENTIFIER", 404),
        ("SELECT no_such_function(1)", 46, "UNKNOWN_FUNCTION", 404),
        ("SELECT 1 FORMAT Nonsense", 73, "UNKNOWN_FORMAT", 404),
        ("SELECT toUInt8('x')", 6, "CANNOT_PARSE_TEXT", 400),
        ("SELECT throwIf(number = 3) FROM numbers(10)", 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO", 500),
        ("SELECT sleep(3) SETTINGS max_execution_time = 1", 159, "TIMEOUT_EXCEEDED", 408),
        ("SELECT 1 INTO OUTFILE 'x'", 358, "INTO_OUTFILE_NOT_ALLOWED", 500),
        ("INSERT INTO nowhere VALUES (1)", 60, "UNKNOWN_TABLE", 404),
        ("DROP TABLE nowhere", 60, "UNKNOWN_TABLE", 404),
        ("CREATE TABLE system.one (a UInt8) ENGINE = Memory", 57, "TABLE_ALREADY_EXISTS", 500),
    ],
)
def test_errors_have_clickhouses_codes_names_and_statuses(
    url: str, sql: str, code: int, name: str, status: int
) -> None:
    answered, headers, text = ask(url, body=sql.encode())
    assert (answered, headers["x-clickhouse-exception-code"]) == (status, str(code))
    assert text.startswith(f"Code: {code}. DB::Exception: ".encode())
    assert f"({name})".encode() in text
    assert text.rstrip().endswith(b")")
    assert b"(version " in text


def test_a_failure_in_the_middle_reaches_the_client_with_its_message(client: Client) -> None:
    failing = "SELECT throwIf(number = 9000000), number FROM numbers(10000000) SETTINGS max_block_size = 65536"
    with (
        pytest.raises(StreamFailureError, match="Value passed to 'throwIf' function is non-zero"),
        client.query_row_block_stream(failing) as blocks,
    ):
        for _ in blocks:
            pass
    assert client.command("SELECT 1") == 1


async def test_a_failure_in_the_middle_reaches_the_async_client(async_client: AsyncClient) -> None:
    failing = "SELECT throwIf(number = 9000000), number FROM numbers(10000000) SETTINGS max_block_size = 65536"

    async def read_all() -> None:
        async with await async_client.query_row_block_stream(failing) as blocks:
            async for _ in blocks:
                pass

    with pytest.raises(StreamFailureError):
        await read_all()
    assert await async_client.command("SELECT 1") == 1


def test_a_failure_in_the_middle_breaks_the_answer_off(url: str) -> None:
    sql = b"SELECT throwIf(number = 9000000), number FROM numbers(10000000) SETTINGS max_block_size = 65536"
    with pytest.raises(http.client.IncompleteRead) as broken:
        ask(url, body=sql)
    received = b"".join(broken.value.args[0]) if isinstance(broken.value.args[0], list) else broken.value.args[0]
    assert b"__exception__\r\n" in received
    assert b"Code: 395. DB::Exception" in received


def test_waiting_for_the_end_turns_a_late_failure_into_a_status(url: str) -> None:
    sql = b"SELECT throwIf(number = 9000000), number FROM numbers(10000000) SETTINGS max_block_size = 65536"
    status, headers, text = ask(url, body=sql, wait_end_of_query="1")
    assert (status, headers["x-clickhouse-exception-code"]) == (500, "395")
    assert text.startswith(b"Code: 395. ")


# --- plain HTTP --------------------------------------------------------------------------------------------------


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


# --- many at once, and clients that leave ------------------------------------------------------------------------


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


def test_a_client_that_hangs_up_while_reading_stops_its_query(url: str, client: Client) -> None:
    parts = urlsplit(url)
    marker = "hangs up while reading"
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
        sql = f"SELECT number, '{marker}' FROM numbers(100000000000)".encode()
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(sql), sql))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert _running(client, marker) == 1
    while _running(client, marker):  # bounded by the test's own timeout
        pass
    assert client.command("SELECT 1") == 1


def test_a_client_that_hangs_up_before_the_first_row_stops_its_query(url: str, client: Client) -> None:
    parts = urlsplit(url)
    marker = "hangs up before the first row"
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
        sql = f"SELECT sleepEachRow(1), '{marker}' FROM numbers(1000) SETTINGS max_block_size = 1".encode()
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(sql), sql))
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
