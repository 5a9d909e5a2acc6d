"""Native blocks for clients of the wire protocol's newer revisions. Owns rewriting them as they pass.

The engine writes Native as for revision 0. A client that names a newer one (`client_protocol_version`; clickhouse-go
does, and with it Grafana) expects a block header before each block, and from 54454 a byte after each column's type
that says whether the column's serialization is a custom one. To know where blocks and columns end, their values are
walked over, by type; types whose length cannot be told that way are refused.

Source of the layout: ClickHouse's documentation of the Native format and protocol, checked against clickhouse-go.
"""

from __future__ import annotations

from collections.abc import Callable

from runtime.stack.clickhouse.exceptions import NOT_IMPLEMENTED, ClickHouseError

# Revisions below this one differ by the block header only, and clients that name them do without it.
FIRST_REVISION = 54_454
_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"  # no overflow rows, bucket -1, end
_DEFAULT_SERIALIZATION = b"\x00"
_WIDTHS = {
    1: ("UInt8", "Int8", "Bool", "Enum8", "Nothing"),
    2: ("UInt16", "Int16", "Enum16", "Date", "BFloat16"),
    4: ("UInt32", "Int32", "Float32", "Date32", "DateTime", "IPv4", "Decimal32", "Time"),
    8: ("UInt64", "Int64", "Float64", "DateTime64", "Decimal64", "Time64"),
    16: ("UInt128", "Int128", "UUID", "IPv6", "Decimal128", "Point"),
    32: ("UInt256", "Int256", "Decimal256"),
}
_WIDTH = {name: width for width, names in _WIDTHS.items() for name in names}
_SAME_AS = {
    "Ring": "Array(Point)",
    "LineString": "Array(Point)",
    "Polygon": "Array(Ring)",
    "MultiLineString": "Array(LineString)",
    "MultiPolygon": "Array(Polygon)",
}


class _Incomplete(Exception):  # noqa: N818 - no error: more bytes are to come
    """The buffer ends inside a block."""


class _Cursor:
    """A place in the bytes at hand."""

    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.place = 0

    def skip(self, count: int) -> None:
        self.place += count
        if self.place > len(self.data):
            raise _Incomplete

    def number(self) -> int:
        """A variable-length unsigned number."""
        value = shift = 0
        while True:
            self.skip(1)
            byte = self.data[self.place - 1]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def fixed(self) -> int:
        """A number of eight bytes."""
        self.skip(8)
        return int.from_bytes(self.data[self.place - 8 : self.place], "little")

    def text(self) -> str:
        length = self.number()
        self.skip(length)
        return self.data[self.place - length : self.place].decode(errors="replace")


class NativeRewriter:
    """Turns a stream of Native blocks of revision 0 into one of a newer revision."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._try_again_at = 1

    def feed(self, piece: bytes) -> bytes:
        """The rewritten blocks that this piece completes; raises `ClickHouseError` for a type it cannot walk over."""
        self._pending += piece
        done = bytearray()
        while len(self._pending) >= self._try_again_at:
            cursor = _Cursor(self._pending)
            try:
                done += _rewrite_block(cursor)
            except _Incomplete:
                # Not at each piece: a large block would be walked over again and again.
                self._try_again_at = 2 * len(self._pending)
                break
            del self._pending[: cursor.place]
            self._try_again_at = 1
        return bytes(done)

    def finish(self) -> bytes:
        """What is left at the stream's end: whole blocks, rewritten."""
        self._try_again_at = 1
        done = self.feed(b"")
        if self._pending:
            raise ClickHouseError(NOT_IMPLEMENTED, "A Native block that cannot be told apart from the next")
        return done


def _rewrite_block(cursor: _Cursor) -> bytes:
    columns, rows = cursor.number(), cursor.number()
    parts = [_BLOCK_INFO, bytes(cursor.data[: cursor.place])]
    for _ in range(columns):
        begin = cursor.place
        cursor.text()
        type_name = cursor.text()
        parts += [bytes(cursor.data[begin : cursor.place]), _DEFAULT_SERIALIZATION]
        begin = cursor.place
        if rows:  # no rows are no bytes, whatever the type
            _skip_prefix(cursor, type_name)
            _skip_values(cursor, type_name, rows)
        parts.append(bytes(cursor.data[begin : cursor.place]))
    return b"".join(parts)


