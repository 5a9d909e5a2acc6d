"""Where in a file a fault is: its path, and the line of the nearest place that stands in the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.errors import Fault


def place_faults(faults: Iterable[Fault], file: str, lines: Mapping[str, int]) -> list[Fault]:
    """Return the faults with `file:line: path` as their path; `lines` as `core.read_yaml` gives them."""
    return [_placed(fault, file, lines) for fault in faults]


def _placed(fault: Fault, file: str, lines: Mapping[str, int]) -> Fault:
    path, line = fault.path, None
    while line is None and path:
        line = lines.get(path)
        cut = max(path.rfind("."), path.rfind("["))
        path = path[:cut] if cut > 0 else ""
    place = f"{file}:{line or lines.get('', 1)}"
    return Fault(fault.code, fault.reason, f"{place}: {fault.path}" if fault.path else place)
