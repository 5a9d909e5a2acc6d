"""`meterbook credits`: grant, look at, take back and add up credits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar
from uuid import uuid4

import typer

from core.clock import SystemClock
from core.errors import NotFoundError
from core.period import format_instant
from rating.adapters.postgres_credits import PostgresCreditLedger
from rating.domain.credit import RAISING, Credit, CreditEntry, CreditGrant
from rating.domain.net_lines import sum_of
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings
from subscriptions.adapters.postgres_credits import PostgresCreditBooks
from subscriptions.adapters.postgres_holders import PostgresSaleFacts
from subscriptions.coupon_ports import LedgerCheck
from subscriptions.domain.coupon_wish import read_instant
from subscriptions.expire_credits import expire_credits
from subscriptions.grant_credit import grant_credit
from subscriptions.refund_credit import refund_credit
from subscriptions.show_table import show_table
from subscriptions.void_credit import void_credit

T = TypeVar("T")
Work = Callable[[PostgresCreditLedger, PostgresSaleFacts, datetime], Awaitable[T]]
app = typer.Typer(help="Credits: prepaid and promotional, in a ledger that always balances.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant.")]
GrantId = Annotated[str, typer.Argument(metavar="CREDIT", help="The credit's id, as balance shows it.")]
AsOf = Annotated[str | None, typer.Option(help="As it was known at this instant (ISO 8601, UTC); now if not given.")]


@app.command()
def grant(
    tenant_id: TenantId,
    amount: Annotated[str, typer.Argument(help="In the tenant's currency.")],
    kind: Annotated[str, typer.Option(help="paid or promotional.")] = "paid",
    priority: Annotated[int, typer.Option(help="0 to 255; lower is drawn first.")] = 100,
    effective_at: Annotated[
        str | None, typer.Option("--effective", help="Drawn from then on (ISO 8601, UTC); now if not given.")
    ] = None,
    expires_at: Annotated[
        str | None, typer.Option("--expires", help="Drawn until then, that instant not included; never if not given.")
    ] = None,
    plan: Annotated[list[str] | None, typer.Option(help="Only for lines of this plan; may be repeated.")] = None,
    meter: Annotated[list[str] | None, typer.Option(help="Only for lines of this meter; may be repeated.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks later.")] = "",
    key: Annotated[str | None, typer.Option(help="The same key grants only once.")] = None,
    as_json: AsJson = False,
) -> None:
    """Grant a tenant credit, which pays for its invoices before it does."""
    given = {
        "amount": amount,
        "kind": kind,
        "priority": priority,
        "effective_at": effective_at,
        "expires_at": expires_at,
        "plans": plan or [],
        "meters": meter or [],
        "reason": reason,
    }
    document = {field: value for field, value in given.items() if value is not None}

    async def work(ledger: PostgresCreditLedger, facts: PostgresSaleFacts, now: datetime) -> tuple[CreditGrant, bool]:
        return await grant_credit(tenant_id, document, key=key or str(uuid4()), ledger=ledger, facts=facts, now=now)

    granted, is_new = _run(work)
    if as_json:
        typer.echo(json.dumps({**describe_grant(granted), "new": is_new}))
        return
    until = "for good" if granted.expires_at is None else f"until {_when(granted.expires_at)}"
    what = f"{granted.amount:f} {granted.currency} {granted.kind.value}"
    typer.echo(f"{granted.grant_id}: {what} for {tenant_id}, {until}{'' if is_new else ' (as before)'}")


@app.command()
def balance(tenant_id: TenantId, as_of: AsOf = None, as_json: AsJson = False) -> None:
    """Show what is left of a tenant's credits, in the order in which they are drawn."""

    async def work(
        ledger: PostgresCreditLedger, facts: PostgresSaleFacts, now: datetime
    ) -> tuple[list[Credit], datetime]:
        await _must_exist(facts, tenant_id)
        at = now if as_of is None else read_instant(as_of, "as_of")
        return await credits_as_of(ledger, tenant_id, at), at

    credits, at = _run(work)
    totals = {
        currency: [credit for credit in credits if credit.grant.currency == currency]
        for currency in sorted({credit.grant.currency for credit in credits})
    }
    if as_json:
        sums = {
            currency: {
                "balance": f"{sum_of(credit.balance for credit in own):f}",
                "available": f"{sum_of(credit.available(at) for credit in own):f}",
            }
            for currency, own in totals.items()
        }
        rows = [describe_credit(credit, at) for credit in credits]
        typer.echo(json.dumps({"tenant_id": tenant_id, "as_of": format_instant(at), "totals": sums, "credits": rows}))
        return
    if not credits:
        typer.echo(f"{tenant_id}: no credits")
        return
    show_table(
        ["credit", "kind", "granted", "left", "prio", "from", "until", "status", "for"],
        [_credit_row(credit, at) for credit in credits],
        right=("granted", "left", "prio"),
        folded=("for",),
    )
    for currency, own in totals.items():
        left, usable = sum_of(credit.balance for credit in own), sum_of(credit.available(at) for credit in own)
        typer.echo(f"{tenant_id}: {left:f} {currency} left, {usable:f} of it can be drawn at {_when(at)}")