def _skip_prefix(cursor: _Cursor, type_name: str) -> None:
    """What some types write once before all values: LowCardinality the version of its keys."""
    name, arguments = _split_type(type_name)
    if name == "LowCardinality":
        cursor.skip(8)
    elif name in ("Array", "Nullable"):
        _skip_prefix(cursor, arguments[0])
    elif name in ("Tuple", "Map", "Nested"):
        for argument in arguments:
            _skip_prefix(cursor, _element_type(argument))


def _skip_values(cursor: _Cursor, type_name: str, rows: int) -> None:
    name, arguments = _split_type(type_name)
    width = _width(name, arguments)
    if width:
        cursor.skip(width * rows)
    elif name == "String":
        _skip_strings(cursor, rows)
    elif name in _COMPOSED:
        _COMPOSED[name](cursor, arguments, rows)
    elif name in _SAME_AS:
        _skip_values(cursor, _SAME_AS[name], rows)
    else:
        raise ClickHouseError(NOT_IMPLEMENTED, f"Native blocks of a newer protocol revision with type {type_name}")


def _skip_strings(cursor: _Cursor, rows: int) -> None:
    # The hot loop of this module: most strings are shorter than 128 bytes, so their length is one byte.
    data, place, end = cursor.data, cursor.place, len(cursor.data)
    for _ in range(rows):
        if place >= end:
            raise _Incomplete
        length = data[place]
        if length < 0x80:
            place += 1 + length
        else:
            cursor.place = place
            length = cursor.number()
            place = cursor.place + length
    if place > end:
        raise _Incomplete
    cursor.place = place


def _skip_nullable(cursor: _Cursor, arguments: list[str], rows: int) -> None:
    cursor.skip(rows)
    _skip_values(cursor, arguments[0], rows)


def _skip_array(cursor: _Cursor, arguments: list[str], rows: int) -> None:
    cursor.skip(8 * (rows - 1))
    values = cursor.fixed()  # the last offset is the count of all arrays' values
    if values:
        _skip_values(cursor, arguments[0], values)


def _skip_tuple(cursor: _Cursor, arguments: list[str], rows: int) -> None:
    for argument in arguments:
        _skip_values(cursor, _element_type(argument), rows)


def _skip_map(cursor: _Cursor, arguments: list[str], rows: int) -> None:
    _skip_array(cursor, [f"Tuple({', '.join(arguments)})"], rows)


def _skip_low_cardinality(cursor: _Cursor, arguments: list[str], rows: int) -> None:
    index_width = 1 << (cursor.fixed() & 0xFF)
    keys = cursor.fixed()
    name, inner = _split_type(arguments[0])
    if keys:  # a key that is NULL is written as the type's default
        _skip_values(cursor, inner[0] if name == "Nullable" else arguments[0], keys)
    cursor.skip(8)
    cursor.skip(index_width * rows)


_COMPOSED: dict[str, Callable[[_Cursor, list[str], int], None]] = {
    "Array": _skip_array,
    "LowCardinality": _skip_low_cardinality,
    "Map": _skip_map,
    "Nested": _skip_map,
    "Nullable": _skip_nullable,
    "Tuple": _skip_tuple,
}


def _width(name: str, arguments: list[str]) -> int:
    """Bytes of one value, 0 when they differ from value to value."""
    if name == "FixedString":
        return int(arguments[0])
    if name == "Decimal":
        precision = int(arguments[0])
        return next(width for width, most in ((4, 9), (8, 18), (16, 38), (32, 76)) if precision <= most)
    if name.startswith("Interval"):
        return 8
    return _WIDTH.get(name, 0)


def _split_type(type_name: str) -> tuple[str, list[str]]:
    """A type's name and arguments, such as `Map`, [`String`, `Array(UInt8)`]; an aggregate's is its value's type."""
    name, bracket, rest = type_name.partition("(")
    if not bracket:
        return name, []
    arguments, depth, begin, quoted = [], 0, 0, False
    inner = rest[:-1]
    for place, sign in enumerate(inner):
        if sign in "'`" and inner[place - 1 : place] != "\\":
            quoted = not quoted
        elif not quoted and sign in "()":
            depth += 1 if sign == "(" else -1
        elif not quoted and sign == "," and depth == 0:
            arguments.append(inner[begin:place].strip())
            begin = place + 1
    arguments.append(inner[begin:].strip())
    if name == "SimpleAggregateFunction":
        return _split_type(arguments[1])
    return name, arguments


def _element_type(argument: str) -> str:
    """The type of a tuple's element, which may have its name before it."""
    if argument.startswith("`"):
        return argument[argument.index("`", 1) + 1 :].strip()
    name, _, rest = argument.partition(" ")
    return rest.strip() if rest and "(" not in name else argument
