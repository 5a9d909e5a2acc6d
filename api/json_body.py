"""Bodies of requests that are not usage: JSON into a typed value, or a typed refusal."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import msgspec
from starlette.requests import Request

from core.errors import Fault, InvalidInputError

T = TypeVar("T", bound=msgspec.Struct)
KEY_HEADER = "idempotency-key"
_KEY_MAX = 255


async def read_json(request: Request, kind: type[T]) -> T:
    """Read the body; raises `InvalidInputError` (`empty`, `not_json`, `invalid_body` with the place).

    Decimals are read exactly from texts and from numbers; fields that are not known are refused.
    """
    raw = await request.body()
    if not raw:
        raise InvalidInputError([Fault("empty", "the body is empty")])
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        raise InvalidInputError([Fault("invalid_body", reason, place.rstrip("`").lstrip("."))]) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidInputError([Fault("not_json", "the body is not JSON")]) from None


def read_key(request: Request) -> str | None:
    """Return the Idempotency-Key, if there is one; raises `InvalidInputError` (`invalid_idempotency_key`)."""
    key = request.headers.get(KEY_HEADER)
    if key is not None and not (1 <= len(key) <= _KEY_MAX and key.isprintable()):
        raise InvalidInputError([Fault("invalid_idempotency_key", f"expected 1 to {_KEY_MAX} printable characters")])
    return key


def need_key(request: Request, what: str) -> str:
    """Return the Idempotency-Key of what may not be done twice because a client asked again after a timeout.

    Raises `InvalidInputError` (`missing_idempotency_key`, `invalid_idempotency_key`).
    """
    key = read_key(request)
    if key is None:
        raise InvalidInputError([Fault("missing_idempotency_key", f"{what} needs an Idempotency-Key", KEY_HEADER)])
    return key


def check_aware(instant: datetime, name: str) -> datetime:
    """Return the instant; raises `InvalidInputError` (`no_time_zone`) if it names no zone."""
    if instant.tzinfo is None:
        raise InvalidInputError([Fault("no_time_zone", "an instant needs its zone, such as Z", name)])
    return instant
