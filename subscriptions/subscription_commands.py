"""`meterbook subscription`: what tenants hold, and every change of it."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, TypeVar

import typer

from core.clock import SystemClock
from core.errors import Fault, InvalidInputError, NotFoundError
from core.period import format_instant
from rating.domain.cycle import Interval
from rating.domain.fields import parse_amount
from rating.domain.proration import Convention
from rating.domain.subscription import Subscription
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings
from subscriptions.adapters.postgres import PostgresSubscriptionStore
from subscriptions.cancel_subscription import cancel_subscription
from subscriptions.change_add_ons import add_add_on, remove_add_on
from subscriptions.change_plan import change_plan
from subscriptions.change_quantity import change_quantity
from subscriptions.commands import read_overrides
from subscriptions.create_subscription import ANCHOR_AT_START, NewSubscription, create_subscription
from subscriptions.domain.coupon_wish import read_instant
from subscriptions.domain.proposals import Moment, When
from subscriptions.end_trial import end_trial
from subscriptions.migrate_subscribers import Migration, migrate_subscribers
from subscriptions.pause_subscription import pause_subscription
from subscriptions.ports import SubscriptionStore
from subscriptions.reactivate_subscription import reactivate_subscription
from subscriptions.record_changes import Asked, Outcome
from subscriptions.renew_subscription import renew_subscription
from subscriptions.resume_subscription import resume_subscription
from subscriptions.show_table import show_table
from subscriptions.subscription_document import as_document, change_document, show_lines, status_of
from subscriptions.withdraw_change import withdraw_change

T = TypeVar("T")
E = TypeVar("E", bound=Enum)
Work = Callable[[SubscriptionStore, SystemClock], Awaitable[T]]
app = typer.Typer(help="Subscriptions: what tenants hold, since when, and every change of it.", no_args_is_help=True)
add_on_app = typer.Typer(help="Further plans beside a subscription's own.", no_args_is_help=True)
app.add_typer(add_on_app, name="add-on")

SubscriptionId = Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="Its id, as `list` shows it.")]
PlanId = Annotated[str, typer.Argument(metavar="PLAN", help="The plan, by its id in the catalogue.")]
At = Annotated[str | None, typer.Option("--at", help="Counts from then (ISO 8601, UTC); now if not given.")]
AtPeriodEnd = Annotated[bool, typer.Option("--at-period-end", help="Counts when the running period (or trial) ends.")]
By = Annotated[str | None, typer.Option("--by", help="Who asks for it; the user's name if not given.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the change.")]
Key = Annotated[str | None, typer.Option("--key", help="Idempotency key: the same request again changes nothing.")]
Backdated = Annotated[bool, typer.Option("--allow-backdated", help="It may count longer ago than 31 days.")]
Replace = Annotated[bool, typer.Option("--replace-scheduled", help="Withdraw scheduled changes that are in its way.")]
Version = Annotated[int | None, typer.Option("--version", help="The plan's version; the newest sold if not given.")]
Quantity = Annotated[str | None, typer.Option("--quantity", help="How many: seats.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


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
    wanted_add_ons = [_read_add_on(text) for text in add_on or ()]

    async def work(store: SubscriptionStore, clock: SystemClock) -> Outcome:
        wanted = NewSubscription(
            tenant_id=tenant_id,
            plan_id=plan_id,
            started_at=clock.now() if at is None else read_instant(at, "at"),
            version=version,
            overrides=read_overrides(override),
            quantity=Decimal(1) if quantity is None else _read_quantity(quantity),
            add_ons=wanted_add_ons,
            trial_days=trial_days,
            interval=_choice(Interval, interval, "interval"),
            anchor=_read_anchor(anchor),
            convention=_choice(Convention, convention, "convention"),
            term_periods=term,
        )
        return await create_subscription(wanted, asked=_asked(by, reason, key), store=store, clock=clock)

    _tell(_run(work), as_json=as_json, whole=True)


@app.command(name="change-plan")
def change_plan_command(
    subscription_id: SubscriptionId,
    plan_id: PlanId,
    version: Version = None,
    quantity: Quantity = None,
    override: Annotated[str, typer.Option(help="Overrides of the plan: JSON, or a file with JSON.")] = "{}",
    at: At = None,
    at_period_end: AtPeriodEnd = False,
    by: By = None,
    reason: Reason = "",
    key: Key = None,
    allow_backdated: Backdated = False,
    replace_scheduled: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Hold another plan: now (an upgrade), or when the period ends (a downgrade)."""

    async def work(store: SubscriptionStore, clock: SystemClock) -> Outcome:
        return await change_plan(
            subscription_id,
            plan_id,
            version=version,
            overrides=read_overrides(override),
            quantity=None if quantity is None else _read_quantity(quantity),
            when=_when(at, at_period_end),
            asked=_asked(by, reason, key, allow_backdated, replace_scheduled),
            store=store,
            clock=clock,
        )

    _tell(_run(work), as_json=as_json)