@app.command()
def history(tenant_id: TenantId, as_of: AsOf = None, as_json: AsJson = False) -> None:
    """Show every entry of a tenant's credits, as it was known then."""

    async def work(ledger: PostgresCreditLedger, facts: PostgresSaleFacts, now: datetime) -> list[CreditEntry]:
        await _must_exist(facts, tenant_id)
        return await ledger.entries_of(tenant_id, known_at=None if as_of is None else read_instant(as_of, "as_of"))

    entries = _run(work)
    if as_json:
        typer.echo(json.dumps([describe_entry(entry) for entry in entries]))
        return
    if not entries:
        typer.echo(f"{tenant_id}: no entries")
        return
    show_table(
        ["written", "credit", "what", "amount", "left", "", "against", "cause"],
        [_entry_row(entry) for entry in entries],
        right=("amount", "left"),
        folded=("cause",),
    )


@app.command()
def void(
    grant_id: GrantId,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks later.")] = "",
    as_json: AsJson = False,
) -> None:
    """Take back what is left of a credit; what was drawn stays drawn."""

    async def work(ledger: PostgresCreditLedger, facts: PostgresSaleFacts, now: datetime) -> CreditEntry | None:
        return await void_credit(grant_id, reason=reason, ledger=ledger, now=now)

    entry = _run(work)
    if as_json:
        typer.echo(json.dumps({"entry": entry and describe_entry(entry), "new": entry is not None}))
        return
    done = "void (as before)" if entry is None else f"void, {-entry.amount:f} {entry.currency} taken back"
    typer.echo(f"{grant_id}: {done}")


@app.command()
def refund(
    grant_id: GrantId,
    amount: Annotated[str | None, typer.Argument(help="How much; all that is left if not given.")] = None,
    key: Annotated[str | None, typer.Option(help="What names the refund; the same key is entered only once.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks later.")] = "",
    as_json: AsJson = False,
) -> None:
    """Enter that what is left of a paid credit was paid back; the money itself is moved elsewhere."""

    async def work(ledger: PostgresCreditLedger, facts: PostgresSaleFacts, now: datetime) -> tuple[CreditEntry, bool]:
        return await refund_credit(
            grant_id, amount, key=key or f"refund-{uuid4()}", reason=reason, ledger=ledger, now=now
        )

    entry, is_new = _run(work)
    if as_json:
        typer.echo(json.dumps({**describe_entry(entry), "new": is_new}))
        return
    again = "" if is_new else " (as before)"
    typer.echo(f"{grant_id}: {-entry.amount:f} {entry.currency} refunded, {entry.balance_after:f} left{again}")


@app.command()
def expire(as_json: AsJson = False) -> None:
    """Write down what has expired. Draws look at a credit's end themselves, so late is never wrong."""
    entries = asyncio.run(_expire(load_settings()))
    if as_json:
        typer.echo(json.dumps([describe_entry(entry) for entry in entries]))
        return
    for entry in entries:
        typer.echo(f"{entry.grant_id}: {-entry.amount:f} {entry.currency} of {entry.tenant_id} expired")
    typer.echo(f"{len(entries)} credits expired")


@app.command()
def check(as_json: AsJson = False) -> None:
    """Prove that every balance is the sum of its entries and that debits equal credits; exit code 1 if not."""
    found = asyncio.run(_check(load_settings()))
    if as_json:
        accounts = [
            {"account": account, "currency": currency, "debits_less_credits": f"{net:f}"}
            for (account, currency), net in sorted(found.accounts.items())
        ]
        document = {"credits": found.grants, "entries": found.entries, "accounts": accounts, "faults": found.faults}
        typer.echo(json.dumps(document))
    else:
        if found.accounts:
            show_table(
                ["account", "debits less credits", ""],
                [
                    (account, f"{net:f}", currency)
                    for (account, currency), net in sorted(found.accounts.items(), key=lambda each: each[0][::-1])
                ],
                right=("debits less credits",),
            )
        for fault in found.faults:
            typer.echo(f"wrong: {fault}", err=True)
        verdict = "the ledger does not balance" if found.faults else "every balance is the sum of its entries"
        typer.echo(f"{found.grants} credits, {found.entries} entries: {verdict}")
    if found.faults:
        raise typer.Exit(1)


