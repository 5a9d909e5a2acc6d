"""`meterbook invoice draft-pdf|resend|render`: see a document before it is one, send it again, make its files anew."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from core.errors import Fault, InvalidInputError
from invoicing.document_desk import DocumentDesk, open_document_desk
from runtime.logs import configure_logs
from runtime.settings import load_settings

T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Number = Annotated[str, typer.Argument(help="The number, or the id, such as MB-2026-000123.")]
# By `invoicing.render_invoice.Outcome`.
_SAID = {
    "kept": "is as recorded",
    "made": "made for the first time",
    "same_bytes": "made anew, the same bytes as recorded",
    "replaced": "made anew with other bytes; what was recorded before is kept beside",
}


def draft_pdf(
    draft: Annotated[str, typer.Argument(help="The draft's id, as `invoice list` or the API show it.")],
    out: Annotated[Path, typer.Option(help="Where to write the file.")],
) -> None:
    """Write what a draft will look like: marked on every page, without number, e-invoice and bank details."""
    content = at_desk(lambda desk: desk.draft_pdf(draft))
    write_file(out, content)
    typer.echo(f"{out}: {len(content)} bytes, marked as a draft")


def resend(
    number: Number,
    to: Annotated[str | None, typer.Option(help="To another address than the one the document shows.")] = None,
    key: Annotated[str | None, typer.Option(help="Sends once per key; without one, each call is a mail.")] = None,
    as_json: AsJson = False,
) -> None:
    """Have a document sent once more, as a mail of its own; the renderer carries it."""
    sent = at_desk(lambda desk: desk.resend(number, to=to, key=key or secrets.token_hex(16)))
    typer.echo(json.dumps(sent) if as_json else f"{number} to {sent['address']}: {sent['status']}")


def render(
    number: Number,
    replace: Annotated[
        bool, typer.Option("--replace", help="Make all of them anew; other bytes than recorded take their place.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the files of a document that are gone or damaged, and say whether they are what was recorded."""
    made = at_desk(lambda desk: desk.render(number, replace=replace))
    if as_json:
        typer.echo(
            json.dumps(
                [
                    {
                        "media_type": one.document.media_type,
                        "location": one.document.location,
                        "sha256": one.document.sha256,
                        "bytes": one.document.size_bytes,
                        "outcome": one.outcome.value,
                    }
                    for one in made
                ]
            )
        )
        return
    for one in made:
        typer.echo(f"{one.document.location}: {_SAID[one.outcome.value]} ({one.document.sha256})")


def register(app: typer.Typer) -> None:
    """Add the commands to `meterbook invoice`."""
    app.command(name="draft-pdf")(draft_pdf)
    app.command()(resend)
    app.command()(render)


def at_desk(call: Callable[[DocumentDesk], Awaitable[T]]) -> T:
    """Call the desk on the settings' stores."""
    settings = load_settings()
    configure_logs(settings, "invoice")

    async def run() -> T:
        async with open_document_desk(settings) as desk:
            return await call(desk)

    return asyncio.run(run())


def write_file(path: Path, content: bytes) -> None:
    """Write a file that a person named; raises `InvalidInputError` (`cannot_write`)."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InvalidInputError([Fault("cannot_write", f"{path}: {error.strerror}", "out")]) from error
