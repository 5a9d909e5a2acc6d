"""`meterbook rate`: rates JSON lines from standard input, with the functions invoices are made with."""

from __future__ import annotations

import json
import sys
from importlib import resources
from typing import Annotated, Any

import typer

from core.errors import NotFoundError
from core.json_lines import read_lines
from rating.answer_request import answer_line

INPUT_SCHEMA, EXAMPLES = "rate_input.schema.json", "rate_examples.json"


def rate(
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a line of input.")] = False,
    example: Annotated[
        str | None,
        typer.Option(help="Print a line of input for a price model or adjustment; `list` prints their names."),
    ] = None,
) -> None:
    """Rate JSON lines: each a price or charges and a usage in, a total and its lines out, in the order of input.

    A line that cannot be rated is answered with `error`; the exit code is 0 unless reading itself fails.
    """
    if schema:
        typer.echo(read_shipped(INPUT_SCHEMA), nl=False)
    elif example is not None:
        _print_example(example)
    else:
        _rate_lines()


def read_shipped(name: str) -> str:
    """Return a file that ships with the command."""
    return (resources.files("rating") / name).read_text(encoding="utf-8")


def _print_example(name: str) -> None:
    examples: dict[str, dict[str, Any]] = json.loads(read_shipped(EXAMPLES))
    if name == "list":
        typer.echo("\n".join(examples))
    elif name in examples:
        typer.echo(json.dumps(examples[name]["input"], ensure_ascii=False))
    else:
        raise NotFoundError(f"no example is called {name!r}; there are: {', '.join(examples)}")


def _rate_lines() -> None:
    out = sys.stdout.buffer
    for line in read_lines(sys.stdin.buffer):
        if line is None or line.strip():
            # A lone surrogate, which no UTF-8 has, stays the escape that it was.
            answer = json.dumps(answer_line(line), ensure_ascii=False).encode(errors="backslashreplace")
            out.write(answer + b"\n")
            # Whoever writes a line and waits for its answer gets it.
            out.flush()
