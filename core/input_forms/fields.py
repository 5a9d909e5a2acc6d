"""Reads the fields of an input form. Owns that every fault of a form is told at once, where its caller wrote it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from core.errors import must_hold
from core.event_time import parse_event_time, parse_unix_time
from core.quantity import LIMIT, UNIT, format_scaled, scale_quantity
from core.usage_event import EARLIEST_US, LATEST_US, NAME_LENGTH_MAX, Rejection

# The source of an event whose caller names none.
SOURCE = "api"
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ArithmeticError)
_decode_any = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder().encode
_QUANTITY_REASONS = {
    "invalid_quantity": "is not a number or decimal text",
    "negative_quantity": "is negative; corrections are events of their own",
    "quantity_out_of_range": "is 10^15 or more",
    "too_many_digits": "has more than 12 decimal places",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a form was refused: at least one fault, the first of them giving the answer its code."""

    faults: tuple[Rejection, ...]

    def __post_init__(self) -> None:
        must_hold(bool(self.faults), "a refusal without a fault")


@dataclass(frozen=True, slots=True)
class Formed:
    """A CloudEvent made of a form: its bytes, and where its parts stand in what the caller wrote.

    `pointers` maps pointers into the event to pointers into the form; whatever else stands in the data is found under
    `data_at`.
    """

    value: bytes
    pointers: Mapping[str, str]
    data_at: str = "/dimensions"

    def point_back(self, rejection: Rejection) -> Rejection:
        """Return a rejection of the event as one of the form."""
        pointer = rejection.pointer
        back = self.pointers.get(pointer)
        if back is None:
            back = self.data_at + pointer[5:] if pointer.startswith("/data/") else pointer
        return Rejection(rejection.code, rejection.reason, back)


def decode_json(raw: bytes) -> Any:
    """Decode any JSON with numbers as they were written; returns a `Rejection` for what is none.

    Codes: `empty`, `not_json`.
    """
    try:
        return _decode_any(raw)
    except UNREADABLE as error:
        if not raw.strip():
            return Rejection("empty", "the body is empty")
        return Rejection("not_json", f"not JSON: {str(error)[:200]}")


def cloud_event(
    event_id: str, source: str, event_type: str, subject: str, time: str, data: Mapping[str, Any]
) -> bytes | Rejection:
    """Return the bytes of a structured CloudEvent, or why its data cannot be written (`invalid_dimension`)."""
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": event_type,
        "subject": subject,
        "time": time,
        "datacontenttype": "application/json",
        "data": data,
    }
    try:
        return _encode(event)
    except (msgspec.MsgspecError, UnicodeEncodeError, TypeError, OverflowError, RecursionError):
        return Rejection("invalid_dimension", "dimensions must be texts, numbers or booleans", "/dimensions")


class FormFields:
    """The fields of one form; reading a bad one notes a fault and returns something harmless."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._found = found
        self.faults: list[Rejection] = []

    def fault(self, code: str, reason: str, name: str) -> None:
        """Note a fault of the field `name`."""
        self.faults.append(Rejection(code, reason, f"/{escape(name)}"))

    def require(self, name: str) -> bool:
        """Say whether a field is there and not null; code `missing_field`."""
        if self._found.get(name) is not None:
            return True
        self.fault("missing_field", f"{name} is missing", name)
        return False

    def text(self, name: str) -> str:
        """Return a required text, "" only after a fault; codes `missing_field`, `invalid_field`."""
        if not self.require(name):
            return ""
        if self._found[name] == "":
            self.fault("invalid_field", f"{name} is empty", name)
            return ""
        return self.optional_text(name, "")

    def optional_text(self, name: str, default: str) -> str:
        """Return a text that may be absent or null; code `invalid_field`."""
        value = self._found.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            self.fault("invalid_field", f"{name} must be a text", name)
            return default
        return value

    def name(self, name: str, default: str) -> str:
        """Return a text that becomes a name of the event: 1 to 256 printable characters; code `invalid_field`."""
        value = self.optional_text(name, default)
        if 0 < len(value) <= NAME_LENGTH_MAX and value.isprintable():
            return value
        self.fault("invalid_field", f"{name} must be 1 to {NAME_LENGTH_MAX} printable characters", name)
        return default

    def quantity(self, name: str, *, multiply_by: int = 1) -> str:
        """Return a required quantity as an exact decimal text; codes `missing_field` and those of `scale_quantity`."""
        if not self.require(name):
            return "0"
        value = self._found[name]
        scaled = scale_quantity(value)
        if isinstance(scaled, int) and scaled * multiply_by < LIMIT * UNIT:
            return format_scaled(scaled * multiply_by)
        code = scaled if isinstance(scaled, str) else "quantity_out_of_range"
        self.fault(code, f"{name} {_QUANTITY_REASONS[code]}: {str(value)[:80]!r}", name)
        return "0"

    def event_time(self, name: str) -> int:
        """Return a required RFC 3339 time with a zone, in microseconds since 1970 UTC.

        Codes: `missing_field`, `invalid_field`, `invalid_time`, `time_without_zone`, `time_out_of_bounds`.
        """
        before = len(self.faults)
        text = self.text(name)
        if len(self.faults) > before:
            return EARLIEST_US
        return self._within(name, text, parse_event_time(text), "RFC 3339 with a zone")

    def unix_time(self, name: str) -> int:
        """Return required Unix seconds, as number or decimal text, in microseconds; codes as `event_time`."""
        if not self.require(name):
            return EARLIEST_US
        value = self._found[name]
        return self._within(name, str(value), parse_unix_time(value), "Unix seconds")

    def dimensions(self, taken: Collection[str]) -> dict[str, Any]:
        """Return the dimensions, none of them called as one of `taken`; codes `invalid_field`, `invalid_dimension`."""
        value = self._found.get("dimensions")
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fault("invalid_field", "dimensions must be a JSON object", "dimensions")
            return {}
        for name in value.keys() & set(taken):
            reason = f"{name[:80]} is a part of the usage itself, not a dimension"
            self.faults.append(Rejection("invalid_dimension", reason, f"/dimensions/{escape(name)}"))
        return value

    def finish(self, known: Collection[str]) -> None:
        """Note every field that the form does not have; code `unknown_field`."""
        for name in self._found:
            if name not in known:
                self.fault("unknown_field", f"{name[:80]!r} is no field of this form", name[:80])

    def _within(self, name: str, text: str, found: int | str, wanted: str) -> int:
        if isinstance(found, str):
            self.fault(found, f"expected {wanted}, got {text[:80]!r}", name)
        elif not EARLIEST_US <= found < LATEST_US:
            self.fault("time_out_of_bounds", f"expected a time from 2000 to 2099, got {text[:80]!r}", name)
        else:
            return found
        return EARLIEST_US


def escape(name: str) -> str:
    """Return a name as it stands in a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
