"""`meterbook payment`: refund, history, disputes and the product list at the provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, TypeVar

import typer

from core.clock import SystemClock
from core.errors import Fault, InvalidInputError, MeterbookError, NotFoundError
from core.period import format_instant
from payments.adapters.postgres_store import PostgresPayments
from payments.domain.history import PaymentChange
from payments.domain.refund import Refund
from payments.open_providers import open_providers
from payments.payment_desk import PaymentDesk, change_fields, refund_fields
from payments.refund_payment import RefundRequest, refund_payment
from payments.sync_catalogue import Synced, sync_catalogue
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings

app = typer.Typer(help="Payments: refund them, and see what happened to them.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
T = TypeVar("T")


@app.command("refund")
def refund(
    payment: Annotated[str, typer.Argument(help="The payment's id (pay_…).")],
    reason: Annotated[str, typer.Option(help="Why, for the history.")],
    key: Annotated[str, typer.Option(help="Names this refund: the same key never refunds twice.")],
    by: Annotated[str, typer.Option(help="Who asks for it.")],
    amount: Annotated[str | None, typer.Option(help="Such as 12.50; without it all that is left.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give a settled payment back, in full or in part."""
    done = _run(_refund(load_settings(), RefundRequest(payment, key, _read_amount(amount), reason, by)))
    if as_json:
        typer.echo(json.dumps(refund_fields(done)))
        return
    typer.echo(f"{done.refund_id}: {done.amount} of {done.payment_id} {done.status.value}")
    if done.failure_code:
        typer.echo(f"  {done.failure_code}: {done.failure_reason or ''}")


@app.command("refund-note")
def refund_note(
    note: Annotated[str, typer.Argument(help="The credit note's number or id.")],
    by: Annotated[str, typer.Option(help="Who asks for it.")],
    as_credit: Annotated[
        bool, typer.Option("--as-credit", help="Give what could not be refunded as a credit instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Refund a credit note whose credit is unused, or try again what failed."""

    async def ask(desk: PaymentDesk) -> dict[str, Any]:
        if as_credit:
            return await desk.credit_note_after_all(note)
        return await desk.refund_note(note, requested_by=by)

    _print_notes([_run(_at_desk(load_settings(), ask))], as_json=as_json)


@app.command("refunds-owed")
def refunds_owed(as_json: AsJson = False) -> None:
    """Print the credit notes whose refund failed, the oldest first: `refund-note` tries again or gives a credit."""
    _print_notes(_run(_at_desk(load_settings(), lambda desk: desk.list_owed_refunds())), as_json=as_json)


@app.command("history")
def history(payment: Annotated[str, typer.Argument(help="The payment's id (pay_…).")], as_json: AsJson = False) -> None:
    """Print every change of a payment, its refunds and disputes, oldest first."""
    changes = _run(_history(load_settings(), payment))
    if as_json:
        typer.echo(json.dumps([change_fields(change) for change in changes], indent=2))
        return
    for change in changes:
        step = f"{change.before or '-':>15} -> {change.after:15}"
        line = f"{format_instant(change.changed_at)}  {change.subject.value:8} {step}"
        because = f"{change.cause.kind.value} {change.cause.reference or ''}".rstrip()
        typer.echo(f"{line} by {because}" + (f" [{change.code}]" if change.code else ""))


@app.command("disputes")
def disputes(as_json: AsJson = False) -> None:
    """Print the disputes that wait for evidence or a decision, the nearest deadline first."""
    rows = _run(_disputes(load_settings()))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        typer.echo(
            f"{row['dispute_id']}  {row['status']:8} {row['amount']} {row['currency']}  {row['reason']}"
            f"  payment {row['payment_id']}  evidence until {row['evidence_due_at'] or 'nobody asks for any'}"
        )
    if not rows:
        typer.echo("no dispute is open")


@app.command("sync-catalogue")
def sync(as_json: AsJson = False) -> None:
    """Show the catalogue's plans and fixed fees at Stripe as products and prices; run again, nothing new."""
    done = _run(_sync(load_settings()))
    if as_json:
        typer.echo(json.dumps({"products_changed": done.products_changed, "prices_added": done.prices_added}))
        return
    typer.echo(f"{done.products} products ({len(done.products_changed)} changed), {done.prices} prices")
    for key in done.prices_added:
        typer.echo(f"  new price {key}")


def _print_notes(notes: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(notes, indent=2))
        return
    for note in notes:
        owed = f", {note['owed']} owed" if note["status"] == "owed" else ""
        typer.echo(f"{note['number']}  {note['amount']} {note['currency']}  {note['status']}{owed}")
        for part in note["refunds"]:
            failed = f" [{part['failure_code']}]" if part["failure_code"] else ""
            typer.echo(f"  {part['refund_id']}  {part['amount']} of {part['payment_id']}  {part['status']}{failed}")
    if not notes:
        typer.echo("nothing is owed")


async def _at_desk(settings: Settings, ask: Callable[[PaymentDesk], Awaitable[T]]) -> T:
    async with create_pool(settings, max_size=1) as pool:
        return await ask(PaymentDesk(pool, SystemClock()))


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except MeterbookError as error:
        # Faults name their own codes.
        typer.echo(str(error) if isinstance(error, InvalidInputError) else f"{error} [{error.code}]", err=True)
        raise typer.Exit(1) from None


async def _refund(settings: Settings, request: RefundRequest) -> Refund:
    async with open_providers(settings) as providers, create_pool(settings, max_size=1) as pool:
        store = PostgresPayments(pool)
        return await refund_payment(request, store=store, providers=providers.charging, clock=SystemClock())


async def _history(settings: Settings, payment_id: str) -> list[PaymentChange]:
    async with create_pool(settings, max_size=1) as pool, PostgresPayments(pool).transaction() as unit:
        changes = await unit.history_of(payment_id)
    if not changes:
        raise NotFoundError(f"no payment {payment_id!r}")
    return list(changes)


async def _disputes(settings: Settings) -> list[dict[str, Any]]:
    async with create_pool(settings, max_size=1) as pool:
        return list(await PostgresPayments(pool).open_disputes())


async def _sync(settings: Settings) -> Synced:
    async with open_providers(settings) as providers, create_pool(settings, max_size=1) as pool:
        if providers.stripe is None:
            raise InvalidInputError([Fault("unknown_provider", "the product list is Stripe's, which is not set up")])
        return await sync_catalogue(await PostgresPayments(pool).plan_documents(), provider=providers.stripe)


def _read_amount(amount: str | None) -> Decimal | None:
    if amount is None:
        return None
    try:
        return Decimal(amount)
    except InvalidOperation:
        raise InvalidInputError([Fault("invalid_amount", "expected a number such as 12.50", "--amount")]) from None
