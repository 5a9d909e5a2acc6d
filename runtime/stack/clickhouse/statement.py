"""What a request's SQL text is. Owns telling queries with a result from inserts with data, and where clauses go.

Only as much of the language as that needs: words, brackets, strings and comments. Whether the text is valid SQL is
for the engine to say.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from runtime.stack.clickhouse.exceptions import (
    INTO_OUTFILE_NOT_ALLOWED,
    NOT_IMPLEMENTED,
    SYNTAX_ERROR,
    ClickHouseError,
)

_TOKEN = re.compile(
    rb"""
    (?P<space>\s+ | --[^\n]* | \#[ !][^\n]* | /\*.*?(?:\*/|\Z))
  | (?P<string>'(?:[^'\\]|\\.|'')*(?:'|\Z) | "(?:[^"\\]|\\.|"")*(?:"|\Z) | `(?:[^`\\]|\\.|``)*(?:`|\Z)
      | \$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z))
  | (?P<word>[A-Za-z_][\w$]*)
  | (?P<number>[0-9][\w.]*)
  | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
# What may stand between a format's name and the end of its line.
_BLANKS = b" \t\r;"
_OPENING, _CLOSING = b"([{", b")]}"
# Statements whose result set a client reads; the others answer with nothing or one short block.
_RESULT_WORDS = frozenset(
    {b"SELECT", b"WITH", b"FROM", b"SHOW", b"DESC", b"DESCRIBE", b"EXISTS", b"EXPLAIN", b"CHECK", b"KILL"}
)
_READING_WORDS = _RESULT_WORDS - {b"KILL"} | {b"SET", b"USE"}


class Kind(Enum):
    """What is to be done with a statement."""

    RESULT = "has a result set"
    INSERT = "takes data that follows the statement"
    OTHER = "is executed as it stands"


@dataclass(frozen=True, slots=True)
class Statement:
    """A request's SQL.

    For an insert `head` is the statement without its FORMAT clause, `format_name` the format of the data, and `data`
    what already followed. For a result `head` and `tail` are the text before and from the place where output
    clauses belong, and `format_name` the format the text itself asks for ("" when it does not).
    """

    kind: Kind
    first_word: bytes
    head: bytes
    tail: bytes = b""
    format_name: str = ""
    data: bytes = b""

    @property
    def reads_only(self) -> bool:
        """Whether a GET request may run it."""
        return self.kind is not Kind.INSERT and self.first_word in _READING_WORDS


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: bytes
    start: int
    end: int
    depth: int

    @property
    def word(self) -> bytes:
        return self.text.upper() if self.kind == "word" else b""


def takes_data(text: bytes) -> bool:
    """Whether the text begins an insert and what follows it is data, so that it need not be read as a whole first."""
    first = next(_tokens(text), None)
    return first is not None and first.word == b"INSERT" and _parse_insert(text) is not None


def parse_statement(text: bytes, default_insert_format: str = "Values") -> Statement:
    """Tell what the text is; raises `ClickHouseError` for two statements in one, and for INTO OUTFILE."""
    tokens: list[_Token] = []
    for token in _tokens(text):
        if not tokens and token.word == b"INSERT":
            return _parse_insert(text) or _insert_without_format(text, default_insert_format)
        tokens.append(token)
    while tokens and tokens[-1].text == b";":
        tokens.pop()
    if not tokens:
        raise ClickHouseError(SYNTAX_ERROR, "Syntax error: failed at position 1 (end of query): Empty query")
    for token in tokens:
        if token.text == b";":
            raise ClickHouseError(
                SYNTAX_ERROR, f"Syntax error (Multi-statements are not allowed): failed at position {token.start + 1}"
            )
    first = next((token.word for token in tokens if token.text != b"("), b"")
    whole = text[: tokens[-1].end]
    top = [token for token in tokens if token.depth == 0]
    if first not in _RESULT_WORDS or (first == b"WITH" and any(token.word == b"INSERT" for token in top)):
        return Statement(Kind.OTHER, first, whole)
    if any(one.word == b"INTO" and two.word == b"OUTFILE" for one, two in itertools.pairwise(top)):
        raise ClickHouseError(INTO_OUTFILE_NOT_ALLOWED, "INTO OUTFILE is not allowed")
    place, format_name = _output_place(top, len(whole))
    return Statement(Kind.RESULT, first, whole[:place], whole[place:], format_name)


