"""JSON lines from outside, one document each: read within bounds, decoded exactly, refused with a stable code.

Numbers never go through a float: one with a fraction or an exponent arrives as the `Decimal` that was written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, BinaryIO, NoReturn

from core.errors import Fault, InvalidInputError

LINE_BYTES_MAX = 16 * 1024 * 1024
# Far beyond any amount or quantity; keeps a hostile number from costing time.
_DIGITS_MAX = 100


def read_lines(stream: BinaryIO, bytes_max: int = LINE_BYTES_MAX) -> Iterator[bytes | None]:
    """Yield the stream's lines as they come, without their ends; None stands for one of more than `bytes_max`."""
    while line := stream.readline(bytes_max + 1):
        if len(line) <= bytes_max or line.endswith(b"\n"):
            yield line.rstrip(b"\r\n")
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(bytes_max)
        yield None


def decode_line(line: bytes | None) -> Any:
    """Return the line's document.

    Raises `InvalidInputError`: `line_too_long`, `invalid_json` (UTF-8 without a byte order mark; no NaN, no infinity),
    `duplicate_key` (a name twice in one object), `too_many_digits`.
    """
    if line is None:
        raise InvalidInputError([Fault("line_too_long", f"more than {LINE_BYTES_MAX:,} bytes")])
    try:
        return json.loads(
            line.decode(),
            parse_float=_exact,
            parse_int=_whole,
            parse_constant=_not_a_number,
            object_pairs_hook=_without_duplicates,
        )
    except UnicodeDecodeError as error:
        _refuse("invalid_json", f"not UTF-8 at byte {error.start}")
    except (ValueError, ArithmeticError) as error:
        _refuse("invalid_json", f"not JSON: {str(error)[:200]}")
    except RecursionError:
        _refuse("invalid_json", "nested too deeply")


def _exact(text: str) -> Decimal:
    try:
        number = Decimal(text) if len(text) <= _DIGITS_MAX else None
    except ArithmeticError:
        # An exponent that not even Decimal can hold.
        number = None
    if number is None or (number and abs(number.adjusted()) > _DIGITS_MAX):
        _refuse("too_many_digits", f"a number has too many digits: {text[:40]}…")
    return number


def _whole(text: str) -> int:
    if len(text) > _DIGITS_MAX:
        _refuse("too_many_digits", f"a number has too many digits: {text[:40]}…")
    return int(text)


def _not_a_number(text: str) -> NoReturn:
    _refuse("invalid_json", f"{text} is no JSON number")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        _refuse("duplicate_key", f"the name {twice[:80]!r} stands twice in one object")
    return found


def _refuse(code: str, reason: str) -> NoReturn:
    raise InvalidInputError([Fault(code, reason)])
