"""`meterbook subscription change-plan`, `pause`, `cancel` and so on: each asks for one change."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

import typer

from core.clock import SystemClock
from subscriptions.cancel_subscription import cancel_subscription
from subscriptions.change_add_ons import add_add_on, remove_add_on
from subscriptions.change_plan import change_plan
from subscriptions.change_quantity import change_quantity
from subscriptions.command_options import (
    AsJson,
    At,
    AtPeriodEnd,
    Backdated,
    By,
    Key,
    PlanId,
    Quantity,
    Reason,
    Replace,
    SubscriptionId,
    Version,
    asked_by,
    read_quantity,
    read_when,
    run_with_store,
    tell_outcome,
)
from subscriptions.commands import read_overrides
from subscriptions.domain.coupon_wish import read_instant
from subscriptions.end_trial import end_trial
from subscriptions.pause_subscription import pause_subscription
from subscriptions.ports import SubscriptionStore
from subscriptions.reactivate_subscription import reactivate_subscription
from subscriptions.record_changes import Outcome
from subscriptions.renew_subscription import renew_subscription
from subscriptions.resume_subscription import resume_subscription
from subscriptions.withdraw_change import withdraw_change

app = typer.Typer()
add_on_app = typer.Typer(help="Further plans beside a subscription's own.", no_args_is_help=True)
app.add_typer(add_on_app, name="add-on")


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
            quantity=None if quantity is None else read_quantity(quantity),
            when=read_when(at, at_period_end),
            asked=asked_by(by, reason, key, allow_backdated, replace_scheduled),
            store=store,
            clock=clock,
        )

    tell_outcome(run_with_store(work), as_json=as_json)


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
            read_quantity(quantity),
            add_on=add_on,
            when=read_when(at, at_period_end),
            asked=asked_by(by, reason, key, allow_backdated, replace_scheduled),
            store=store,
            clock=clock,
        )

    tell_outcome(run_with_store(work), as_json=as_json)


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
            quantity=Decimal(1) if quantity is None else read_quantity(quantity),
            when=read_when(at, at_period_end),
            asked=asked_by(by, reason, key, allow_backdated, replace_scheduled),
            store=store,
            clock=clock,
        )

    tell_outcome(run_with_store(work), as_json=as_json)


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
        asked = asked_by(by, reason, key, allow_backdated, replace_scheduled)
        return await remove_add_on(
            subscription_id, plan_id, when=read_when(at, at_period_end), asked=asked, store=store, clock=clock
        )

    tell_outcome(run_with_store(work), as_json=as_json)


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
            when=read_when(at, at_period_end),
            until=None if until is None else read_instant(until, "until"),
            asked=asked_by(by, reason, key, allow_backdated, replace_scheduled),
            store=store,
            clock=clock,
        )

    tell_outcome(run_with_store(work), as_json=as_json)


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
        asked = asked_by(by, reason, key, allow_backdated, replace_scheduled)
        return await resume_subscription(
            subscription_id, when=read_when(at, at_period_end), asked=asked, store=store, clock=clock
        )

    tell_outcome(run_with_store(work), as_json=as_json)


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
        asked = asked_by(by, reason, key, allow_backdated, replace_scheduled)
        return await end_trial(subscription_id, when=read_when(at), asked=asked, store=store, clock=clock)

    tell_outcome(run_with_store(work), as_json=as_json)


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
        asked = asked_by(by, reason, key, allow_backdated, replace_scheduled)
        return await cancel_subscription(
            subscription_id, when=read_when(at, at_period_end), asked=asked, store=store, clock=clock
        )

    tell_outcome(run_with_store(work), as_json=as_json)


@app.command()
def reactivate(
    subscription_id: SubscriptionId, by: By = None, reason: Reason = "", key: Key = None, as_json: AsJson = False
) -> None:
    """Take back an end that has not come yet, or begin again after one that has."""

    async def work(store: SubscriptionStore, clock: SystemClock) -> Outcome:
        return await reactivate_subscription(subscription_id, asked=asked_by(by, reason, key), store=store, clock=clock)

    tell_outcome(run_with_store(work), as_json=as_json)


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
        asked = asked_by(by, reason, key)
        return await renew_subscription(subscription_id, periods=term, asked=asked, store=store, clock=clock)

    tell_outcome(run_with_store(work), as_json=as_json)


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
        asked = asked_by(by, reason, key, allow_backdated)
        return await withdraw_change(subscription_id, sequence, asked=asked, store=store, clock=clock)

    tell_outcome(run_with_store(work), as_json=as_json)
