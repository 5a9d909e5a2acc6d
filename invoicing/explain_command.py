"""`meterbook explain`: where an invoice line comes from, and whether it still follows from its price and its events."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from pathlib import Path
from typing import Annotated

import psycopg
import typer
from clickhouse_connect.driver.exceptions import ClickHouseError
from rich.console import Console

from core.clock import SystemClock
from core.csv_text import safe_cell
from core.errors import Fault, InvalidInputError, MeterbookError, UnavailableError
from invoicing.adapters.clickhouse import ClickHouseUsage
from invoicing.adapters.clickhouse_events import ClickHouseEvents
from invoicing.adapters.postgres_archive import PostgresArchive
from invoicing.domain.explanation import Outcome
from invoicing.domain.stored_invoice import LineReference, read_reference
from invoicing.explain_documents import event_document, explanation_document
from invoicing.explain_line import Explained, explain_line
from invoicing.explain_text import print_explanation, print_overview, print_recipe
from runtime.logs import configure_logs
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings

_COLUMNS = (
    "line", "state", "source", "id", "type", "customer", "time", "received_at", "meter", "dimensions", "quantity",
    "place", "taken_out_by", "taken_out_at", "data",
)  # fmt: skip
REFUSED = Outcome.UNDERIVABLE.value


def explain(
    line: Annotated[str, typer.Argument(help="MB-2026-000123/4 (number and position), or an item key.")],
    whole: Annotated[bool, typer.Option("--all", help="LINE is an invoice number: every line of it.")] = False,
    events: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write the events behind the line, one row each.")
    ] = None,
    recipe: Annotated[bool, typer.Option("--recipe", help="Say how to check every digest with other tools.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Derive an invoice line again from its price and its events, and show the sum.

    Exit codes: 0 it equals what was billed, 1 it differs (and says by what), 2 it cannot be derived, or bad input.
    """
    settings = load_settings()
    configure_logs(settings, "explain")
    try:
        reference = read_reference(line, whole=whole)
        explained = asyncio.run(run_explain(settings, reference, events))
    except InvalidInputError as refused:
        for fault in refused.faults:
            sys.stderr.write(f"refused: {fault}\n")
        raise typer.Exit(REFUSED) from None
    except MeterbookError as error:
        sys.stderr.write(f"error: {error} [{error.code}]\n")
        raise typer.Exit(REFUSED) from None
    found = [one.explanation for one in explained]
    if as_json:
        documents = [explanation_document(one) for one in found]
        typer.echo(json.dumps(documents if whole or len(documents) > 1 else documents[0], ensure_ascii=False))
    else:
        console = Console(highlight=False)
        if whole:
            print_overview(found, console)
        else:
            for one in found:
                print_explanation(one, console)
        if recipe:
            print_recipe(console)
    if code := max(one.outcome.value for one in found):
        raise typer.Exit(code)


async def run_explain(settings: Settings, reference: LineReference, events_file: Path | None) -> list[Explained]:
    """Explain on the settings' stores; an outage is `UnavailableError`."""
    events, rollups = ClickHouseEvents(settings), ClickHouseUsage(settings)
    try:
        async with create_pool(settings, max_size=1) as pool:
            explained = await explain_line(
                reference, archive=PostgresArchive(pool), events=events, rollups=rollups, now=SystemClock().now()
            )
            if events_file is not None:
                await _write_events(events_file, explained)
            return explained
    except (ClickHouseError, psycopg.Error, ConnectionError, TimeoutError) as error:
        raise UnavailableError(f"a store does not answer now: {str(error)[:300]}") from error
    finally:
        await events.close()
        await rollups.close()


async def _write_events(path: Path, explained: list[Explained]) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            for one in explained:
                name = f"{one.explanation.invoice.number}/{one.explanation.position}"
                async for behind in one.events():
                    document = event_document(behind)
                    values = "; ".join(f"{key}={value}" for key, value in document["dimensions"].items())
                    row = {**document, "line": name, "dimensions": values}
                    writer.writerow([safe_cell(str(row[column] or "")) for column in _COLUMNS])
    except OSError as error:
        fault = Fault("unwritable_file", error.strerror or str(error), str(path))
        raise InvalidInputError([fault]) from error
