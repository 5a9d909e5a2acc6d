"""`meterbook invoice`: run the batch, list invoices, release a parked account; the rest is in `life_commands`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress

from core.clock import SystemClock
from core.errors import Fault, InvalidInputError, NotFoundError
from core.period import format_instant, parse_month
from invoicing.adapters.clickhouse import ClickHouseUsage
from invoicing.adapters.kafka import KafkaRequests, KafkaRequestsWaiting, KafkaUsageProgress
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.adapters.postgres_register import PostgresRegister
from invoicing.document_commands import at_desk, write_file
from invoicing.document_commands import register as register_documents
from invoicing.domain.snapshot import money_text
from invoicing.follow_run import follow_run
from invoicing.life_commands import register as register_life
from invoicing.load_terms import load_terms
from invoicing.ports import ListedInvoice
from invoicing.preview_invoice import Preview, Wish, preview_invoice
from invoicing.preview_text import preview_document, print_preview
from invoicing.run_invoicing import InvoicingRun, UsageBehindError, run_invoicing
from invoicing.try_run import Tried, tenants_to_try, try_run
from rating.domain.fields import parse_amount
from runtime.logs import configure_logs
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings

app = typer.Typer(help="Invoices: ask for them, look at them.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
T = TypeVar("T")
register_life(app)
register_documents(app)
_LOOK_AGAIN_SECONDS = 0.5


@app.command()
def run(
    period: Annotated[
        str, typer.Option(help="The month of each tenant's calendar to invoice, such as 2026-10; it must be over.")
    ],
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    wait: Annotated[int, typer.Option(help="Wait up to this many seconds until arrived usage is counted.")] = 60,
    even_if_behind: Annotated[
        bool, typer.Option("--even-if-behind", help="Do not look; what is counted later becomes a further invoice.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would be issued, without tax; nothing is stored or asked for."),
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait until the workers have handled all of it, and show how far they are.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask for the invoice of every tenant with a subscription in the period; asking again gives nothing new."""
    settings = load_settings()
    configure_logs(settings, "invoice")
    if dry_run:
        _print_tried(asyncio.run(_try(settings, period, tenant)), as_json=as_json)
        return
    done = asyncio.run(request_invoices(settings, period, tenant, wait_seconds=None if even_if_behind else wait))
    stand = asyncio.run(_follow(settings, period, tenant)) if follow else None
    if as_json:
        document = {
            "run_id": done.run_id,
            "period": done.period,
            "requested": done.requested,
            "parked": [{"tenant_id": tenant_id, "reason": reason} for tenant_id, reason in done.parked],
            "early": list(done.early),
            **({} if stand is None else {"invoices": len(stand)}),
        }
        typer.echo(json.dumps(document))
        return
    typer.echo(f"{done.run_id}: asked for {len(done.requested)} invoices of {done.period}")
    for tenant_id, reason in done.parked:
        typer.echo(f"left out, parked: {tenant_id}: {reason}")
    if done.early:
        typer.echo(f"left out, their month is not over yet: {', '.join(done.early)}")
    if stand is not None:
        typer.echo(f"all handled; {len(stand)} documents of {done.period} stand: {_sums_of(stand) or 'nothing owed'}")


