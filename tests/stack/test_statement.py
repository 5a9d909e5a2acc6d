"""The statement reader: what a request's SQL is, and where its output clauses and its data begin."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.stack.clickhouse.exceptions import ClickHouseError
from runtime.stack.clickhouse.statement import Kind, parse_statement, takes_data


@pytest.mark.parametrize(
    ("text", "head", "tail", "format_name"),
    [
        (b"SELECT 1", b"SELECT 1", b"", ""),
        (b"select 1 format JSON", b"select 1 ", b"format JSON", "JSON"),
        (b"SELECT 1 FORMAT CSV SETTINGS a=1", b"SELECT 1 ", b"FORMAT CSV SETTINGS a=1", "CSV"),
        (b"SELECT 1 SETTINGS a=1 FORMAT CSV ;; ", b"SELECT 1 SETTINGS a=1 ", b"FORMAT CSV", "CSV"),
        (b"SELECT 1 -- FORMAT CSV", b"SELECT 1", b"", ""),
        (b"SELECT 1 /* ; */ # FORMAT CSV\n", b"SELECT 1", b"", ""),
        (b"SELECT ' FORMAT CSV', \"a;b\", `c'd`", b"SELECT ' FORMAT CSV', \"a;b\", `c'd`", b"", ""),
        (b"SELECT 'it''s \\' ;'", b"SELECT 'it''s \\' ;'", b"", ""),
        (b"SELECT format('{}', 1)", b"SELECT format('{}', 1)", b"", ""),
        (b"SELECT a, format FROM t", b"SELECT a, format FROM t", b"", ""),
        (b"SELECT * FROM (SELECT 1 AS format) x", b"SELECT * FROM (SELECT 1 AS format) x", b"", ""),
        (b"SELECT $$ FORMAT ' CSV; $$", b"SELECT $$ FORMAT ' CSV; $$", b"", ""),
        (b"(SELECT 1) UNION ALL (SELECT 2) FORMAT TSV", b"(SELECT 1) UNION ALL (SELECT 2) ", b"FORMAT TSV", "TSV"),
        (b"/* first */ SHOW TABLES", b"/* first */ SHOW TABLES", b"", ""),
    ],
)
def test_a_result_is_cut_where_its_output_clauses_begin(
    text: bytes, head: bytes, tail: bytes, format_name: str
) -> None:
    statement = parse_statement(text)
    assert (statement.kind, statement.head, statement.tail, statement.format_name) == (
        Kind.RESULT,
        head,
        tail,
        format_name,
    )


@pytest.mark.parametrize(
    ("text", "head", "format_name", "data"),
    [
        (b"INSERT INTO t VALUES (1)", b"INSERT INTO t ", "Values", b" (1)"),
        (b"insert into t (a) format CSV\n1\n2\n", b"insert into t (a) ", "CSV", b"1\n2\n"),
        (b"INSERT INTO t FORMAT CSV 1\n", b"INSERT INTO t ", "CSV", b"1\n"),
        (b"INSERT INTO t FORMAT Native\n\x00\xff\n;", b"INSERT INTO t ", "Native", b"\x00\xff\n;"),
        (b"INSERT INTO t SETTINGS a=1 FORMAT TSV\n\n", b"INSERT INTO t SETTINGS a=1 ", "TSV", b"\n"),
        (b"INSERT INTO values VALUES (1)", b"INSERT INTO values ", "Values", b" (1)"),
        (b"INSERT INTO d.values (format) VALUES (';')", b"INSERT INTO d.values (format) ", "Values", b" (';')"),
        (b"INSERT INTO `FORMAT x` VALUES (1)", b"INSERT INTO `FORMAT x` ", "Values", b" (1)"),
        (b"INSERT INTO t FORMAT Values", b"INSERT INTO t ", "Values", b""),
        (b"INSERT INTO t (a)", b"INSERT INTO t (a)", "Values", b""),
    ],
)
def test_an_insert_is_cut_where_its_data_begins(text: bytes, head: bytes, format_name: str, data: bytes) -> None:
    statement = parse_statement(text)
    assert (statement.kind, statement.head, statement.format_name, statement.data) == (
        Kind.INSERT,
        head,
        format_name,
        data,
    )


@pytest.mark.parametrize(
    ("text", "first_word"),
    [
        (b"CREATE TABLE t (a UInt8) ENGINE = Memory;", b"CREATE"),
        (b"INSERT INTO t SELECT 1", b"INSERT"),
        (b"INSERT INTO t WITH 1 AS a SELECT a", b"INSERT"),
        (b"SET a = 1", b"SET"),
        (b"WITH 1 AS a INSERT INTO t SELECT a", b"WITH"),
    ],
)
def test_other_statements_are_left_alone(text: bytes, first_word: bytes) -> None:
    statement = parse_statement(text)
    assert (statement.kind, statement.first_word) == (Kind.OTHER, first_word)
    assert statement.head == text.rstrip(b";")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", 62),
        (b" ; -- nothing", 62),
        (b"SELECT 1; SELECT 2", 62),
        (b"DROP TABLE a; DROP TABLE b", 62),
        (b"SELECT 1 INTO OUTFILE 'x'", 358),
        (b"INSERT INTO t SELECT a FROM input('a UInt8') FORMAT CSV\n1", 48),
    ],
)
def test_what_is_refused(text: bytes, code: int) -> None:
    with pytest.raises(ClickHouseError) as refusal:
        parse_statement(text)
    assert refusal.value.code == code


def test_an_insert_is_recognised_before_all_of_it_is_there() -> None:
    text = b"INSERT INTO t (a, b) FORMAT CSVWithNames\na,b\n1,2\n"
    recognised = [place for place in range(len(text)) if takes_data(text[:place])]
    assert recognised[0] == text.index(b"\n") + 1
    assert [place for place in range(len(text)) if takes_data(text[:place].replace(b"\n", b" \n"))] == recognised
    assert not takes_data(b"SELECT 1 FORMAT CSV\n")


@pytest.mark.parametrize(
    ("text", "reads_only"),
    [
        (b"SELECT 1", True),
        (b"WITH 1 AS a SELECT a", True),
        (b"SHOW TABLES", True),
        (b"KILL QUERY WHERE 1", False),
        (b"DROP TABLE t", False),
        (b"INSERT INTO t VALUES (1)", False),
        (b"ALTER TABLE t DELETE WHERE 1", False),
    ],
)
def test_what_a_get_may_run(text: bytes, reads_only: bool) -> None:
    assert parse_statement(text).reads_only is reads_only


@given(st.binary(max_size=200))
def test_any_bytes_are_told_or_refused_and_nothing_of_an_insert_is_lost(text: bytes) -> None:
    sql = b"INSERT INTO t FORMAT RowBinary\n" + text
    assert parse_statement(sql).data == text
    with contextlib.suppress(ClickHouseError):
        assert text.startswith(parse_statement(text).head)
