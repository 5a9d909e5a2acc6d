"""The `meterbook` command. Owns how commands are found and how refusals look on a terminal; stages own their commands.

Exit codes: 0 done, 1 refused or failed (the reason on standard error), 2 wrong usage.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Annotated, Any

import typer

from core.clock import SystemClock
from core.errors import InvalidInputError, MeterbookError
from runtime.processes.worker_table import STREAM_WORKERS, load_consumers
from runtime.settings import load_settings, mask_password
from runtime.stage_commands import StageGroup

app = typer.Typer(
    name="meterbook",
    cls=StageGroup,
    help="Usage events in, paid invoices out, every cent explainable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def worker(
    names: Annotated[list[str], typer.Argument(help="meter | quota | warehouse, or any billing consumers together")],
) -> None:
    """Run a worker until SIGTERM; start more of the same to scale."""
    from runtime.logs import configure_logs
    from runtime.odd_headers import read_any_header_name

    settings = load_settings()
    configure_logs(settings, "+".join(names))
    read_any_header_name()
    if len(names) == 1 and names[0] in STREAM_WORKERS:
        from runtime.processes.stream_worker import run_stream_worker

        run_stream_worker(STREAM_WORKERS[names[0]](), settings, names[0])
    from runtime.processes.consumers import run_consumers

    _run(run_consumers(settings, load_consumers(names)))


@app.command()
def api() -> None:
    """Serve the HTTP API on METERBOOK_API_HOST:METERBOOK_API_PORT (loopback by default)."""
    from runtime.logs import configure_logs
    from runtime.processes import api as api_process
    from runtime.processes.consumers import run_consumers

    settings = load_settings()
    configure_logs(settings, "api")
    _run(run_consumers(settings, [("api", api_process.run)]))


@app.command()
def migrate(as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False) -> None:
    """Bring PostgreSQL and ClickHouse to the present schema and create missing Kafka topics."""
    from runtime.kafka_topics import create_topics
    from runtime.migrations import migrate as migrate_stores

    settings = load_settings()
    done: dict[str, list[str]] = {**migrate_stores(settings), "topics": _run(create_topics(settings))}
    if as_json:
        typer.echo(json.dumps(done))
        return
    for store, names in done.items():
        typer.echo(f"{store}: {', '.join(names) if names else 'up to date'}")


@app.command(name="settings")
def show_settings() -> None:
    """Print every setting with its value; secrets and passwords stay hidden."""
    for name, value in load_settings().model_dump(mode="json").items():
        shown = mask_password(value) if isinstance(value, str) and "://" in value else value
        typer.echo(f"METERBOOK_{name.upper()}={shown if shown is not None else ''}")


class _LateNoteRefunds:
    """`invoicing.invoice_desk.NoteRefunds`, which is payments', imported when it is used."""

    async def refund_note(self, connection: Any, credit_note_id: str, *, requested_by: str) -> dict[str, Any]:
        from payments.payment_desk import NoteRefundDesk

        desk = NoteRefundDesk(SystemClock())
        return await desk.refund_note(connection, credit_note_id, requested_by=requested_by)


def _run(work: Any) -> Any:
    import uvloop

    from runtime.kafka_connection import take_uvloops_word

    take_uvloops_word()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def main() -> None:
    """Entry point of the `meterbook` command."""
    try:
        # `invoice credit --refund` gives back through payments, which invoicing does not know.
        app(obj=_LateNoteRefunds())
    except InvalidInputError as refused:
        for fault in refused.faults:
            sys.stderr.write(f"refused: {fault}\n")
        sys.exit(1)
    except MeterbookError as error:
        sys.stderr.write(f"error: {error} [{error.code}]\n")
        sys.exit(1)
