"""What quantities of the bundle, service and period forms are called in a CloudEvent. Owns how that is configured.

A quantity goes into an event of some type, under some property, multiplied by a whole number where a unit asks for it
(a minute is 60 seconds). Nothing is ever divided: a third of an hour has no end in decimals, so what comes in seconds
is counted by a meter in seconds, and its price divides once, on the invoice line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.errors import Fault, InvalidInputError
from core.read_yaml import read_yaml

MULTIPLY_BY_MAX = 10**9
# Names that mean something else in one of the forms, so no quantity of a bundle can be called so.
RESERVED_FIELDS = frozenset(
    {
        "tenant_id", "timestamp", "id", "source", "dimensions", "metric_type", "value", "service", "usage_type",
        "quantity", "resource_type", "unit", "period_start", "period_end", "specversion", "type", "subject", "time",
        "data", "datacontenttype", "dataschema", "data_base64",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """Where a quantity goes: the event's type, the property within its data, and what it is multiplied by (exactly)."""

    event_type: str
    property: str
    multiply_by: int = 1


@dataclass(frozen=True, slots=True)
class FormMapping:
    """Bundle: quantity -> target. Services: service -> usage type -> target. Resources: type -> unit -> target."""

    bundle: Mapping[str, Target] = field(default_factory=dict)
    services: Mapping[str, Mapping[str, Target]] = field(default_factory=dict)
    resources: Mapping[str, Mapping[str, Target]] = field(default_factory=dict)


def read_mapping(content: bytes, file: str) -> FormMapping:
    """Read a mapping from YAML (see `catalogues/input_forms.yaml`).

    Raises `InvalidInputError` with every fault, its line and its path: those of `read_yaml`, `unknown_field`,
    `invalid_type`, `missing_field`, `reserved_name`, `out_of_range`.
    """
    document, lines = read_yaml(content, file)
    reader = _Reader(file, lines)
    top = reader.mapping(document, "")
    for name in top.keys() - {"bundle", "services", "resources"}:
        reader.fault("unknown_field", "expected bundle, services or resources", str(name))
    bundle = reader.targets(top.get("bundle", {}), "bundle")
    for name in bundle.keys() & RESERVED_FIELDS:
        reader.fault("reserved_name", f"{name} is a field of another form", f"bundle.{name}")
    services = reader.nested(top.get("services", {}), "services")
    resources = reader.nested(top.get("resources", {}), "resources")
    if reader.faults:
        raise InvalidInputError(reader.faults)
    return FormMapping(bundle, services, resources)


class _Reader:
    """Reads parts of the document and notes what is wrong with them."""

    def __init__(self, file: str, lines: Mapping[str, int]) -> None:
        self._file, self._lines = file, lines
        self.faults: list[Fault] = []

    def fault(self, code: str, reason: str, path: str) -> None:
        """Note a fault with the line of the nearest path that stands in the file."""
        known = path
        while known and known not in self._lines:
            known = known.rpartition(".")[0]
        self.faults.append(Fault(code, reason, f"{self._file}:{self._lines.get(known, 1)}: {path}"))

    def mapping(self, found: Any, path: str) -> Mapping[str, Any]:
        """Return a mapping by text, empty after a fault."""
        if isinstance(found, dict) and all(type(key) is str and key for key in found):
            return found
        self.fault("invalid_type", "expected a mapping by names", path)
        return {}

    def nested(self, found: Any, path: str) -> dict[str, dict[str, Target]]:
        """Return two levels of names with their targets."""
        return {name: self.targets(below, f"{path}.{name}") for name, below in self.mapping(found, path).items()}

    def targets(self, found: Any, path: str) -> dict[str, Target]:
        """Return names with their targets."""
        return {name: self._target(below, f"{path}.{name}") for name, below in self.mapping(found, path).items()}

    def _target(self, found: Any, path: str) -> Target:
        fields = self.mapping(found, path)
        for name in fields.keys() - {"event_type", "property", "multiply_by"}:
            self.fault("unknown_field", "expected event_type, property or multiply_by", f"{path}.{name}")
        texts = []
        for name in ("event_type", "property"):
            text = fields.get(name)
            if not (isinstance(text, str) and text and text.isprintable()):
                code = "missing_field" if text is None else "invalid_type"
                self.fault(code, f"{name} must be a text", f"{path}.{name}")
            texts.append(str(text))
        factor = fields.get("multiply_by", 1)
        if type(factor) is not int or not 1 <= factor <= MULTIPLY_BY_MAX:
            reason = f"expected a whole number from 1 to {MULTIPLY_BY_MAX}; nothing is divided, so nothing is rounded"
            self.fault("out_of_range", reason, f"{path}.multiply_by")
            factor = 1
        return Target(texts[0], texts[1], factor)
