"""Native blocks of newer protocol revisions: the rewriting is undone here by hand and must give the same values."""

from __future__ import annotations

from http.client import HTTPConnection
from urllib.parse import urlencode, urlsplit

import pytest

from runtime.stack.clickhouse.exceptions import ClickHouseError
from runtime.stack.clickhouse.native import NativeRewriter
from runtime.stack.state import StackState

REVISION = "54460"  # what clickhouse-go names
TYPES = [
    ("toUInt8(number)", "UInt8"),
    ("toInt256(number)", "Int256"),
    ("toString(number)", "String"),
    ("repeat('long ', number % 100)", "String"),
    ("toFixedString(toString(number % 10), 5)", "FixedString(5)"),
    ("if(number % 3 = 0, NULL, toString(number))", "Nullable(String)"),
    ("toDecimal128(number, 12)", "Decimal(38, 12)"),
    ("toDecimal32(number % 100, 2)", "Decimal(9, 2)"),
    ("toDateTime64(number, 3, 'UTC')", "DateTime64(3, 'UTC')"),
    ("toDate(number % 1000)", "Date"),
    ("generateUUIDv4()", "UUID"),
    ("CAST(toString(number % 300), 'LowCardinality(String)')", "LowCardinality(String)"),
    ("CAST(if(number % 5 = 0, NULL, 'x'), 'LowCardinality(Nullable(String))')", "LowCardinality(Nullable(String))"),
    ("range(number % 4)", "Array(UInt8)"),
    ("arrayMap(x -> [toString(x)], range(number % 3))", "Array(Array(String))"),
    ("CAST([toString(number)], 'Array(LowCardinality(String))')", "Array(LowCardinality(String))"),
    ("CAST((number, 'b'), 'Tuple(id UInt64, `my name` String)')", "Tuple(id UInt64, `my name` String)"),
    ("map('k', number)", "Map(String, UInt64)"),
    (
        "CAST(map('a', [number]), 'Map(LowCardinality(String), Array(UInt64))')",
        "Map(LowCardinality(String), Array(UInt64))",
    ),
    ("CAST('b,c', 'Enum8(\\'a\\' = 1, \\'b,c\\' = 2)')", "Enum8('a' = 1, 'b,c' = 2)"),
    ("emptyArrayString()", "Array(String)"),
    ("(1.5, 2.5)::Point", "Point"),
    ("[(1.5, 2.5)]::Ring", "Ring"),
]


ROWS = 1_000
BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"


def _ask(url: str, sql: str, **arguments: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request("POST", f"/?{urlencode(arguments)}", body=sql.encode())
    response = connection.getresponse()
    answered = response.status, response.read()
    connection.close()
    return answered


def _text(words: str) -> bytes:
    assert len(words) < 128
    return bytes([len(words)]) + words.encode()


def _query(expression: str, rows: int = ROWS) -> str:
    return f"SELECT {expression} AS first, 7::UInt8 AS last FROM numbers({rows}) FORMAT Native"


def _expected(plain: bytes, type_name: str) -> bytes:
    """The newer form of one block of two columns, cut by what is known of it from both ends, not by walking."""
    first = _text("first") + _text(type_name)
    last = _text("last") + _text("UInt8")
    begin = plain.index(first)
    rows = plain[begin - 1] if begin == 2 else int.from_bytes(plain[1:begin], "little") & 0x7F | (plain[2] << 7)
    end = len(plain) - rows - len(last)
    assert plain[end : end + len(last)] == last
    values = plain[begin + len(first) : end]
    return BLOCK_INFO + plain[:begin] + first + b"\0" + values + last + b"\0" + b"\x07" * rows


@pytest.mark.integration
@pytest.mark.parametrize(("expression", "type_name"), TYPES)
def test_every_type_is_rewritten(stack: StackState, expression: str, type_name: str) -> None:
    url = stack.urls["clickhouse"]
    _, plain = _ask(url, _query(expression))
    rewriter = NativeRewriter()
    assert rewriter.feed(plain) + rewriter.finish() == _expected(plain, type_name)
    if "generateUUIDv4" not in expression:
        assert _ask(url, _query(expression), client_protocol_version=REVISION) == (200, _expected(plain, type_name))


@pytest.mark.integration
@pytest.mark.parametrize("piece", [1, 7, 1_000, 1_000_000])
def test_blocks_are_told_apart_in_pieces_of_any_size(stack: StackState, piece: int) -> None:
    url = stack.urls["clickhouse"]
    bodies = [(_ask(url, _query(expression, 20))[1], type_name) for expression, type_name in TYPES]
    stream = b"".join(plain for plain, _ in bodies)
    rewriter = NativeRewriter()
    done = b"".join(rewriter.feed(stream[place : place + piece]) for place in range(0, len(stream), piece))
    assert done + rewriter.finish() == b"".join(_expected(plain, type_name) for plain, type_name in bodies)


@pytest.mark.integration
def test_a_large_answer_streams_in_the_newer_form(stack: StackState) -> None:
    sql = "SELECT toString(number) AS text, number FROM numbers(500000) FORMAT Native"
    status, newer = _ask(stack.urls["clickhouse"], sql, client_protocol_version=REVISION)
    _, plain = _ask(stack.urls["clickhouse"], sql)
    blocks = newer.count(BLOCK_INFO)
    assert status == 200
    assert blocks > 3
    assert len(newer) == len(plain) + blocks * (len(BLOCK_INFO) + 2)


@pytest.mark.integration
def test_a_type_that_cannot_be_walked_over_is_refused_not_garbled(stack: StackState) -> None:
    sql = _query("sumState(number)").replace("numbers", "numbers_mt")
    status, body = _ask(stack.urls["clickhouse"], sql, client_protocol_version=REVISION)
    assert status == 501
    assert body.startswith(b"Code: 48. DB::Exception: Native blocks of a newer protocol revision with type Aggregate")


@pytest.mark.integration
def test_an_older_revision_and_other_formats_are_left_alone(stack: StackState) -> None:
    url = stack.urls["clickhouse"]
    assert _ask(url, _query("number"), client_protocol_version="54405") == _ask(url, _query("number"))
    assert _ask(url, "SELECT 1", client_protocol_version=REVISION)[1] == b"1\n"


def test_a_stream_that_ends_inside_a_block_is_told() -> None:
    rewriter = NativeRewriter()
    assert rewriter.feed(b"\x01\x05" + _text("a") + _text("UInt64") + b"12345678") == b""
    with pytest.raises(ClickHouseError, match="cannot be told apart"):
        rewriter.finish()


def test_a_block_without_rows_has_only_a_head() -> None:
    rewriter = NativeRewriter()
    head = b"\x01\x00" + _text("a") + _text("LowCardinality(String)")
    assert rewriter.feed(head) + rewriter.finish() == BLOCK_INFO + head + b"\0"
