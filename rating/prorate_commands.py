"""`meterbook prorate`: prorates JSON lines from standard input, with the functions invoices are made with."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

import typer

from core.errors import InvalidInputError
from core.json_lines import decode_line
from core.money import round_to_minor
from core.period import format_instant
from rating.domain.prorate_request import ProrateRequest, read_prorate_request
from rating.domain.proration import as_decimal, prorate_change, round_fraction
from rating.domain.rate_request import read_request_id
from rating.line_commands import answer_lines, error_of, print_example, read_shipped

INPUT_SCHEMA, EXAMPLES = "prorate_input.schema.json", "prorate_examples.json"


def prorate(
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a line of input.")] = False,
    example: Annotated[
        str | None, typer.Option(help="Print a line of input for a convention or case; `list` prints their names.")
    ] = None,
) -> None:
    """Prorate JSON lines: a change of a period's amount in, credit, charge and their difference out, in order.

    A line that cannot be prorated is answered with `error`; the exit code is 0 unless reading itself fails.
    """
    if schema:
        typer.echo(read_shipped(INPUT_SCHEMA), nl=False)
    elif example is not None:
        print_example(EXAMPLES, example)
    else:
        answer_lines(answer_prorate_line)


def answer_prorate_line(line: bytes | None) -> dict[str, Any]:
    """Return the answer to one line of JSON; None stands for a line that was too long to be read."""
    request_id = None
    try:
        document = decode_line(line)
        request_id = read_request_id(document)
        return {"id": request_id, **_answer(read_prorate_request(document))}
    except InvalidInputError as refused:
        return {"id": request_id, "error": error_of(refused.faults)}


def _answer(request: ProrateRequest) -> dict[str, Any]:
    change = prorate_change(
        request.at,
        request.period,
        old=request.old,
        new=request.new,
        convention=request.convention,
        time_zone=request.time_zone,
    )
    currency = request.currency
    credit, charge = round_fraction(change.credit, currency), round_fraction(change.charge, currency)
    rounded = {
        # What is not given back was used: both add up to the old amount, whatever was rounded.
        "used": round_to_minor(request.old, currency) - credit,
        "credit": credit,
        "charge": charge,
        # Lines add up, so their difference is not rounded again.
        "net": charge - credit,
    }
    exact = {
        "used": Fraction(request.old) - change.credit,
        "credit": change.credit,
        "charge": change.charge,
        "net": change.net,
    }
    return {
        "currency": currency,
        "period": {"start": format_instant(request.period.start), "end": format_instant(request.period.end)},
        "at": format_instant(request.at),
        "convention": request.convention.value,
        "time_zone": request.time_zone,
        "share_before": _fraction(change.before),
        "share_after": _fraction(change.after),
        **{name: _money(amount, currency) for name, amount in rounded.items()},
        **{f"exact_{name}": f"{as_decimal(amount):f}" for name, amount in exact.items()},
        "fractions": {name: _fraction(amount) for name, amount in exact.items()},
        "steps": list(change.steps),
    }


def _fraction(exact: Fraction) -> str:
    return f"{exact.numerator}/{exact.denominator}"


def _money(amount: Decimal, currency: str) -> str:
    return f"{round_to_minor(amount, currency):f}"
