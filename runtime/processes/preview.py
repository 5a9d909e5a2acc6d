"""`meterbook subscription preview` put together: the change as its verb would make it, the invoice as billing would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import typer

from core.clock import SystemClock
from core.errors import Fault, InvalidInputError, NotFoundError
from invoicing.adapters.clickhouse import ClickHouseUsage
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.domain.snapshot import money_text
from invoicing.load_terms import load_terms
from invoicing.preview_invoice import Preview, preview_invoice
from invoicing.preview_text import preview_document, print_preview
from rating.domain.timeline import Change
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings
from subscriptions.adapters.postgres import PostgresSubscriptionStore
from subscriptions.cancel_subscription import cancel_subscription
from subscriptions.change_add_ons import add_add_on, remove_add_on
from subscriptions.change_plan import change_plan
from subscriptions.change_quantity import change_quantity
from subscriptions.command_options import (
    At,
    AtPeriodEnd,
    SubscriptionId,
    asked_by,
    read_add_on,
    read_quantity,
    read_when,
)
from subscriptions.domain.coupon_wish import read_instant
from subscriptions.pause_subscription import pause_subscription
from subscriptions.record_changes import Outcome
from subscriptions.resume_subscription import resume_subscription

Verb = Callable[..., Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class PreviewedChange:
    """The invoice of a billing period as it is to be, as it would be with changes, and those changes."""

    as_it_is: Preview
    changed: Preview
    changes: tuple[Change, ...]


def preview(
    subscription_id: SubscriptionId,
    plan: Annotated[str | None, typer.Option(help="As if it changed to this plan.")] = None,
    quantity: Annotated[str | None, typer.Option(help="As if it had this quantity (seats).")] = None,
    add_on: Annotated[str | None, typer.Option(help="As if this were added: PLAN or PLAN:QUANTITY.")] = None,
    remove_add_on_: Annotated[str | None, typer.Option("--remove-add-on", help="As if this were taken away.")] = None,
    pause: Annotated[bool, typer.Option("--pause", help="As if it were paused.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="As if it were resumed.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="As if it were cancelled.")] = False,
    at: At = None,
    at_period_end: AtPeriodEnd = False,
    invoice_of: Annotated[
        str | None,
        typer.Option("--invoice-of", help="Of the period that holds this instant; of the change's if not given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show the next invoice with a change beside the one without it; nothing is stored."""
    wanted: list[tuple[Verb, tuple[Any, ...], dict[str, Any]]] = []
    if plan is not None:
        more = {} if quantity is None else {"quantity": read_quantity(quantity)}
        wanted.append((change_plan, (plan,), more))
    elif quantity is not None:
        wanted.append((change_quantity, (read_quantity(quantity),), {}))
    if add_on is not None:
        name, number = read_add_on(add_on)
        wanted.append((add_add_on, (name,), {"quantity": number}))
    if remove_add_on_ is not None:
        wanted.append((remove_add_on, (remove_add_on_,), {}))
    for asked, verb in ((pause, pause_subscription), (resume, resume_subscription), (cancel, cancel_subscription)):
        if asked:
            wanted.append((verb, (), {}))
    if len(wanted) > 1:
        raise InvalidInputError([Fault("contradiction", "one change at a time is previewed", "plan")])
    when = read_when(at, at_period_end)

    async def make(store: PostgresSubscriptionStore, clock: SystemClock) -> tuple[Change, ...]:
        if not wanted:
            return ()
        verb, arguments, more = wanted[0]
        asked = asked_by("preview", "", None)
        outcome = await verb(subscription_id, *arguments, asked=asked, store=store, clock=clock, when=when, **more)
        return outcome.changes

    instant = None if invoice_of is None else read_instant(invoice_of, "invoice_of")
    found = asyncio.run(preview_change(load_settings(), subscription_id, make, instant))
    if as_json:
        document = {
            "as_it_is": preview_document(found.as_it_is),
            "changed": preview_document(found.changed),
            "difference": money_text(found.changed.total - found.as_it_is.total, found.changed.currency),
        }
        typer.echo(json.dumps(document))
        return
    print_preview(found.as_it_is)
    if found.changes:
        typer.echo("\nWith the change:")
        print_preview(found.changed)
        typer.echo(f"Difference: {money_text(found.changed.total - found.as_it_is.total, found.changed.currency)}")


async def preview_change(
    settings: Settings,
    subscription_id: str,
    make: Callable[[PostgresSubscriptionStore, SystemClock], Awaitable[tuple[Change, ...]]],
    invoice_of: datetime | None,
) -> PreviewedChange:
    """Return the invoice without and with what `make` changes, which is taken back.

    Of the billing period that holds `invoice_of`, by default the present or, if that is later, when the change counts.
    A period that has not begun is shown as if nothing were billed in advance before it.
    """
    clock, usage, rules = SystemClock(), ClickHouseUsage(settings), load_terms(settings).tax_rules
    try:
        async with create_pool(settings, max_size=2) as pool:
            async with pool.connection() as connection, connection.transaction(force_rollback=True):
                store = PostgresSubscriptionStore(connection)
                subscription = await store.subscription(subscription_id)
                if subscription is None:
                    raise NotFoundError(f"no subscription {subscription_id!r}")
                changes = await make(store, clock)
            counts = [one.effective_at for one in changes]
            instant = invoice_of or max(clock.now(), subscription.started_at, *counts[:1])
            previews = [
                await preview_invoice(
                    subscription.tenant_id,
                    instant,
                    books=PostgresBooks(pool),
                    usage=usage,
                    subscription_id=subscription_id,
                    changes=also,
                    rules=rules,
                )
                for also in ((), changes)
            ]
    finally:
        await usage.close()
    return PreviewedChange(previews[0], previews[1], changes)