@app.command(name="change-quantity")
def change_quantity_command(
    subscription_id: SubscriptionId,
    quantity: Annotated[str, typer.Argument(help="How many from then on: seats.")],
    add_on: Annotated[str | None, typer.Option("--add-on", help="Of this add-on.")] = None,
    at: At = None,
    at_period_end: AtPeriodEnd = False,
    by: By = None,
    reason: Reason = "",
    key: Key = None,
    allow_backdated: Backdated = False,
    replace_scheduled: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Hold another quantity: seats up or down."""

    async def work(store: SubscriptionStore, clock: SystemClock) -> Outcome:
        return await change_quantity(
            subscription_id,
            _read_quantity(quantity),
            add_on=add_on,
            when=_when(at, at_period_end),
            asked=_asked(by, reason, key, allow_backdated, replace_scheduled),
            store=store,
            clock=clock,
        )

    _tell(_run(work), as_json=as_json)


@add_on_app.command(name="add")
def add_on_add(
    subscription_id: SubscriptionId,
    plan_id: PlanId,
    version: Version = None,
    quantity: Quantity = None,
    at: At = None,
    at_period_end: AtPeriodEnd = False,
    by: By = None,
    reason: Reason = "",
    key: Key = None,
    allow_backdated: Backdated = False,
    replace_scheduled: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Hold a further plan beside the subscription's own."""

    async def work(store: SubscriptionStore, clock: SystemClock) -> Outcome:
        return await add_add_on(
            subscription_id,
            plan_id,
            version=version,
            quantity=Decimal(1) if quantity is None else _read_quantity(quantity),
            when=_when(at, at_period_end),
            asked=_asked(by, reason, key, allow_backdated, replace_scheduled),
            store=store,
            clock=clock,
        )

    _tell(_run(work), as_json=as_json)


@add_on_app.command(name="remove")
def add_on_remove(
    subscription_id: SubscriptionId,
    plan_id: PlanId,
    at: At = None,
    at_period_end: AtPeriodEnd = False,
    by: By = None,
    reason: Reason = "",
    key: Key = None,
    allow_backdated: Backdated = False,
    replace_scheduled: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Hold an add-on no longer."""

    async def work(store: SubscriptionStore, clock: SystemClock) -> Outcome:
        asked = _asked(by, reason, key, allow_backdated, replace_scheduled)
        return await remove_add_on(
            subscription_id, plan_id, when=_when(at, at_period_end), asked=asked, store=store, clock=clock
        )

    _tell(_run(work), as_json=as_json)


@app.command()
def pause(
    subscription_id: SubscriptionId,
    at: At = None,
    at_period_end: AtPeriodEnd = False,
    until: Annotated[str | None, typer.Option(help="Resume by itself then (ISO 8601, UTC).")] = None,
    by: By = None,
    reason: Reason = "",
    key: Key = None,
    allow_backdated: Backdated = False,
    replace_scheduled: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Let no fees be due; usage that still comes is rated."""

    async def work(store: SubscriptionStore, clock: SystemClock) -> Outcome:
        return await pause_subscription(
            subscription_id,
            when=_when(at, at_period_end),
            until=None if until is None else read_instant(until, "until"),
            asked=_asked(by, reason, key, allow_backdated, replace_scheduled),
            store=store,
            clock=clock,
        )

    _tell(_run(work), as_json=as_json)


@app.command()
def resume(
    subscription_id: SubscriptionId,
    at: At = None,
    at_period_end: AtPeriodEnd = False,
    by: By = None,
    reason: Reason = "",
    key: Key = None,
    allow_backdated: Backdated = False,
    replace_scheduled: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Let fees be due again."""

    async def work(store: SubscriptionStore, clock: SystemClock) -> Outcome:
        asked = _asked(by, reason, key, allow_backdated, replace_scheduled)
        return await resume_subscription(
            subscription_id, when=_when(at, at_period_end), asked=asked, store=store, clock=clock
        )

    _tell(_run(work), as_json=as_json)


@app.command(name="end-trial")
def end_trial_command(
    subscription_id: SubscriptionId,
    at: At = None,
    by: By = None,
    reason: Reason = "",
    key: Key = None,
    allow_backdated: Backdated = False,
    replace_scheduled: Replace = False,
    as_json: AsJson = False,
) -> None:
    """End a trial before its time."""

    async def work(store: SubscriptionStore, clock: SystemClock) -> Outcome:
        asked = _asked(by, reason, key, allow_backdated, replace_scheduled)
        return await end_trial(subscription_id, when=_when(at), asked=asked, store=store, clock=clock)

    _tell(_run(work), as_json=as_json)


@app.command()
def cancel(
    subscription_id: SubscriptionId,
    at: At = None,
    at_period_end: AtPeriodEnd = False,
    by: By = None,
    reason: Reason = "",
    key: Key = None,
    allow_backdated: Backdated = False,
    replace_scheduled: Replace = False,
    as_json: AsJson = False,
) -> None:
    """End it, now or when the period ends."""

    async def work(store: SubscriptionStore, clock: SystemClock) -> Outcome:
        asked = _asked(by, reason, key, allow_backdated, replace_scheduled)
        return await cancel_subscription(
            subscription_id, when=_when(at, at_period_end), asked=asked, store=store, clock=clock
        )

    _tell(_run(work), as_json=as_json)


@app.command()
def reactivate(
    subscription_id: SubscriptionId, by: By = None, reason: Reason = "", key: Key = None, as_json: AsJson = False
) -> None:
    """Take back an end that has not come yet, or begin again after one that has."""

    async def work(store: SubscriptionStore, clock: SystemClock) -> Outcome:
        return await reactivate_subscription(subscription_id, asked=_asked(by, reason, key), store=store, clock=clock)

    _tell(_run(work), as_json=as_json)


@app.command()
def renew(
    subscription_id: SubscriptionId,
    term: Annotated[int | None, typer.Option(help="For so many billing periods; without an end if not given.")] = None,
    by: By = None,
    reason: Reason = "",
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Let it go on from the end of its term."""

    async def work(store: SubscriptionStore, clock: SystemClock) -> Outcome:
        asked = _asked(by, reason, key)
        return await renew_subscription(subscription_id, periods=term, asked=asked, store=store, clock=clock)

    _tell(_run(work), as_json=as_json)


@app.command()
def withdraw(
    subscription_id: SubscriptionId,
    sequence: Annotated[int, typer.Argument(help="The change's number, as `show` lists it.")],
    by: By = None,
    reason: Reason = "",
    key: Key = None,
    allow_backdated: Backdated = False,
    as_json: AsJson = False,
) -> None:
    """Take a scheduled change back."""

    async def work(store: SubscriptionStore, clock: SystemClock) -> Outcome:
        asked = _asked(by, reason, key, allow_backdated)
        return await withdraw_change(subscription_id, sequence, asked=asked, store=store, clock=clock)

    _tell(_run(work), as_json=as_json)


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
                asked=_asked(by, reason, None),
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

    found, now = _run(work)
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

    found, now = _run(work)
    known = None if known_at is None else read_instant(known_at, "known_at")
    if as_json:
        typer.echo(json.dumps(as_document(found, now=now, known_at=known)))
    else:
        typer.echo("\n".join(show_lines(found, now=now, known_at=known)))


def _run(work: Work[T]) -> T:
    return asyncio.run(_with_store(load_settings(), work))


async def _with_store(settings: Settings, work: Work[T]) -> T:
    async with create_pool(settings, max_size=1) as pool, pool.connection() as connection, connection.transaction():
        return await work(PostgresSubscriptionStore(connection), SystemClock())


def _tell(outcome: Outcome, *, as_json: bool, whole: bool = False) -> None:
    subscription, now = outcome.subscription, SystemClock().now()
    requests = {change.sequence: request for change, request in subscription.entries}
    if as_json:
        made = [change_document(change, requests[change.sequence]) for change in outcome.changes]
        document = as_document(subscription, now=now)
        typer.echo(json.dumps({"new": outcome.is_new, "made": made, "subscription": document}))
        return
    if not outcome.changes and not whole:
        typer.echo(f"{subscription.subscription_id}: as it was, nothing to change")
        return
    typer.echo("\n".join(show_lines(subscription, now=now)))
    if not outcome.is_new:
        typer.echo("(done before)")


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


def _asked(
    by: str | None, reason: str, key: str | None, allow_backdated: bool = False, replace_scheduled: bool = False
) -> Asked:
    return Asked(by or getpass.getuser(), reason, key, allow_backdated, replace_scheduled)


def _when(at: str | None, at_period_end: bool = False) -> When:
    if at is not None and at_period_end:
        raise InvalidInputError([Fault("contradiction", "either --at or --at-period-end", "at")])
    if at_period_end:
        return Moment.PERIOD_END
    return Moment.NOW if at is None else read_instant(at, "at")


def _read_quantity(text: str) -> Decimal:
    parsed = parse_amount(text)
    if isinstance(parsed, Fault):
        raise InvalidInputError([Fault(parsed.code, parsed.reason, "quantity")])
    return parsed


def _read_add_on(text: str) -> tuple[str, Decimal]:
    plan_id, _, quantity = text.partition(":")
    return plan_id, _read_quantity(quantity or "1")


def _read_anchor(text: str | None) -> date | str | None:
    if text is None or text == ANCHOR_AT_START:
        return text
    try:
        return date.fromisoformat(text)
    except ValueError:
        reason = f"expected 2026-01-31 or {ANCHOR_AT_START}, got {text[:40]!r}"
        raise InvalidInputError([Fault("invalid_date", reason, "anchor")]) from None


def _choice(kind: type[E], text: str, path: str) -> E:
    for one in kind:
        if one.value == text:
            return one
    reason = f"expected one of {', '.join(str(one.value) for one in kind)}, got {text[:40]!r}"
    raise InvalidInputError([Fault("invalid_choice", reason, path)])