async def credits_as_of(ledger: PostgresCreditLedger, tenant_id: str, at: datetime) -> list[Credit]:
    """Return the tenant's credits as they were known at an instant, in the draw order."""
    entries = await ledger.entries_of(tenant_id, known_at=at)
    left: dict[str, Decimal] = {}
    voided = {entry.grant_id for entry in entries if entry.kind.value == "voided"}
    for entry in entries:
        left[entry.grant_id] = left.get(entry.grant_id, Decimal(0)) + entry.amount
    return [
        replace(credit, balance=left[credit.grant.grant_id], is_voided=credit.grant.grant_id in voided)
        for credit in await ledger.credits(tenant_id)
        if credit.grant.grant_id in left
    ]


async def with_ledger(settings: Settings, work: Work[T], now: datetime) -> T:
    """Run work on the settings' ledger in one transaction."""
    async with create_pool(settings, max_size=1) as pool, pool.connection() as connection, connection.transaction():
        return await work(PostgresCreditLedger(connection), PostgresSaleFacts(connection), now)


def describe_grant(grant: CreditGrant) -> dict[str, Any]:
    """Return a grant as JSON has it: amounts as strings, instants as ISO 8601."""
    return {
        "credit_id": grant.grant_id,
        "tenant_id": grant.tenant_id,
        "kind": grant.kind.value,
        "amount": f"{grant.amount:f}",
        "currency": grant.currency,
        "priority": grant.priority,
        "effective_at": format_instant(grant.effective_at),
        "expires_at": grant.expires_at and format_instant(grant.expires_at),
        "plans": sorted(grant.plans),
        "meters": sorted(grant.meters),
        "reason": grant.reason,
        "granted_at": format_instant(grant.granted_at),
    }


def describe_credit(credit: Credit, at: datetime) -> dict[str, Any]:
    """Return a credit as JSON has it, with what is left of it."""
    return {**describe_grant(credit.grant), "balance": f"{credit.balance:f}", "status": _status(credit, at)}


def describe_entry(entry: CreditEntry) -> dict[str, Any]:
    """Return an entry as JSON has it."""
    return {
        "credit_id": entry.grant_id,
        "tenant_id": entry.tenant_id,
        "number": entry.number,
        "kind": entry.kind.value,
        "amount": f"{entry.amount:f}",
        "balance_after": f"{entry.balance_after:f}",
        "currency": entry.currency,
        "debit": entry.debit.value,
        "credit": entry.credit.value,
        "reference": entry.reference,
        "reason": entry.reason,
        "recorded_at": format_instant(entry.recorded_at),
    }


def _credit_row(credit: Credit, at: datetime) -> tuple[str, ...]:
    grant = credit.grant
    limits = [
        f"{name} {', '.join(sorted(values))}"
        for name, values in (("plan", grant.plans), ("meter", grant.meters))
        if values
    ]
    return (
        grant.grant_id,
        grant.kind.value,
        f"{grant.amount:f}",
        f"{credit.balance:f} {grant.currency}",
        str(grant.priority),
        _when(grant.effective_at),
        "" if grant.expires_at is None else _when(grant.expires_at),
        _status(credit, at),
        ": ".join(text for text in ("; ".join(limits) or "everything", grant.reason) if text),
    )


def _entry_row(entry: CreditEntry) -> tuple[str, ...]:
    # One side of every entry is the liability; the other is what tells entries apart.
    against = entry.debit if entry.kind in RAISING else entry.credit
    return (
        _when(entry.recorded_at),
        entry.grant_id,
        entry.kind.value,
        f"{entry.amount:+f}",
        f"{entry.balance_after:f}",
        entry.currency,
        against.value,
        ": ".join(text for text in (entry.reference, entry.reason) if text),
    )


def _status(credit: Credit, at: datetime) -> str:
    if credit.is_voided:
        return "void"
    if credit.grant.expires_at is not None and credit.grant.expires_at <= at:
        return "expired"
    if not credit.balance:
        return "used up"
    return "scheduled" if at < credit.grant.effective_at else "in effect"


def _when(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%d %H:%M")


async def _must_exist(facts: PostgresSaleFacts, tenant_id: str) -> None:
    if await facts.currency_of(tenant_id) is None:
        raise NotFoundError(f"no tenant {tenant_id[:80]!r}")


async def _expire(settings: Settings) -> list[CreditEntry]:
    async with create_pool(settings, max_size=1) as pool:
        return await expire_credits(PostgresCreditBooks(pool), now=SystemClock().now())


async def _check(settings: Settings) -> LedgerCheck:
    async with create_pool(settings, max_size=1) as pool:
        return await PostgresCreditBooks(pool).check()


def _run(work: Work[T]) -> T:
    return asyncio.run(with_ledger(load_settings(), work, SystemClock().now()))
