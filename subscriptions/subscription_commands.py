"""`meterbook subscription`: what tenants hold, and every change of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import typer

from core.clock import SystemClock
from core.errors import NotFoundError
from core.period import format_instant
from rating.domain.cycle import Interval
from rating.domain.proration import Convention
from rating.domain.subscription import Subscription
from runtime.postgres import create_pool
from runtime.settings import load_settings
from subscriptions.adapters.postgres import PostgresSubscriptionStore
from subscriptions.change_commands import app as change_app
from subscriptions.command_options import (
    AsJson,
    By,
    Key,
    PlanId,
    Quantity,
    Reason,
    SubscriptionId,
    Version,
    asked_by,
    read_add_on,
    read_anchor,
    read_choice,
    read_quantity,
    run_with_store,
    tell_outcome,
)
from subscriptions.commands import read_overrides
from subscriptions.create_subscription import NewSubscription, create_subscription
from subscriptions.domain.coupon_wish import read_instant
from subscriptions.domain.proposals import Moment
from subscriptions.migrate_subscribers import Migration, migrate_subscribers
from subscriptions.ports import SubscriptionStore
from subscriptions.record_changes import Outcome
from subscriptions.show_table import show_table
from subscriptions.subscription_document import as_document, show_lines, status_of

app = typer.Typer(help="Subscriptions: what tenants hold, since when, and every change of it.", no_args_is_help=True)
app.add_typer(change_app)


@app.command()
def create(
    tenant_id: Annotated[str, typer.Argument(metavar="TENANT", help="The tenant.")],
    plan_id: PlanId,
    at: Annotated[str | None, typer.Option("--at", help="When it starts (ISO 8601, UTC); now if not given.")] = None,
    version: Version = None,
    quantity: Quantity = None,
    add_on: Annotated[list[str] | None, typer.Option(help="PLAN or PLAN:QUANTITY; may be repeated.")] = None,
    override: Annotated[str, typer.Option(help="Overrides of the plan: JSON, or a file with JSON.")] = "{}",
    trial_days: Annotated[int, typer.Option(help="Days without fees, the day of the start being the first.")] = 0,
    interval: Annotated[str, typer.Option(help="Billed by the month, quarter or year.")] = "month",
    anchor: Annotated[
        str | None,
        typer.Option(help="A day on which a period begins (2026-01-31), or `start`; the tenant's own if not given."),
    ] = None,
    convention: Annotated[
        str, typer.Option(help="How parts of a period are measured: days, seconds, thirty_day_month, none.")
    ] = "days",
    term: Annotated[int | None, typer.Option(help="Ends after so many billing periods unless renewed.")] = None,
    by: By = None,
    reason: Reason = "",
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Subscribe a tenant to a plan, beside what it holds; no meter may be priced twice."""
    wanted_add_ons = [read_add_on(text) for text in add_on or ()]

    async def work(store: SubscriptionStore, clock: SystemClock) -> Outcome:
        wanted = NewSubscription(
            tenant_id=tenant_id,
            plan_id=plan_id,
            started_at=None if at is None else read_instant(at, "at"),
            version=version,
            overrides=read_overrides(override),
            quantity=Decimal(1) if quantity is None else read_quantity(quantity),
            add_ons=wanted_add_ons,
            trial_days=trial_days,
            interval=read_choice(Interval, interval, "interval"),
            anchor=read_anchor(anchor),
            convention=read_choice(Convention, convention, "convention"),
            term_periods=term,
        )
        return await create_subscription(wanted, asked=asked_by(by, reason, key), store=store, clock=clock)

    tell_outcome(run_with_store(work), as_json=as_json, whole=True)


