"""genai-prices' rules for the names of a model: `equals`, `starts_with`, `ends_with`, `contains`, `regex`, `or`, `and`.

Letter case does not count, but for `regex`, which sees the name in lower case (`find_model` of that project).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from core.errors import Fault

Matches = Callable[[str], bool]
_DEPTH_MAX = 8


def read_rule(document: object, path: str, faults: list[Fault], depth: int = 0) -> Matches:
    """Return the rule as a function of a name; what is wrong with it is noted, and it then matches nothing."""
    if not isinstance(document, dict) or len(document) != 1 or depth > _DEPTH_MAX:
        faults.append(Fault("invalid_rule", "expected a mapping with one rule, nested at most 8 deep", path))
        return _nothing
    ((kind, value),) = document.items()
    at = f"{path}.{kind}"
    if kind in ("or", "and"):
        return _read_several(kind, value, at, faults, depth)
    if not isinstance(value, str) or not value:
        faults.append(Fault("invalid_rule", f"expected a text, got {repr(value)[:60]}", at))
        return _nothing
    return _read_text(kind, value, at, faults)


def literal_names(document: object) -> list[str]:
    """Return the names that a rule lists one by one (`equals`, alone or below `or`); all others are patterns."""
    if not isinstance(document, dict):
        return []
    if isinstance(document.get("or"), list):
        return [name for rule in document["or"] for name in literal_names(rule)]
    found = document.get("equals")
    return [found] if isinstance(found, str) else []


def has_patterns(document: object) -> bool:
    """Tell whether a rule takes names that it does not list."""
    if isinstance(document, dict) and isinstance(document.get("or"), list):
        return any(has_patterns(rule) for rule in document["or"])
    return not (isinstance(document, dict) and set(document) == {"equals"})


def _read_several(kind: str, value: Any, path: str, faults: list[Fault], depth: int) -> Matches:
    if not isinstance(value, list) or not value:
        faults.append(Fault("invalid_rule", "expected a list of rules", path))
        return _nothing
    rules = [read_rule(rule, f"{path}[{index}]", faults, depth + 1) for index, rule in enumerate(value)]
    if kind == "or":
        return lambda name: any(rule(name) for rule in rules)
    return lambda name: all(rule(name) for rule in rules)


def _read_text(kind: str, value: str, path: str, faults: list[Fault]) -> Matches:
    text = value.lower()
    match kind:
        case "equals":
            return lambda name: name.lower() == text
        case "starts_with":
            return lambda name: name.lower().startswith(text)
        case "ends_with":
            return lambda name: name.lower().endswith(text)
        case "contains":
            return lambda name: text in name.lower()
        case "regex":
            try:
                pattern = re.compile(value)
            except (re.error, RecursionError, OverflowError) as error:
                faults.append(Fault("invalid_rule", f"no regular expression: {error}", path))
                return _nothing
            return lambda name: pattern.search(name.lower()) is not None
    faults.append(Fault("invalid_rule", f"unknown rule {kind[:60]!r}", path))
    return _nothing


def _nothing(_: str) -> bool:
    return False
