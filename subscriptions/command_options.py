"""What the commands of subscriptions share: their options, how a request is run and what is told of it."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Awaitable, Callable
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, TypeVar

import typer

from core.clock import SystemClock
from core.errors import Fault, InvalidInputError
from rating.domain.fields import parse_amount
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings
from subscriptions.adapters.postgres import PostgresSubscriptionStore
from subscriptions.create_subscription import ANCHOR_AT_START
from subscriptions.domain.coupon_wish import read_instant
from subscriptions.domain.proposals import Moment, When
from subscriptions.ports import SubscriptionStore
from subscriptions.record_changes import Asked, Outcome
from subscriptions.subscription_document import as_document, change_document, show_lines

T = TypeVar("T")
E = TypeVar("E", bound=Enum)
Work = Callable[[SubscriptionStore, SystemClock], Awaitable[T]]

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


def run_with_store(work: Work[T]) -> T:
    """Run something with a store whose transaction commits at the end."""
    return asyncio.run(_with_store(load_settings(), work))


async def _with_store(settings: Settings, work: Work[T]) -> T:
    async with create_pool(settings, max_size=1) as pool, pool.connection() as connection, connection.transaction():
        return await work(PostgresSubscriptionStore(connection), SystemClock())


def tell_outcome(outcome: Outcome, *, as_json: bool, whole: bool = False) -> None:
    """Print what came of a request; `whole`: the subscription, even if nothing changed."""
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


def asked_by(
    by: str | None, reason: str, key: str | None, allow_backdated: bool = False, replace_scheduled: bool = False
) -> Asked:
    """Return by whom and how a change is asked for."""
    return Asked(by or getpass.getuser(), reason, key, allow_backdated, replace_scheduled)


def read_when(at: str | None, at_period_end: bool = False) -> When:
    """Return when a change counts; raises `InvalidInputError` (`invalid_time`, `contradiction`)."""
    if at is not None and at_period_end:
        raise InvalidInputError([Fault("contradiction", "either --at or --at-period-end", "at")])
    if at_period_end:
        return Moment.PERIOD_END
    return Moment.NOW if at is None else read_instant(at, "at")


def read_quantity(text: str) -> Decimal:
    """Return a quantity; raises `InvalidInputError` like `parse_amount`."""
    parsed = parse_amount(text)
    if isinstance(parsed, Fault):
        raise InvalidInputError([Fault(parsed.code, parsed.reason, "quantity")])
    return parsed


def read_add_on(text: str) -> tuple[str, Decimal]:
    """Return plan and quantity of `PLAN` or `PLAN:QUANTITY`; raises `InvalidInputError`."""
    plan_id, _, quantity = text.partition(":")
    return plan_id, read_quantity(quantity or "1")


def read_anchor(text: str | None) -> date | str | None:
    """Return a day, `ANCHOR_AT_START` or None; raises `InvalidInputError` (`invalid_date`)."""
    if text is None or text == ANCHOR_AT_START:
        return text
    try:
        return date.fromisoformat(text)
    except ValueError:
        reason = f"expected 2026-01-31 or {ANCHOR_AT_START}, got {text[:40]!r}"
        raise InvalidInputError([Fault("invalid_date", reason, "anchor")]) from None


def read_choice(kind: type[E], text: str, path: str) -> E:
    """Return the member with that value; raises `InvalidInputError` (`invalid_choice`)."""
    for one in kind:
        if one.value == text:
            return one
    reason = f"expected one of {', '.join(str(one.value) for one in kind)}, got {text[:40]!r}"
    raise InvalidInputError([Fault("invalid_choice", reason, path)])