@app.command()
def migrate(
    plan_id: PlanId,
    version: Version = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Only this tenant; may be repeated.")] = None,
    now: Annotated[bool, typer.Option("--now", help="At once; otherwise when each one's period ends.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show who would be moved or refused.")] = False,
    by: By = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Move the subscribers of a plan's other versions to one version, the newest if none is named."""
    settings = load_settings()

    async def work() -> list[Migration]:
        async with create_pool(settings, max_size=1) as pool:

            @asynccontextmanager
            async def open_store() -> AsyncIterator[SubscriptionStore]:
                async with pool.connection() as connection, connection.transaction():
                    yield PostgresSubscriptionStore(connection)

            found = migrate_subscribers(
                plan_id,
                version=version,
                tenants=tenant,
                when=Moment.NOW if now else Moment.PERIOD_END,
                dry_run=dry_run,
                asked=asked_by(by, reason, None),
                open_store=open_store,
                clock=SystemClock(),
            )
            return [one async for one in found]

    moved = asyncio.run(work())
    if as_json:
        typer.echo(json.dumps([_migration_document(one, dry_run=dry_run) for one in moved]))
    else:
        rows = [
            (
                one.subscription_id,
                one.tenant_id,
                f"v{one.from_version} → v{one.to_version}",
                format_instant(one.effective_at),
                one.refusal or ("would move" if dry_run else "moved"),
            )
            for one in moved
        ]
        if rows:
            show_table(("subscription", "tenant", "version", "from", "outcome"), rows)
        refused = sum(one.refusal is not None for one in moved)
        typer.echo(f"{len(moved) - refused} {'would be moved' if dry_run else 'moved'}, {refused} refused")
    if any(one.refusal is not None for one in moved):
        raise typer.Exit(1)


@app.command(name="list")
def list_subscriptions(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant; of all if not given.")] = None,
    ended: Annotated[bool, typer.Option("--all", help="Ended ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List subscriptions with what they hold now."""

    async def work(store: SubscriptionStore, clock: SystemClock) -> tuple[list[Subscription], datetime]:
        if tenant is not None:
            if await store.tenant(tenant) is None:
                raise NotFoundError(f"no tenant {tenant!r}")
            return await store.subscriptions(tenant), clock.now()
        return [one for _, found in await store.tenants() for one in found], clock.now()

    found, now = run_with_store(work)
    shown = [one for one in found if ended or status_of(one.timeline(), now) != "canceled"]
    if as_json:
        typer.echo(json.dumps([as_document(one, now=now) for one in shown]))
    elif shown:
        show_table(("subscription", "tenant", "status", "holds", "since"), [_row(one, now) for one in shown])
    else:
        typer.echo("no subscriptions")


@app.command()
def show(
    subscription_id: SubscriptionId,
    known_at: Annotated[str | None, typer.Option(help="As it was known at that instant (ISO 8601, UTC).")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what is held when, and every change that led there."""

    async def work(store: SubscriptionStore, clock: SystemClock) -> tuple[Subscription, datetime]:
        found = await store.subscription(subscription_id)
        if found is None:
            raise NotFoundError(f"no subscription {subscription_id!r}")
        return found, clock.now()

    found, now = run_with_store(work)
    known = None if known_at is None else read_instant(known_at, "known_at")
    if as_json:
        typer.echo(json.dumps(as_document(found, now=now, known_at=known)))
    else:
        typer.echo("\n".join(show_lines(found, now=now, known_at=known)))


def _row(subscription: Subscription, now: datetime) -> tuple[str, ...]:
    timeline = subscription.timeline()
    held = timeline.at(now)
    holds = ""
    if held is not None:
        add_ons = "".join(f" + {one.plan_id} v{one.plan_version} × {one.quantity:f}" for one in held.add_ons)
        holds = f"{held.plan_id} v{held.plan_version} × {held.quantity:f}{add_ons}"
    started = format_instant(subscription.started_at)
    return subscription.subscription_id, subscription.tenant_id, status_of(timeline, now), holds, started


def _migration_document(one: Migration, *, dry_run: bool) -> dict[str, object]:
    return {
        "subscription_id": one.subscription_id,
        "tenant_id": one.tenant_id,
        "from_version": one.from_version,
        "to_version": one.to_version,
        "effective_at": format_instant(one.effective_at),
        "outcome": "refused" if one.refusal is not None else ("would_move" if dry_run else "moved"),
        "refusal": one.refusal,
    }
