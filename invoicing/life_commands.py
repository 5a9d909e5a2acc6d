"""`meterbook invoice …`: issue, show, credit, void, write off and issue anew; and prove that no number is missing."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from decimal import Decimal
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from core.errors import Fault, InvalidInputError, NotFoundError
from core.ids import derive_id
from invoicing.adapters.postgres_numbers import PostgresNumbers
from invoicing.adapters.postgres_register import PostgresRegister
from invoicing.check_numbers import check_numbers
from invoicing.domain.snapshot import money_text
from invoicing.invoice_desk import Document, InvoiceDesk, NoteRefunds, open_invoice_desk, standing_document
from invoicing.issue_one_time import OneTimeItem
from invoicing.show_invoice import ShownInvoice
from rating.domain.fields import parse_amount
from rating.domain.price import plain
from runtime.logs import configure_logs
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings

T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Number = Annotated[str, typer.Argument(help="The number, or the id, such as MB-2026-000123.")]
Reason = Annotated[str, typer.Option(help="Why, for the document and the books.")]


def now(
    tenant: Annotated[str, typer.Option(help="Whose invoice.")],
    period: Annotated[str, typer.Option(help="A month that is over, or an instant: the last period before it.")],
    as_json: AsJson = False,
) -> None:
    """Issue what a tenant owes for a period at once, without a run and without a grace; again: nothing new."""
    made = _at_desk(lambda desk: desk.invoice_now(tenant, period))
    _print(made, as_json=as_json, nothing=f"nothing new is owed by {tenant} for {period}")


def one_time(
    tenant: Annotated[str, typer.Option(help="Who buys.")],
    item: Annotated[
        list[str],
        typer.Option(metavar="DESCRIPTION:PRICE[:QUANTITY[:UNIT]]", help="What is sold; more than one may be."),
    ],
    key: Annotated[str | None, typer.Option(help="Sells once per key; without one, once per tenant and items.")] = None,
    as_json: AsJson = False,
) -> None:
    """Invoice one-time items: a setup fee, an add-on sold once."""
    items = [read_item(text) for text in item]
    named = key or derive_id("key", *(json.dumps(one.as_document(), sort_keys=True) for one in items))
    _print([_at_desk(lambda desk: desk.sell_once(tenant, [asdict(one) for one in items], key=named))], as_json=as_json)


def credit(
    context: typer.Context,
    number: Number,
    reason: Reason,
    amount: Annotated[str | None, typer.Option(help="How much, with tax; without it, all that is left.")] = None,
    line: Annotated[
        list[str] | None,
        typer.Option(metavar="POSITION[=AMOUNT]", help="Only of this line; more than one may be named."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Gives back once per key; without one, once per same wish.")] = None,
    refund: Annotated[
        bool, typer.Option("--refund", help="What was paid goes back through its payments, in place of a credit.")
    ] = False,
    by: Annotated[str, typer.Option(help="Who asks for the refund.")] = "meterbook",
    as_json: AsJson = False,
) -> None:
    """Give back part of an invoice, or all of it, by a credit note; what was billed stays billed."""
    wished = None if amount is None else _read_amount(amount, "amount")
    lines = dict(read_line(text) for text in line or ())
    named = key or derive_id("key", number, reason, amount or "", *sorted(line or ()), *(["refund"] if refund else []))
    if refund:
        made = _at_desk(
            lambda desk: desk.credit_and_refund(
                number, amount=wished, lines=lines, reason=reason, key=named, requested_by=by
            ),
            _refunds_of(context),
        )
        _print([made], as_json=as_json)
        if not as_json:
            back = made["refund"]
            typer.echo(f"{back['amount']} {back['currency']} to be refunded: {back['status']}")
        return
    made = _at_desk(lambda desk: desk.credit(number, amount=wished, lines=lines, reason=reason, key=named))
    _print([made], as_json=as_json)


def void(number: Number, reason: Reason, as_json: AsJson = False) -> None:
    """Void an invoice without money on it: it counts as never billed, and its number stays used."""
    _print([_at_desk(lambda desk: desk.void(number, reason=reason))], as_json=as_json)


def write_off(number: Number, reason: Reason, as_json: AsJson = False) -> None:
    """Let an invoice be uncollectible; it stays billed, and money that comes all the same is taken."""
    _print([_at_desk(lambda desk: desk.write_off(number, reason=reason))], as_json=as_json)


def reissue(number: Number, reason: Reason, as_json: AsJson = False) -> None:
    """Take an invoice back and issue what is owed for its period now, in one go."""
    _print(_at_desk(lambda desk: desk.reissue(number, reason=reason)), as_json=as_json)


def finalize(
    tenant: Annotated[str | None, typer.Option(help="Only drafts of this tenant.")] = None,
    early: Annotated[bool, typer.Option("--early", help="Also drafts whose grace is not over.")] = False,
    as_json: AsJson = False,
) -> None:
    """Finalize drafts whose grace is over: what is owed is looked at once more, then they get their numbers."""
    done = _at_desk(lambda desk: desk.finalize(tenant_id=tenant, is_early=early))
    if as_json:
        document = {
            "issued": [{"number": one.number, "tenant_id": one.tenant_id} for one in done.issued],
            "dropped": list(done.dropped),
            "parked": list(done.parked),
        }
        typer.echo(json.dumps(document))
        return
    for one in done.issued:
        total = money_text(one.total, one.draft.currency)
        typer.echo(f"{one.number:<20} {one.tenant_id:<24} {total:>14} {one.draft.currency}")
    typer.echo(f"{len(done.issued)} issued, {len(done.dropped)} of which nothing is owed any more")
    if done.parked:
        typer.echo(f"left as they are, parked: {', '.join(done.parked)}")


def show(
    number: Number,
    as_known_now: Annotated[
        bool, typer.Option("--now", help="Beside what it said: what is owed for its items as known now.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a document as it was issued and how it stands; with --now what its items would come to today."""
    shown = _at_desk(lambda desk: desk.show(number, is_now=as_known_now))
    if as_json:
        typer.echo(json.dumps(_shown_document(shown)))
        return
    _print_shown(shown)


