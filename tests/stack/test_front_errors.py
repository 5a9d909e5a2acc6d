"""Contract of ClickHouse's HTTP interface: errors have ClickHouse's codes, before the answer and in its middle."""

from __future__ import annotations

import http.client

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import StreamFailureError

from tests.stack.plain_http import ask

pytestmark = pytest.mark.integration


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
