"""`meterbook catalogue import-prices`: a foreign table of prices in, a catalogue file out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from catalogues.import_price_book import PriceFormat, import_price_book
from catalogues.price_books.read_json import MAX_BYTES
from catalogues.price_books.sheet import Selection
from catalogues.price_books.write_book import Book
from core.errors import Fault, InvalidInputError
from rating.domain.fields import check_name

# Exit codes: 0 written, 1 refused, 3 (with --strict) left out something and wrote nothing.
LEFT_OUT_EXIT = 3


def import_prices(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The table, JSON, or JSON packed by gzip.")],
    price_format: Annotated[PriceFormat, typer.Option("--format", help="Whose table it is.")],
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="The catalogue file to write.")],
    provider: Annotated[list[str] | None, typer.Option(help="Only this provider's models; may be repeated.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Only this model, by the name your events use; may be repeated.")
    ] = None,
    plan_id: Annotated[str, typer.Option("--plan-id", help="What the plan in the book is called.")] = "llm_prices",
    by_model_only: Annotated[
        bool,
        typer.Option(
            "--by-model-only", help="Leave out prices by a request's length or service tier: no new dimensions."
        ),
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing if anything must be left out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a table of token prices as a catalogue; lists all that the catalogue cannot say, and why.

    The same table and choice give the same bytes. Compare, validate and apply the result like any catalogue.
    """
    if not check_name(plan_id):
        raise InvalidInputError([Fault("invalid_name", "lower-case letters, digits, _ . -, at most 63", "--plan-id")])
    selection = Selection(tuple(provider or ()), tuple(model or ()))
    table = _read(file)
    book = import_price_book(table, price_format, selection, plan_id=plan_id, file=str(file), by_model=by_model_only)
    refused = strict and bool(book.unexpressed)
    written = not refused and _write(output, book.content)
    _tell(book, output, written=written, refused=refused, as_json=as_json)
    if refused:
        raise typer.Exit(LEFT_OUT_EXIT)


def _tell(book: Book, output: Path, *, written: bool, refused: bool, as_json: bool) -> None:
    result = "refused" if refused else "written" if written else "unchanged"
    if as_json:
        left_out = [{"path": one.path, "code": one.code, "reason": one.reason} for one in book.unexpressed]
        document = {"result": result, "models": book.models, "prices": book.cells, "left_out": left_out}
        typer.echo(json.dumps(document))
        return
    for one in book.unexpressed:
        typer.echo(f"left out: {one}", err=True)
    counts = f"{_count(book.models, 'model')}, {_count(book.cells, 'price')}"
    left = f", {_count(len(book.unexpressed), 'entry', 'entries')} left out" if book.unexpressed else ""
    typer.echo(f"{counts}{left}: {output} {'not written' if refused else result}")


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InvalidInputError([Fault("too_large", f"more than {MAX_BYTES} bytes", str(file))])
        return file.read_bytes()
    except OSError as error:
        raise InvalidInputError([Fault("unreadable_file", error.strerror or str(error), str(file))]) from None


def _write(output: Path, content: bytes) -> bool:
    """Replace the file in one step unless it holds the same already; tell whether it did."""
    try:
        if output.is_file() and output.read_bytes() == content:
            return False
        part = output.with_name(f".{output.name}.{os.getpid()}.part")
        try:
            part.write_bytes(content)
            part.replace(output)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInputError([Fault("unwritable_file", error.strerror or str(error), str(output))]) from None
    return True
