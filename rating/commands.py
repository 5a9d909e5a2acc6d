"""`meterbook rate`: rates JSON lines from standard input, with the functions invoices are made with."""

from __future__ import annotations

from typing import Annotated

import typer

from rating.answer_request import answer_line
from rating.line_commands import answer_lines, print_example, read_shipped

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
        print_example(EXAMPLES, example)
    else:
        answer_lines(answer_line)
