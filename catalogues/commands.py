"""`meterbook catalogue`: validate, compare and apply catalogue files."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from catalogues.adapters.clickhouse import ClickHouseMeteredUsage
from catalogues.adapters.postgres import PostgresCatalogueStore
from catalogues.apply_catalogue import Applied, apply_catalogue, find_difference
from catalogues.domain.difference import Difference
from catalogues.domain.edition import Catalogue
from catalogues.import_prices_command import import_prices
from catalogues.load_catalogue import CatalogueFile, load_catalogue, read_files, shipped_files
from catalogues.show_difference import date_text, difference_document, difference_text
from core.clock import SystemClock
from core.errors import Fault, InvalidInputError
from core.period import format_instant
from runtime.clickhouse import connect_clickhouse_async
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings

app = typer.Typer(help="Meters, plans and prices, as YAML.", no_args_is_help=True)
app.command("import-prices")(import_prices)
Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE...", help="Catalogue files; without any, those that ship.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DIFFERENCE_EXIT = 3


@app.command()
def validate(files: Files = None, as_json: AsJson = False) -> None:
    """Check catalogue files and report every fault with file, line, path and reason; stores nothing.

    Plans may use the meters and features of the files and those that ship. Exit code 1 if there is any fault.
    """
    names = [str(path) for path in files or []]
    try:
        shipped = load_catalogue(shipped_files())
        catalogue = load_catalogue(_read(files), shipped.meters, shipped.features)
    except InvalidInputError as refused:
        _refuse(refused.faults, names, as_json=as_json)
    if as_json:
        typer.echo(json.dumps(_catalogue_document(catalogue)))
        return
    for line in _describe(catalogue):
        typer.echo(line)
    counts = (
        (len(catalogue.meters), "meter"),
        (len(catalogue.features), "feature"),
        (len(catalogue.plans), "plan"),
        (sum(len(plan.charges) for _, plan in catalogue.plans), "charge"),
    )
    named = ", ".join(f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in counts if number)
    typer.echo(f"{named or 'nothing in it'}: all is well")


@app.command()
def diff(
    files: Files = None,
    as_json: AsJson = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help=f"Exit with {DIFFERENCE_EXIT} if anything would change.")
    ] = False,
) -> None:
    """Show what applying the files would change, charge by charge and price by price; stores nothing."""
    difference = asyncio.run(compare_files(load_settings(), _read(files)))
    if as_json:
        typer.echo(json.dumps(difference_document(difference)))
    else:
        typer.echo(difference_text(difference, is_done=False))
    if difference.refused:
        raise typer.Exit(1)
    if exit_code and not difference.is_empty:
        raise typer.Exit(DIFFERENCE_EXIT)


@app.command()
def apply(files: Files = None, as_json: AsJson = False) -> None:
    """Store meters, features and plans; a changed plan becomes its next version, and applying twice changes nothing."""
    applied = asyncio.run(apply_files(load_settings(), _read(files)))
    if as_json:
        ids = {"meters": applied.meters, "features": applied.features, "plans": dict(applied.plans)}
        typer.echo(json.dumps(ids | {"stored": difference_document(applied.difference)}))
        return
    typer.echo(difference_text(applied.difference, is_done=True))


async def apply_files(settings: Settings, files: Sequence[CatalogueFile]) -> Applied:
    """Apply catalogue files to the stores of the settings, all or nothing."""
    async with _open_stores(settings) as (store, usage):
        catalogue = load_catalogue(files, (await store.meters()).values(), (await store.features()).values())
        return await apply_catalogue(catalogue, store=store, usage=usage, now=SystemClock().now())


async def compare_files(settings: Settings, files: Sequence[CatalogueFile]) -> Difference:
    """Return what applying the files to the stores of the settings would change."""
    async with _open_stores(settings) as (store, usage):
        catalogue = load_catalogue(files, (await store.meters()).values(), (await store.features()).values())
        return await find_difference(catalogue, store=store, usage=usage, now=SystemClock().now())


@asynccontextmanager
async def _open_stores(settings: Settings) -> AsyncIterator[tuple[PostgresCatalogueStore, ClickHouseMeteredUsage]]:
    usage_client = await connect_clickhouse_async(settings)
    try:
        async with create_pool(settings, max_size=1) as pool, pool.connection() as connection, connection.transaction():
            yield PostgresCatalogueStore(connection), ClickHouseMeteredUsage(usage_client)
    finally:
        await usage_client.close()


def _read(files: list[Path] | None) -> list[CatalogueFile]:
    return read_files(files) if files else shipped_files()


def _describe(catalogue: Catalogue) -> list[str]:
    rows = []
    for edition in catalogue.editions:
        version = f"version {edition.version}" if edition.version else "next version"
        sold = date_text(edition.effective_from) if edition.effective_from else "when it is applied"
        plans = [plan.plan_id for name, plan in catalogue.plans if name == edition.catalogue]
        rows.append((edition.catalogue, version, f"from {sold}", ", ".join(plans)))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    return [
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    ]


def _catalogue_document(catalogue: Catalogue) -> dict[str, Any]:
    return {
        "editions": [
            {
                "catalogue": one.catalogue,
                "version": one.version,
                "effective_from": format_instant(one.effective_from) if one.effective_from else None,
                "digest": one.digest,
            }
            for one in catalogue.editions
        ],
        "meters": [meter.meter_id for meter in catalogue.meters],
        "features": [feature.feature_id for feature in catalogue.features],
        "plans": {plan.plan_id: plan.digest for _, plan in catalogue.plans},
    }


def _refuse(faults: Sequence[Fault], files: Sequence[str], *, as_json: bool) -> NoReturn:
    placed = [(_fault_document(fault, files), fault) for fault in faults]
    # As they stand in the files, whatever order they were found in.
    placed.sort(key=lambda one: (one[0]["file"], one[0]["line"] or 0))
    if as_json:
        typer.echo(json.dumps({"faults": [document for document, _ in placed]}))
    else:
        for _, fault in placed:
            sys.stderr.write(f"refused: {fault}\n")
        sys.stderr.write(f"{len(faults)} fault{'' if len(faults) == 1 else 's'}: nothing of it can be applied\n")
    raise typer.Exit(1)


def _fault_document(fault: Fault, files: Sequence[str]) -> dict[str, Any]:
    """Return a fault with its place (`tiers.yaml:41: plans.lite`) taken apart."""
    file = next(
        (name for name in files if fault.path.startswith(f"{name}:")), fault.path if fault.path in files else ""
    )
    rest = fault.path.removeprefix(f"{file}:") if file != fault.path else ""
    number, _, path = rest.partition(":")
    line = int(number) if number.isdecimal() else None
    return {"file": file, "line": line, "path": path.strip(), "code": fault.code, "reason": fault.reason}
