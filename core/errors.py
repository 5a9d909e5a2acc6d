"""Errors that explain themselves. Owns the error families and their stable codes; only `api/` knows HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an input: where it is, a stable code for programs, a sentence for people.

    `path` is the place within the input (`plans.lite.charges[2].unit_amount`); "" is the whole.
    """

    code: str
    reason: str
    path: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason} [{self.code}]" if self.path else f"{self.reason} [{self.code}]"


class MeterbookError(Exception):
    """Something Meterbook refuses or cannot do; the class docstring is the default message."""

    code: ClassVar[str] = "meterbook_error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or type(self).__name__).strip().splitlines()[0])


class InvalidInputError(MeterbookError):
    """The input was refused."""

    code = "invalid_input"

    def __init__(self, faults: list[Fault], message: str | None = None) -> None:
        self.faults = faults
        super().__init__(message or "; ".join(str(fault) for fault in faults))


class NotFoundError(MeterbookError):
    """There is no such thing."""

    code = "not_found"


class ConflictError(MeterbookError):
    """The request contradicts what is already recorded."""

    code = "conflict"


class UnavailableError(MeterbookError):
    """Something this needs is not answering now; the same request may succeed later."""

    code = "unavailable"


class BrokenInvariantError(MeterbookError):
    """One of our own rules does not hold. The work stops here, loudly, rather than produce a wrong figure."""

    code = "broken_invariant"


def must_hold(condition: bool, what: str) -> None:
    """Stop the work with `BrokenInvariantError` unless `condition` holds; stays on under `python -O`."""
    if not condition:
        raise BrokenInvariantError(what)
