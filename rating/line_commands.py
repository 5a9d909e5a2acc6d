"""What `meterbook rate` and `meterbook prorate` share: JSON lines in and out, shipped schemas and examples."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import typer

from core.errors import Fault, NotFoundError
from core.json_lines import read_lines


def read_shipped(name: str) -> str:
    """Return a file that ships with the commands."""
    return (resources.files("rating") / name).read_text(encoding="utf-8")


def print_example(file: str, name: str) -> None:
    """Print a shipped example's line of input, or for `list` all names; raises `NotFoundError` for another name."""
    examples: dict[str, dict[str, Any]] = json.loads(read_shipped(file))
    if name == "list":
        typer.echo("\n".join(examples))
    elif name in examples:
        typer.echo(json.dumps(examples[name]["input"], ensure_ascii=False))
    else:
        raise NotFoundError(f"no example is called {name!r}; there are: {', '.join(examples)}")


def answer_lines(answer: Callable[[bytes | None], dict[str, Any]]) -> None:
    """Answer every line of standard input with one of JSON; `answer` gets None for a line too long to be read."""
    out = sys.stdout.buffer
    for line in read_lines(sys.stdin.buffer):
        if line is None or line.strip():
            # A lone surrogate, which no UTF-8 has, stays the escape that it was.
            out.write(json.dumps(answer(line), ensure_ascii=False).encode(errors="backslashreplace") + b"\n")
            # Whoever writes a line and waits for its answer gets it.
            out.flush()


def error_of(faults: Sequence[Fault]) -> dict[str, Any]:
    """Return the first fault, and all of them."""
    shown = [{"code": fault.code, "reason": fault.reason, "path": fault.path} for fault in faults]
    return {**shown[0], "faults": shown}
