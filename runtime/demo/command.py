"""`meterbook demo`."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def demo(
    trace: Annotated[
        Path | None, typer.Option(help="Replay a real LLM trace (Azure's CSV format, gzipped or not) instead.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the summary for programs to standard output.")] = False,
    output: Annotated[Path, typer.Option(help="Where the PDFs go; emptied first.")] = Path("demo-output"),
    home: Annotated[Path, typer.Option(help="Data folder of the demo's own engines; emptied first.")] = Path(
        ".meterbook/demo"
    ),
    seed: Annotated[int, typer.Option(help="The same seed gives the same usage.")] = 20_261,
    rate: Annotated[int, typer.Option(help="Events per second to send.", min=100)] = 22_000,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the engines running afterwards.")] = False,
) -> None:
    """Run the main job: usage in, live quotas and alerts, invoices, PDFs, payments; every figure checked.

    Exit code 0 only if every check passed.
    """
    from runtime.demo.azure_trace import read_azure_trace
    from runtime.demo.report import print_report, summarize
    from runtime.demo.run_demo import Demo, DemoOptions, check_home
    from runtime.demo.scenario import build_scenario
    from runtime.logs import configure_logs
    from runtime.settings import load_settings

    # With --json, standard output belongs to the summary; what a person reads goes to standard error.
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console = Console(stderr=as_json, width=120)
    configure_logs(load_settings(log_level="WARNING", log_json=False), "demo")
    check_home(home)
    usage = read_azure_trace(trace) if trace else build_scenario(datetime.now(UTC), seed)
    options = DemoOptions(
        home=home,
        output=output,
        seed=seed,
        events_per_second=rate,
        keep=keep,
        duplicates_percent=5 if trace else 3,
        api_events=500 if trace else 3_000,
        # A trace may be years old; the limit on an event's age protects live feeds.
        extra_environment={"METERBOOK_EVENT_MAX_AGE_DAYS": "20000"} if trace else {},
    )
    outcome = asyncio.run(Demo(usage, options, console).run())
    print_report(outcome, console)
    if as_json:
        typer.echo(json.dumps(summarize(outcome), indent=1))
    if not all(check.passed for check in outcome.checks):
        raise typer.Exit(1)