def _output_place(top: list[_Token], end: int) -> tuple[int, str]:
    """Where the output clauses begin (a FORMAT clause, or the end), and the format that is asked for."""
    for index in range(len(top) - 2, 0, -1):
        token, following = top[index], top[index + 1]
        after = top[index + 2].word if index + 2 < len(top) else b""
        ends_here = index + 2 == len(top) or after == b"SETTINGS"
        if token.word == b"FORMAT" and following.kind == "word" and ends_here and top[index - 1].text != b",":
            return token.start, following.text.decode()
    return end, ""


def _parse_insert(text: bytes) -> Statement | None:
    """The insert and its data; None while the text has no VALUES or FORMAT, or when its rows come from a query."""
    selects = False
    tokens = _tokens(text)
    previous = b""
    for token in tokens:
        if token.depth == 0:
            if token.word in (b"SELECT", b"WITH"):
                selects = True
            elif (
                token.word == b"VALUES"
                and token.end < len(text)
                and not selects
                and previous not in (b"INTO", b"TABLE", b".")
            ):
                return Statement(Kind.INSERT, b"INSERT", text[: token.start], b"", "Values", text[token.end :])
            elif token.word == b"FORMAT" and previous not in (b"INTO", b"TABLE", b"."):
                name = next(tokens, None)
                if name is None or name.kind != "word" or not text[name.end :].strip(_BLANKS):
                    return None  # the name, or the line that it stands on, may go on in what was not read yet
                if selects:
                    return None
                return Statement(
                    Kind.INSERT, b"INSERT", text[: token.start], b"", name.text.decode(), _data_after(text, name.end)
                )
        previous = token.word or token.text
    return None


def _insert_without_format(text: bytes, default_format: str) -> Statement:
    """An insert whose whole text is known and that has no data behind a VALUES or FORMAT clause with a line's end."""
    tokens = list(_tokens(text))
    while tokens and tokens[-1].text == b";":
        tokens.pop()
    top = [token for token in tokens if token.depth == 0]
    if any(token.word in (b"SELECT", b"WITH") for token in top):
        if any(one.word == b"INPUT" and two.text == b"(" for one, two in itertools.pairwise(tokens)):
            # The embedded engine takes such a statement and stores nothing, without a word.
            raise ClickHouseError(NOT_IMPLEMENTED, "INSERT ... SELECT ... FROM input() is not supported here")
        return Statement(Kind.OTHER, b"INSERT", text[: tokens[-1].end])
    if len(top) > 2 and top[-2].word == b"FORMAT" and top[-1].kind == "word":
        return Statement(Kind.INSERT, b"INSERT", text[: top[-2].start], b"", top[-1].text.decode(), b"")
    return Statement(Kind.INSERT, b"INSERT", text[: tokens[-1].end], b"", default_format, b"")


def _data_after(text: bytes, position: int) -> bytes:
    """What follows the format's name: blanks and one line's end belong to the statement, all else to the data."""
    data = text[position:].lstrip(_BLANKS)
    return data.removeprefix(b"\n")


def _tokens(text: bytes) -> Iterator[_Token]:
    """All tokens but blanks and comments; a bracket has the depth outside of it."""
    depth = 0
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "sign"
        if kind == "tag":
            kind = "string"
        if kind == "space":
            continue
        word = match.group()
        if kind == "sign" and word in _CLOSING:
            depth = max(0, depth - 1)
        yield _Token(kind, word, match.start(), match.end(), depth)
        if kind == "sign" and word in _OPENING:
            depth += 1
