"""`meterbook usage`: what a tenant used, by windows and dimensions, and all of a period."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.clock import SystemClock
from core.csv_text import write_csv
from core.meters import Registry
from metering.domain.usage_query import ROWS_MAX
from metering.usage_desk import UsageDesk, open_usage_desk
from runtime.logs import configure_logs
from runtime.postgres import create_pool
from runtime.registry import RegistryCache
from runtime.settings import load_settings

app = typer.Typer(help="What tenants used, from ClickHouse.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print the rows as CSV.")]
Tenant = Annotated[str, typer.Argument(help="The tenant.")]


@app.command()
def query(
    tenant: Tenant,
    meter: Annotated[str, typer.Option(help="The meter.")],
    window: Annotated[str, typer.Option(help="minute | hour | day | month | billing_period | total")] = "total",
    start: Annotated[
        str | None, typer.Option("--from", help="2026-10-01 (the tenant's midnight) or RFC 3339; this month's start.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Not included; now if not given.")] = None,
    group_by: Annotated[list[str] | None, typer.Option(help="A dimension; give it again for more.")] = None,
    where: Annotated[
        list[str] | None, typer.Option("--filter", help="dimension:value; several of one dimension allow each.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=ROWS_MAX, help="Rows a page.")] = 1_000,
    cursor: Annotated[str | None, typer.Option(help="Go on where a page ended.")] = None,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show a meter's usage by windows of the tenant's own calendar, split by dimensions if asked."""
    page = _ask(
        lambda desk, registry: desk.query(
            registry,
            tenant=tenant,
            meter=meter,
            window=window,
            start=start,
            end=end,
            group_by=group_by or (),
            filters=where or (),
            limit=limit,
            cursor=cursor,
        )
    )
    if as_json:
        typer.echo(json.dumps(page))
        return
    header = ["start", "end", *page["group_by"], "quantity", "events"]
    rows = [
        [row["start"], row["end"], *row["dimensions"].values(), row["quantity"], str(row["events"])]
        for row in page["data"]
    ]
    _print(header, rows, as_csv=as_csv, title=f"{meter} of {tenant} in {page['unit']} ({page['time_zone']})")
    if page["next_cursor"] is not None:
        typer.echo(f"more: --cursor {page['next_cursor']}", err=True)


@app.command()
def summary(
    tenant: Tenant,
    period: Annotated[
        str | None, typer.Option(help="2026-10, 2026, or a billing period by its first day; the present one.")
    ] = None,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show the totals of all meters in a period."""
    found = _ask(lambda desk, registry: desk.summarize(registry, tenant=tenant, period=period))
    if as_json:
        typer.echo(json.dumps(found))
        return
    rows = [
        [row["meter"], row["aggregation"], row["quantity"], row["unit"], str(row["events"])] for row in found["data"]
    ]
    title = f"{tenant} in {found['period']}: {found['start']} to {found['end']} ({found['time_zone']})"
    _print(["meter", "aggregation", "quantity", "unit", "events"], rows, as_csv=as_csv, title=title)


def _ask(question: Callable[[UsageDesk, Registry], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    settings = load_settings()
    configure_logs(settings, "usage")

    async def run() -> dict[str, Any]:
        async with create_pool(settings, max_size=1) as pool, open_usage_desk(settings) as desk:
            loaded = await RegistryCache(pool, SystemClock(), refresh_seconds=1).refresh()
            return await question(desk, loaded.registry)

    return asyncio.run(run())


def _print(header: list[str], rows: list[list[str]], *, as_csv: bool, title: str) -> None:
    if as_csv:
        typer.echo(write_csv(header, rows), nl=False)
        return
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for name in header:
        table.add_column(name, justify="right" if name in ("quantity", "events") else "left", overflow="fold")
    for row in rows:
        # Texts, not markup: a dimension value may hold brackets.
        table.add_row(*map(Text, row))
    Console().print(table)
