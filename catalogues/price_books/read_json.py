"""Reads a foreign JSON table strictly: exact numbers, no duplicate names, bounded size; gzip is unpacked."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from decimal import Decimal
from io import BytesIO
from typing import Any, NoReturn

from core.errors import Fault, InvalidInputError

MAX_BYTES = 64 * 1_048_576
MAX_DIGITS_WHOLE, MAX_DIGITS_FRACTION = 15, 12
_NUMBER = re.compile(r"-?\d{1,64}(\.\d{1,64})?([eE][-+]?\d{1,3})?", re.ASCII)


def unpack(content: bytes, file: str) -> bytes:
    """Return the text's bytes, unpacked if they are gzip; raises `InvalidInputError` (`too_large`, `invalid_gzip`)."""
    if content[:2] == b"\x1f\x8b":
        content = _gunzip(content, file)
    if len(content) > MAX_BYTES:
        _refuse("too_large", f"more than {MAX_BYTES} bytes", file)
    return content


def read_json(content: bytes, file: str) -> Any:
    """Return the document; numbers with a fraction come as `Decimal`.

    Raises `InvalidInputError`: `invalid_json`, `duplicate_key`.
    """
    try:
        return json.loads(
            content.decode("utf-8-sig"),
            parse_float=Decimal,
            parse_constant=_not_a_number,
            object_pairs_hook=_without_duplicates,
        )
    except _DuplicateKeyError as twice:
        _refuse("duplicate_key", f"the name {twice} stands twice in one mapping", file)
    except (ValueError, RecursionError, ArithmeticError) as error:
        _refuse("invalid_json", f"not JSON: {str(error)[:200]}", file)


def read_amount(value: object, path: str, faults: list[Fault]) -> Decimal | None:
    """Return an exact amount of a JSON number or decimal text, noting what is no amount (`invalid_amount`, …)."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
        faults.append(Fault("invalid_amount", f"expected a number, got {repr(value)[:60]}", path))
        return None
    if not _NUMBER.fullmatch(str(value)):
        faults.append(Fault("invalid_amount", f"expected a plain number, got {str(value)[:60]!r}", path))
        return None
    amount = Decimal(str(value))
    if amount < 0:
        faults.append(Fault("negative_amount", f"{amount:f} is negative", path))
        return None
    return amount


def fits(amount: Decimal) -> bool:
    """Tell whether a catalogue can hold the amount: 15 digits before the point, 12 after it."""
    exponent = amount.normalize().as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -MAX_DIGITS_FRACTION and amount < 10**MAX_DIGITS_WHOLE


class _DuplicateKeyError(Exception):
    """A name stands twice in one mapping."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _DuplicateKeyError(repr(next(name for name in names if names.count(name) > 1)))
    return found


def _not_a_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _gunzip(content: bytes, file: str) -> bytes:
    try:
        with gzip.GzipFile(fileobj=BytesIO(content)) as packed:
            return packed.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        _refuse("invalid_gzip", f"cannot be unpacked: {error}", file)


def _refuse(code: str, reason: str, file: str) -> NoReturn:
    raise InvalidInputError([Fault(code, reason, file)])