@app.command(name="list")
def list_invoices(
    period: Annotated[str | None, typer.Option(help="Only this month, such as 2026-10.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    as_json: AsJson = False,
) -> None:
    """List finalized invoices by number."""
    if period:
        parse_month(period)
    invoices = asyncio.run(_with_register(load_settings(), lambda register: register.invoices(period, tenant)))
    if as_json:
        typer.echo(json.dumps([_as_document(invoice) for invoice in invoices]))
        return
    for invoice in invoices:
        total = f"{money_text(invoice.total, invoice.currency):>14} {invoice.currency}"
        typer.echo(f"{invoice.number:<20} {invoice.tenant_id:<24} {invoice.month} {total} {invoice.status}")


@app.command()
def preview(
    tenant: Annotated[str, typer.Option(help="Whose next invoice.")],
    subscription: Annotated[str | None, typer.Option(help="Which subscription, if there are several.")] = None,
    plan: Annotated[str | None, typer.Option(help="As if it changed to this plan, in its newest version.")] = None,
    quantity: Annotated[str | None, typer.Option(help="As if it had this quantity (seats).")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="As if it were cancelled.")] = False,
    at: Annotated[str | None, typer.Option(help="When the change counts from, ISO 8601 with a zone; now.")] = None,
    pdf: Annotated[Path | None, typer.Option(help="Write it as a marked PDF to this file instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the invoice of the present billing period as it would be, with a change or without; nothing is stored."""
    instant = SystemClock().now() if at is None else _read_instant(at)
    wish = Wish(plan_id=plan, quantity=_read_quantity(quantity), cancel=cancel)
    if pdf is not None:
        wanted = wish if wish != Wish() else None
        write_file(
            pdf, at_desk(lambda desk: desk.preview_pdf(tenant, instant, subscription_id=subscription, wish=wanted))
        )
        typer.echo(f"{pdf}: marked as a draft")
        return
    shown = asyncio.run(_preview(load_settings(), tenant, subscription, wish, instant))
    if as_json:
        typer.echo(json.dumps(preview_document(shown)))
        return
    print_preview(shown)


@app.command()
def unpark(tenant: Annotated[str, typer.Argument(help="The tenant whose account was looked at.")]) -> None:
    """Let a parked account be invoiced again, after a person has looked at the reason."""
    if not asyncio.run(_with_register(load_settings(), lambda register: register.unpark(tenant))):
        raise NotFoundError(f"no parked account {tenant!r}")
    typer.echo(f"{tenant} may be invoiced again")


async def _try(settings: Settings, month: str, tenant_id: str | None) -> list[Tried]:
    """Propose every tenant's invoices, with a bar at the terminal."""
    usage, clock = ClickHouseUsage(settings), SystemClock()
    try:
        async with create_pool(settings, max_size=1) as pool:
            books = PostgresBooks(pool)
            tenants = await tenants_to_try(month, tenant_id=tenant_id, register=PostgresRegister(pool), clock=clock)
            tried: list[Tried] = []
            with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
                bar = progress.add_task(f"proposing {month}", total=len(tenants))
                async for one in try_run(month, tenants, books=books, usage=usage, clock=clock):
                    tried.append(one)
                    progress.advance(bar)
            return tried
    finally:
        await usage.close()


def _print_tried(tried: list[Tried], *, as_json: bool) -> None:
    if as_json:
        documents = [
            {
                "tenant_id": one.tenant_id,
                "currency": one.currency,
                "documents": one.documents,
                "subtotal": money_text(one.subtotal, one.currency) if one.currency else None,
                "left_out": one.left_out or None,
            }
            for one in tried
        ]
        typer.echo(json.dumps(documents))
        return
    sums: dict[str, Decimal] = {}
    for one in tried:
        if one.left_out:
            typer.echo(f"{one.tenant_id:<24} left out: {one.left_out}")
        elif one.documents:
            sums[one.currency] = sums.get(one.currency, Decimal(0)) + one.subtotal
            typer.echo(f"{one.tenant_id:<24} {money_text(one.subtotal, one.currency):>14} {one.currency}")
    nothing = sum(1 for one in tried if not one.left_out and not one.documents)
    typer.echo(f"would issue {sum(one.documents for one in tried)} documents; {nothing} tenants owe nothing new")
    for currency, total in sorted(sums.items()):
        typer.echo(f"{'in all, without tax':<24} {money_text(total, currency):>14} {currency}")


async def request_invoices(
    settings: Settings, month: str, tenant_id: str | None, *, wait_seconds: int | None
) -> InvoicingRun:
    """Run the batch on the settings' engines, first waiting for usage to land (not at all if None)."""
    clock = SystemClock()
    looks = int((wait_seconds or 0) / _LOOK_AGAIN_SECONDS)
    async with create_pool(settings, max_size=1) as pool:
        while True:
            try:
                return await run_invoicing(
                    month,
                    tenant_id=tenant_id,
                    register=PostgresRegister(pool),
                    requests=KafkaRequests(settings),
                    progress=None if wait_seconds is None else KafkaUsageProgress(settings),
                    clock=clock,
                )
            except UsageBehindError:
                if looks <= 0:
                    raise
                looks -= 1
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)


async def _follow(settings: Settings, month: str, tenant_id: str | None) -> list[ListedInvoice]:
    """Wait until the requests are handled, with a bar at the terminal; returns what stands of the month then."""
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(f"invoicing {month}", total=None)
        async with KafkaRequestsWaiting(settings) as requests:
            await follow_run(
                requests,
                lambda handled, of: progress.update(bar, completed=handled, total=of),
                pause_seconds=_LOOK_AGAIN_SECONDS,
            )
    return await _with_register(settings, lambda register: register.invoices(month, tenant_id))


def _sums_of(invoices: list[ListedInvoice]) -> str:
    """Return the totals by currency for people."""
    sums: dict[str, Decimal] = {}
    for one in invoices:
        sums[one.currency] = sums.get(one.currency, Decimal(0)) + one.total
    return ", ".join(f"{money_text(total, currency)} {currency}" for currency, total in sorted(sums.items()))


async def _preview(
    settings: Settings, tenant_id: str, subscription_id: str | None, wish: Wish, at: datetime
) -> Preview:
    usage = ClickHouseUsage(settings)
    try:
        async with create_pool(settings, max_size=1) as pool:
            return await preview_invoice(
                tenant_id,
                at,
                books=PostgresBooks(pool),
                usage=usage,
                subscription_id=subscription_id,
                wish=wish if wish != Wish() else None,
                rules=load_terms(settings).tax_rules,
            )
    finally:
        await usage.close()


def _read_instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        reason = f"expected an instant with its zone, such as 2026-10-16T00:00:00Z, got {text[:40]!r}"
        raise InvalidInputError([Fault("invalid_time", reason, "at")])
    return instant.astimezone(UTC)


def _read_quantity(text: str | None) -> Decimal | None:
    if text is None:
        return None
    amount = parse_amount(text)
    if isinstance(amount, Fault):
        raise InvalidInputError([Fault(amount.code, amount.reason, "quantity")])
    return amount


async def _with_register(settings: Settings, call: Callable[[PostgresRegister], Awaitable[T]]) -> T:
    async with create_pool(settings, max_size=1) as pool:
        return await call(PostgresRegister(pool))


def _as_document(invoice: ListedInvoice) -> dict[str, Any]:
    return {
        "invoice_id": invoice.invoice_id,
        "number": invoice.number,
        "kind": invoice.kind,
        "tenant_id": invoice.tenant_id,
        "plan_id": invoice.plan_id,
        "period": invoice.month,
        "sequence": invoice.sequence,
        "status": invoice.status,
        "currency": invoice.currency,
        "total": money_text(invoice.total, invoice.currency),
        "credits_applied": money_text(invoice.credits_applied, invoice.currency),
        "amount_due": money_text(invoice.amount_due, invoice.currency),
        "amount_paid": money_text(invoice.amount_paid, invoice.currency),
        "issued_at": format_instant(invoice.issued_at),
        "due_at": format_instant(invoice.due_at),
        "paid_at": format_instant(invoice.paid_at) if invoice.paid_at else None,
        "document": invoice.document,
    }
