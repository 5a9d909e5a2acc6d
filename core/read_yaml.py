"""Reads YAML strictly. Owns which YAML is taken: no duplicate keys, no anchors or aliases, no guesses about scalars.

Scalars follow JSON: `true`, `false`, `null`, integers; everything else is text (`no`, `010`, `1:30` and `2026-10-01`
stay what was written). A number with a fraction is kept as a float only so that the catalogue can refuse it by path.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from core.errors import Fault, InvalidInputError

MAX_BYTES = 1_048_576
MAX_DEPTH = 24


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader with fewer liberties; notes the line of every path."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own protocol

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            # A few aliases of aliases unfold to gigabytes; a catalogue is read by people and needs none.
            raise yaml.composer.ComposerError(None, None, "anchors and aliases are not taken", event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {MAX_DEPTH}", event.start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"-?(?:0|[1-9][0-9]*)", "-0123456789"),
    ("float", r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|\.(?:nan|inf)", "-0123456789."),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"), list(_first))


def read_yaml(text: bytes, file: str) -> tuple[Any, dict[str, int]]:
    """Return the document and the line of each path in it (`plans.lite.charges[2].unit_amount` -> 41).

    Raises `InvalidInputError` with file and line: `too_large`, `invalid_yaml`, `duplicate_key`.
    """
    if len(text) > MAX_BYTES:
        raise InvalidInputError([Fault("too_large", f"{len(text)} bytes; at most {MAX_BYTES} are read", file)])
    try:
        loader = _StrictLoader(text.decode("utf-8-sig"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInputError([Fault("invalid_yaml", f"not UTF-8 text: {error}", file)]) from None
    try:
        node = loader.get_single_node()
        if node is None:
            raise InvalidInputError([Fault("invalid_yaml", "the file is empty", file)])
        faults: list[Fault] = []
        lines: dict[str, int] = {}
        _walk(node, "", file, lines, faults)
        if faults:
            raise InvalidInputError(faults)
        return loader.construct_document(node), lines
    except yaml.YAMLError as error:
        raise InvalidInputError([_syntax_fault(error, file)]) from None
    except (ValueError, OverflowError) as error:
        # An integer longer than Python converts, or an explicit tag that does not fit its text.
        raise InvalidInputError([Fault("invalid_yaml", str(error), file)]) from None
    finally:
        loader.dispose()


def _walk(node: yaml.Node, path: str, file: str, lines: dict[str, int], faults: list[Fault]) -> None:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, f"{path}[{index}]", file, lines, faults)
    elif isinstance(node, yaml.MappingNode):
        seen: set[tuple[str, str]] = set()
        for key, value in node.value:
            below = f"{path}.{key.value}" if path else str(key.value)
            at = f"{file}:{key.start_mark.line + 1}: {below}"
            if not isinstance(key, yaml.ScalarNode):
                faults.append(Fault("invalid_yaml", "a key must be plain text", f"{file}:{line}: {path}"))
                continue
            if (key.tag, key.value) in seen:
                faults.append(Fault("duplicate_key", f"the key {key.value!r} stands here twice", at))
            seen.add((key.tag, key.value))
            lines.setdefault(below, key.start_mark.line + 1)
            _walk(value, below, file, lines, faults)


def _syntax_fault(error: yaml.YAMLError, file: str) -> Fault:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    place = f"{file}:{mark.line + 1}" if mark else file
    return Fault("invalid_yaml", str(problem), place)
