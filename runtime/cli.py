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

app = typer.Typer(
    name="meterbook",
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


def _mount_stages() -> None:
    from alerts.commands import app as alert_app
    from catalogues.commands import app as catalogue_app
    from invoicing.commands import app as invoice_app
    from invoicing.explain_command import explain
    from invoicing.tax_commands import app as tax_app
    from ledger.commands import app as ledger_app
    from metering.commands import app as metering_app
    from metering.reconcile.command import create_command
    from payments.commands import app as payment_app
    from payments.dunning.commands import app as dunning_app
    from payments.payment_commands import app as payments_app
    from quotas.commands import entitlement_app, grant_app
    from rating.commands import rate
    from rating.prorate_commands import prorate
    from rating.simulate_command import create_command as create_simulate
    from runtime.demo.command import demo
    from runtime.processes import bank, contracts
    from runtime.processes.ledger_history import catch_up
    from runtime.processes.preview import preview
    from runtime.processes.price_book import read_price_book
    from runtime.processes.reconcile import open_reconciler
    from runtime.stack import commands as stack
    from subscriptions.commands import app as tenant_app
    from subscriptions.coupon_commands import app as coupon_app
    from subscriptions.credit_commands import app as credit_app
    from subscriptions.subscription_commands import app as subscription_app

    for command in (stack.up, stack.down, stack.status, stack.logs):
        app.command()(command)
    app.command()(demo)
    app.command()(rate)
    app.command()(explain)
    app.command()(create_simulate(read_price_book))
    app.command()(prorate)
    app.add_typer(catalogue_app, name="catalogue")
    app.add_typer(contracts.create_app(), name="contract")
    app.add_typer(tenant_app, name="tenant")
    subscription_app.command()(preview)
    app.add_typer(subscription_app, name="subscription")
    app.add_typer(invoice_app, name="invoice")
    app.add_typer(tax_app, name="tax")
    app.add_typer(metering_app)
    app.command()(create_command(open_reconciler))
    app.add_typer(payment_app, name="payment-method")
    app.add_typer(bank.create_app(), name="bank")
    app.add_typer(payments_app, name="payment")
    app.add_typer(entitlement_app, name="entitlements")
    app.add_typer(grant_app, name="grants")
    app.add_typer(alert_app, name="alerts")
    app.add_typer(coupon_app, name="coupon")
    app.add_typer(credit_app, name="credits")
    ledger_app.command()(catch_up)
    app.add_typer(ledger_app, name="ledger")
    app.add_typer(dunning_app, name="dunning")


def _run(work: Any) -> Any:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def main() -> None:
    """Entry point of the `meterbook` command."""
    _mount_stages()
    from payments.payment_desk import NoteRefundDesk

    try:
        # `invoice credit --refund` gives back through payments, which invoicing does not know.
        app(obj=NoteRefundDesk(SystemClock()))
    except InvalidInputError as refused:
        for fault in refused.faults:
            sys.stderr.write(f"refused: {fault}\n")
        sys.exit(1)
    except MeterbookError as error:
        sys.stderr.write(f"error: {error} [{error.code}]\n")
        sys.exit(1)
