"""`meterbook catalogue`: validate and apply catalogue files."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from catalogues.adapters.clickhouse import ClickHouseMeteredUsage
from catalogues.adapters.postgres import PostgresCatalogueStore
from catalogues.apply_catalogue import Applied, apply_catalogue
from catalogues.load_catalogue import CatalogueFile, load_catalogue, read_files, shipped_files
from core.clock import SystemClock
from runtime.clickhouse import connect_clickhouse_async
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings

app = typer.Typer(help="Meters, plans and prices, as YAML.", no_args_is_help=True)
Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE...", help="Catalogue files; without any, the tiers that ship.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def validate(files: Files = None, as_json: AsJson = False) -> None:
    """Check catalogue files and report every fault with file, line, path and reason; stores nothing.

    Plans may use the meters of the files and those that ship.
    """
    catalogue = load_catalogue(_read(files), load_catalogue(shipped_files()).meters)
    plans = {plan.plan_id: plan.digest for _, plan in catalogue.plans}
    if as_json:
        typer.echo(json.dumps({"meters": [meter.meter_id for meter in catalogue.meters], "plans": plans}))
        return
    typer.echo(f"{len(catalogue.meters)} meters, {len(plans)} plans: all is well")


@app.command()
def apply(files: Files = None, as_json: AsJson = False) -> None:
    """Store meters and plans; a changed plan becomes its next version, and applying twice changes nothing."""
    applied = asyncio.run(apply_files(load_settings(), _read(files)))
    if as_json:
        typer.echo(json.dumps({"meters": applied.meters, "plans": dict(applied.plans)}))
        return
    for meter_id in applied.meters:
        typer.echo(f"meter {meter_id}")
    for plan_id, version in applied.plans:
        typer.echo(f"plan {plan_id} version {version}")
    if not applied.meters and not applied.plans:
        typer.echo("nothing new")


async def apply_files(settings: Settings, files: list[CatalogueFile]) -> Applied:
    """Apply catalogue files to the stores of the settings, all or nothing."""
    usage_client = await connect_clickhouse_async(settings)
    try:
        async with create_pool(settings, max_size=1) as pool, pool.connection() as connection, connection.transaction():
            store = PostgresCatalogueStore(connection)
            catalogue = load_catalogue(files, (await store.meters()).values())
            usage = ClickHouseMeteredUsage(usage_client)
            return await apply_catalogue(catalogue, store=store, usage=usage, now=SystemClock().now())
    finally:
        await usage_client.close()


def _read(files: list[Path] | None) -> list[CatalogueFile]:
    return read_files(files) if files else shipped_files()