def numbers(
    check: Annotated[bool, typer.Option("--check", help="Fail where a number is missing or stands twice.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how many numbers each series gave out; with --check prove that there is no gap and no double (exit 1)."""
    settings = load_settings()
    configure_logs(settings, "invoice")
    found = asyncio.run(_check_numbers(settings))
    if as_json:
        typer.echo(json.dumps({"given_out": dict(found.given_out), "faults": list(found.faults)}))
    else:
        for series, last in found.given_out.items():
            typer.echo(f"{series:<16} 1 to {last}")
        for fault in found.faults:
            typer.echo(f"wrong: {fault}")
        if not found.faults:
            typer.echo("no gap, no double")
    if check and found.faults:
        raise typer.Exit(1)


def parked(as_json: AsJson = False) -> None:
    """List accounts that are not invoiced until a person has looked, with the reason; `unpark` releases one."""
    found = asyncio.run(_parked(load_settings()))
    if as_json:
        typer.echo(
            json.dumps([{"tenant_id": tenant, "since": since, "reason": reason} for tenant, since, reason in found])
        )
        return
    for tenant, since, reason in found:
        typer.echo(f"{tenant:<24} {since} {reason}")
    if not found:
        typer.echo("no account is parked")


def consolidate(
    tenant: Annotated[str, typer.Argument(help="Whose subscriptions.")],
    off: Annotated[bool, typer.Option("--off", help="An invoice for each again.")] = False,
) -> None:
    """From the next invoice on, put all of a tenant's subscriptions of the same period and currency on one document."""
    if not asyncio.run(_consolidate(load_settings(), tenant, is_on=not off)):
        raise NotFoundError(f"no tenant {tenant[:80]!r}")
    typer.echo(f"{tenant}: {'an invoice for each subscription' if off else 'one invoice for all subscriptions'}")


def register(app: typer.Typer) -> None:
    """Add the commands to `meterbook invoice`."""
    app.command()(now)
    app.command(name="one-time")(one_time)
    app.command()(credit)
    app.command()(void)
    app.command(name="write-off")(write_off)
    app.command()(reissue)
    app.command()(finalize)
    app.command()(show)
    app.command()(numbers)
    app.command()(parked)
    app.command()(consolidate)


def _refunds_of(context: typer.Context) -> NoteRefunds | None:
    given = context.find_root().obj
    return given if isinstance(given, NoteRefunds) else None


def _at_desk(call: Callable[[InvoiceDesk], Awaitable[T]], refunds: NoteRefunds | None = None) -> T:
    settings = load_settings()
    configure_logs(settings, "invoice")

    async def run() -> T:
        async with open_invoice_desk(settings, refunds=refunds) as desk:
            return await call(desk)

    return asyncio.run(run())


async def _check_numbers(settings: Settings) -> Any:
    async with create_pool(settings, max_size=1) as pool:
        return await check_numbers(PostgresNumbers(pool))


async def _consolidate(settings: Settings, tenant_id: str, *, is_on: bool) -> bool:
    async with create_pool(settings, max_size=1) as pool:
        return await PostgresRegister(pool).consolidate(tenant_id, is_on=is_on)


async def _parked(settings: Settings) -> list[tuple[str, str, str]]:
    async with create_pool(settings, max_size=1) as pool:
        return await PostgresRegister(pool).parked()


def _read_amount(text: str, path: str) -> Decimal:
    amount = parse_amount(text)
    if isinstance(amount, Fault):
        raise InvalidInputError([Fault(amount.code, amount.reason, path)])
    return amount


def read_line(text: str) -> tuple[int, Decimal | None]:
    """Return position and amount of `4` or `4=1.50`; raises `InvalidInputError`."""
    position, _, amount = text.partition("=")
    if not (position.isascii() and position.isdigit() and len(position) <= 6):
        raise InvalidInputError(
            [Fault("invalid_line", f"expected a position such as 4 or 4=1.50, got {text[:40]!r}", "line")]
        )
    return int(position), _read_amount(amount, "line") if amount else None


def read_item(text: str) -> OneTimeItem:
    """Return the item of `Setup:99.00:1:piece`; raises `InvalidInputError`."""
    description, *rest = text.split(":")
    if not 1 <= len(rest) <= 3:
        reason = f"expected DESCRIPTION:PRICE[:QUANTITY[:UNIT]], got {text[:80]!r}"
        raise InvalidInputError([Fault("invalid_items", reason, "item")])
    quantity = _read_amount(rest[1], "quantity") if len(rest) > 1 else Decimal(1)
    return OneTimeItem(description, _read_amount(rest[0], "price"), quantity, rest[2] if len(rest) > 2 else "")


def _print(made: list[Document], *, as_json: bool, nothing: str = "nothing new") -> None:
    if as_json:
        typer.echo(json.dumps(made))
        return
    for one in made:
        due = f"due {one['amount_due']}" if one["kind"] == "invoice" else "credit note"
        total = f"{one['total']:>14} {one['currency']}"
        typer.echo(f"{one['number'] or one['invoice_id']:<20} {one['tenant_id']:<24} {total} {one['status']:<13} {due}")
    if not made:
        typer.echo(nothing)


def _shown_document(shown: ShownInvoice) -> Document:
    currency = shown.standing.currency
    document = {
        **standing_document(shown.standing),
        "corrected_by": [one.name for one in shown.corrected_by],
        "snapshot": dict(shown.snapshot),
    }
    if shown.items is not None:
        document["items_now"] = [
            {
                "description": one.description,
                "billed": money_text(one.billed, currency),
                "given_back": money_text(one.given_back, currency),
                "owed": money_text(one.owed, currency),
                "difference": money_text(one.difference, currency),
            }
            for one in shown.items
        ]
    return document


def _print_shown(shown: ShownInvoice) -> None:
    standing = shown.standing
    currency = standing.currency
    wide = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    kind = "Credit note" if standing.kind.value == "credit_note" else "Invoice"
    wide.print(f"{kind} {standing.name} of {standing.tenant_id}, {standing.period}: {standing.status}")
    if standing.reason:
        wide.print(f"because: {standing.reason}")
    table = Table(box=None, title="As issued", title_justify="left")
    for name in ("#", "Line", "Quantity", f"Amount ({currency})"):
        table.add_column(name, justify="left" if name == "Line" else "right", overflow="fold")
    for position, line in enumerate(shown.lines, 1):
        table.add_row(str(position), line.description, plain(line.quantity), money_text(line.amount, currency))
    wide.print(table)
    figures = [
        ("Total", standing.total),
        ("Credit applied", -standing.credits_applied),
        ("Credit notes", -standing.amount_credited),
        ("Paid", -standing.amount_paid),
        ("Open", standing.amount_open),
    ]
    for name, amount in figures:
        if amount or name in ("Total", "Open"):
            wide.print(f"{name:<16}{money_text(amount, currency):>14} {currency}")
    if shown.corrected_by:
        wide.print(f"Corrected by {', '.join(one.name for one in shown.corrected_by)}")
    if shown.items is not None:
        _print_now(wide, shown, currency)


def _print_now(wide: Console, shown: ShownInvoice, currency: str) -> None:
    table = Table(box=None, title="As known now", title_justify="left")
    for name in ("Item", "Billed", "Given back", "Owed", "Next invoice"):
        table.add_column(name, justify="left" if name == "Item" else "right", overflow="fold")
    for one in shown.items or ():
        amounts = (one.billed, one.given_back, one.owed, one.difference)
        table.add_row(one.description, *(money_text(amount, currency) for amount in amounts))
    wide.print(table)
    left = sum((one.difference for one in shown.items or ()), Decimal(0))
    wide.print(
        "nothing new" if not left else f"The next invoice would bill {money_text(left, currency)} {currency} of it"
    )
