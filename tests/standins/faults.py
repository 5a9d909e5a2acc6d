"""Faults on demand. Owns which of the next requests go wrong, and how; the servers act it out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any


class FaultError(ValueError):
    """The control request names a fault that does not exist or has a wrong value."""


@dataclass
class Fault:
    """One planned fault: what goes wrong with the next `count` requests that match `method` and `path`."""

    kind: str
    count: int = 1
    method: str | None = None
    path: str = ""
    """Prefix of the request's path; empty matches every path."""
    seconds: float = 30.0
    """How long a `slow` or `hang…` fault lasts."""
    retry_after_seconds: int = 1
    code: int = 451
    """SMTP reply code of `refuse`."""
    stage: str = "data"
    """SMTP command that `refuse` answers: `mail`, `rcpt` or `data`."""

    def matches(self, method: str, path: str) -> bool:
        """Tell whether this fault is meant for the request."""
        return self.count > 0 and (self.method is None or self.method == method) and path.startswith(self.path)


@dataclass
class FaultPlan:
    """The faults still to come, oldest first; a request takes the first one that matches."""

    kinds: frozenset[str]
    planned: list[Fault] = field(default_factory=list)

    def add(self, values: Any) -> Fault:
        """Plan a fault from a control request's JSON object; raises FaultError if it makes no sense."""
        if not isinstance(values, dict):
            raise FaultError("expected a JSON object")
        known = {item.name for item in fields(Fault)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise FaultError(f"unknown field {unknown[0]!r}; known: {sorted(known)}")
        if values.get("kind") not in self.kinds:
            raise FaultError(f"unknown kind {values.get('kind')!r}; known: {sorted(self.kinds)}")
        fault = Fault(**values)
        if not isinstance(fault.count, int) or fault.count < 1:
            raise FaultError("count must be an integer from 1")
        self.planned.append(fault)
        return fault

    def take(self, method: str, path: str) -> Fault | None:
        """Use up one of the planned faults for this request, if any matches."""
        for fault in self.planned:
            if fault.matches(method, path):
                fault.count -= 1
                if fault.count == 0:
                    self.planned.remove(fault)
                return fault
        return None

    def clear(self) -> None:
        """Drop every fault still planned."""
        self.planned.clear()

    def as_json(self) -> list[dict[str, Any]]:
        """Return the faults still to come."""
        return [asdict(fault) for fault in self.planned]
