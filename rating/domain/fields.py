"""Reads untrusted documents field by field and collects every fault. Owns what an amount or a name may look like.

A reader never stops at the first fault: it notes the fault with its path and goes on with a harmless stand-in, and the
caller refuses the whole document at the end.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from decimal import Decimal

from core.errors import Fault

MAX_DIGITS_WHOLE = 15
MAX_DIGITS_FRACTION = 12
_PLAIN = re.compile(r"-?\d+(\.\d+)?")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
ZERO = Decimal(0)
_OPTIONS_SHOWN = 25


def parse_amount(value: object) -> Decimal | Fault:
    """Return an exact non-negative decimal from what `parse_decimal` takes, or the fault (path left empty)."""
    amount = parse_decimal(value)
    if isinstance(amount, Decimal) and amount < 0:
        return Fault("negative_amount", f"{amount:f} is negative")
    return amount


def parse_decimal(value: object) -> Decimal | Fault:
    """Return an exact decimal from a string ("0.002"), an integer or a `Decimal`, or the fault (path left empty).

    A number with a fraction that was read as a float has lost its digits, so it is refused rather than repaired; one
    that was read as a `Decimal` has not.
    """
    if isinstance(value, float):
        return Fault("float_amount", f'{value} has been through a float: quote it as a string, "{value}"')
    if isinstance(value, Decimal) and abs(value.adjusted()) < 64:
        value = f"{value:f}"
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return Fault("invalid_amount", f'expected a decimal string such as "0.002", got {_show(value)}')
    text = str(value)
    if len(text) > 64 or not text.isascii() or not _PLAIN.fullmatch(text):
        return Fault("invalid_amount", f'expected a plain decimal such as "0.002", got {_show(value)}')
    whole, _, fraction = text.lstrip("-").partition(".")
    if len(fraction.rstrip("0")) > MAX_DIGITS_FRACTION or len(whole.lstrip("0")) > MAX_DIGITS_WHOLE:
        reason = (
            f"{text} has too many digits: at most {MAX_DIGITS_WHOLE} before and {MAX_DIGITS_FRACTION} after the point"
        )
        return Fault("too_many_digits", reason)
    return Decimal(text)


class Fields:
    """One mapping of a document, read field by field; `finish` reports the fields nobody asked for."""

    def __init__(self, document: object, path: str, faults: list[Fault]) -> None:
        self.path, self.faults = path, faults
        self._asked: set[str] = set()
        self._values: dict[str, object] = {}
        if isinstance(document, dict):
            self._values = {str(name): value for name, value in document.items()}
        else:
            self.fault("", "invalid_type", f"expected a mapping, got {_show(document)}")

    def at(self, name: str) -> str:
        """Return the path of a field."""
        return ".".join(part for part in (self.path, name) if part)

    def fault(self, name: str, code: str, reason: str) -> None:
        """Note a fault at a field ("" for the mapping itself)."""
        self.faults.append(Fault(code, reason, self.at(name)))

    def has(self, name: str) -> bool:
        """Tell whether the field is there."""
        self._asked.add(name)
        return name in self._values

    def raw(self, name: str) -> object:
        """Return the field as it stands, None if it is missing."""
        self._asked.add(name)
        return self._values.get(name)

    def amount(self, name: str, default: Decimal | None = None) -> Decimal:
        """Return an exact non-negative amount or quantity; a missing one is a fault unless there is a default."""
        if not self.has(name):
            if default is not None:
                return default
            self.fault(name, "missing_field", "this field is required")
            return ZERO
        parsed = parse_amount(self.raw(name))
        if isinstance(parsed, Fault):
            self.fault(name, parsed.code, parsed.reason)
            return ZERO
        return parsed

    def quantity(self, name: str, default: Decimal | None = None) -> Decimal:
        """Return an exact quantity, which may be negative (a correction); a missing one is a fault without default."""
        if not self.has(name):
            if default is None:
                self.fault(name, "missing_field", "this field is required")
            return default or ZERO
        parsed = parse_decimal(self.raw(name))
        if isinstance(parsed, Fault):
            self.fault(name, parsed.code.replace("amount", "quantity"), parsed.reason)
            return ZERO
        return parsed

    def ignore(self, *names: str) -> None:
        """Take the fields as known without reading them."""
        self._asked.update(names)

    def was_read(self, name: str) -> bool:
        """Tell whether the field is there and somebody has asked for it."""
        return name in self._asked and name in self._values

    def percent(self, name: str, *, maximum: int = 100) -> Decimal:
        """Return a percentage above 0 and up to `maximum`."""
        found_before = len(self.faults)
        percent = self.amount(name)
        if len(self.faults) == found_before and not 0 < percent <= maximum:
            self.fault(name, "invalid_percent", f"expected more than 0 and at most {maximum}, got {percent:f}")
        return percent

    def whole(self, name: str, default: int) -> int:
        """Return a whole number of at least 1."""
        if not self.has(name):
            return default
        value = self.raw(name)
        if type(value) is not int or not 1 <= value <= 10**MAX_DIGITS_FRACTION:
            self.fault(name, "invalid_number", f"expected a whole number of at least 1, got {_show(value)}")
            return default
        return value

    def flag(self, name: str) -> bool:
        """Return a boolean, false when it is missing."""
        value = self.raw(name) if self.has(name) else False
        if not isinstance(value, bool):
            self.fault(name, "invalid_type", f"expected true or false, got {_show(value)}")
            return False
        return value

    def text(self, name: str, default: str | None = None, max_length: int = 200) -> str:
        """Return a non-empty line of text."""
        if not self.has(name):
            if default is None:
                self.fault(name, "missing_field", "this field is required")
            return default or ""
        value = self.raw(name)
        if not isinstance(value, str) or not value.strip() or len(value) > max_length or not value.isprintable():
            self.fault(name, "invalid_text", f"expected 1 to {max_length} printable characters, got {_show(value)}")
            return default or ""
        return value

    def name(self, name: str) -> str:
        """Return an identifier: lower-case letters, digits, `_`, `.` and `-`."""
        value = self.text(name)
        if value and not _NAME.fullmatch(value):
            self.fault(name, "invalid_name", f"expected lower-case letters, digits, _ . -, got {_show(value)}")
            return ""
        return value

    def choice(self, name: str, options: Collection[str], code: str, default: str | None = None) -> str:
        """Return one of the options; `code` is the fault of anything else."""
        if not self.has(name) and default is not None:
            return default
        value = self.raw(name)
        if not isinstance(value, str) or value not in options:
            known = ", ".join(sorted(options) if len(options) <= _OPTIONS_SHOWN else [*sorted(options)[:5], "…"])
            self.fault(name, code, f"expected one of {known}, got {_show(value)}")
            return default or ""
        return value

    def mapping(self, name: str) -> dict[str, object]:
        """Return a mapping with string keys; empty when it is missing."""
        value = self.raw(name) if self.has(name) else {}
        if not isinstance(value, dict):
            self.fault(name, "invalid_type", f"expected a mapping, got {_show(value)}")
            return {}
        for key in value:
            if not isinstance(key, str):
                self.fault(name, "invalid_name", f"expected text as a key, got {_show(key)}: quote it")
            elif not key.isprintable() or len(key) > 200:
                self.fault(name, "invalid_name", f"expected 1 to 200 printable characters as a key, got {_show(key)}")
        return {key: item for key, item in value.items() if isinstance(key, str) and key.isprintable()}

    def items(self, name: str) -> list[object]:
        """Return a list; empty when it is missing."""
        value = self.raw(name) if self.has(name) else []
        if not isinstance(value, list):
            self.fault(name, "invalid_type", f"expected a list, got {_show(value)}")
            return []
        return value

    def finish(self) -> None:
        """Report every field that nobody asked for."""
        for name in sorted(set(self._values) - self._asked):
            self.fault(name, "unknown_field", f"unknown field; known here: {', '.join(sorted(self._asked))}")


def check_name(value: str) -> bool:
    """Tell whether a key may serve as an identifier."""
    return bool(_NAME.fullmatch(value))


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
