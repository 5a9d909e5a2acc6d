"""`meterbook ledger`: look at the double-entry ledger, and prove it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.errors import Fault, InvalidInputError
from core.period import format_instant
from ledger.adapters.postgres import PostgresLedger
from ledger.adapters.postgres_audit import PostgresAudit
from ledger.check_ledger import LedgerProof, check_ledger
from ledger.domain.entry import SPLIT, AccountKind, LedgerEntry
from ledger.ports import Balances
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings

_LINES_DEFAULT = 50
_WIDTH_WITHOUT_TERMINAL = 500
app = typer.Typer(help="The double-entry ledger: every movement of money, debits = credits.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def show(
    tenant: Annotated[str | None, typer.Option(help="Only entries that touch this tenant.")] = None,
    account: Annotated[
        str | None, typer.Option(help="Only entries that touch this account, such as cash:stripe.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest so many entries.")] = _LINES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show entries, oldest first, and the balances of all their accounts (debits less credits)."""
    _check_account(account)
    entries, balances = asyncio.run(_read(load_settings(), tenant, account, limit))
    shown = {
        key: net
        for key, net in sorted(balances.items(), key=lambda one: (one[0][0].tenant_id or "", one[0][0].name, one[0][1]))
        if account is None or key[0].name == account
    }
    if as_json:
        typer.echo(json.dumps({"entries": [_document(one) for one in entries], "balances": _balance_documents(shown)}))
        return
    if not shown:
        typer.echo("the ledger has no such entries")
        return
    _print(["when", "what", "cause", "account", "tenant", "debit", "credit", ""], _rows(entries), ("debit", "credit"))
    rows = [(one.tenant_id or "-", one.name, f"{net:f}", currency) for (one, currency), net in shown.items()]
    _print(["tenant", "account", "balance", ""], rows, ("balance",))
    if len(entries) == limit:
        typer.echo(f"the newest {limit} entries; --limit shows more")


@app.command()
def check(as_json: AsJson = False) -> None:
    """Prove that debits equal credits and that every balance is what the books say; exit code 1 if not."""
    proof = asyncio.run(_check(load_settings()))
    if as_json:
        typer.echo(json.dumps(_proof_document(proof)))
    else:
        if proof.turnover:
            rows = [(code, f"{debits:f}", f"{credits:f}") for code, (debits, credits) in sorted(proof.turnover.items())]
            _print(["", "debits", "credits"], rows, ("debits", "credits"))
        for fault in proof.faults:
            typer.echo(f"wrong: {fault}", err=True)
        verdict = f"{len(proof.faults)} differences" if proof.faults else "the ledger is what the books say"
        typer.echo(f"{proof.entries} entries, {proof.compared} figures of the books compared: {verdict}")
    if proof.faults:
        raise typer.Exit(1)


async def _read(
    settings: Settings, tenant: str | None, account: str | None, limit: int
) -> tuple[list[LedgerEntry], Balances]:
    async with create_pool(settings, max_size=1) as pool, pool.connection() as connection, connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        ledger = PostgresLedger(connection)
        entries = await ledger.entries(tenant_id=tenant, account=account, limit=limit)
        return entries, await ledger.balances(tenant_id=tenant)


async def _check(settings: Settings) -> LedgerProof:
    async with create_pool(settings, max_size=1) as pool:
        return await check_ledger(PostgresAudit(pool))


def _check_account(account: str | None) -> None:
    if account is None:
        return
    kind, _, part = account.partition(":")
    if kind not in list(AccountKind) or (AccountKind(kind) in SPLIT) != bool(part):
        known = ", ".join(f"{one.value}:..." if one in SPLIT else one.value for one in AccountKind)
        reason = f"no account is called {account[:40]!r}; there are {known}"
        raise InvalidInputError([Fault("unknown_account", reason, "--account")])


def _rows(entries: Sequence[LedgerEntry]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for entry in entries:
        head = (entry.occurred_at.strftime("%Y-%m-%d %H:%M"), entry.kind.value, entry.cause)
        for place, one in enumerate(entry.postings):
            sides = (f"{one.debit:f}" if one.debit else "", f"{one.credit:f}" if one.credit else "")
            # What belongs to one entry is said once.
            rows.append((*(head if not place else ("", "", "")), one.account.name, one.account.tenant_id or "-", *sides,
                         one.currency))  # fmt: skip
    return rows


def _print(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, heading in enumerate(headings):
        # Ids stay whole, so that they can be copied.
        width = max((len(row[place]) for row in rows), default=0)
        table.add_column(
            heading, justify="right" if heading in right else "left", no_wrap=True, min_width=max(width, len(heading))
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    needed = console.measure(table, options=console.options.update(width=_WIDTH_WITHOUT_TERMINAL)).minimum
    width = max(console.width, needed) if console.is_terminal else _WIDTH_WITHOUT_TERMINAL
    Console(highlight=False, width=width).print(table)


def _document(entry: LedgerEntry) -> dict[str, Any]:
    return {
        "entry_id": entry.entry_id,
        "kind": entry.kind.value,
        "cause": entry.cause,
        "occurred_at": format_instant(entry.occurred_at),
        "postings": [
            {
                "account": one.account.name,
                "tenant_id": one.account.tenant_id,
                "debit": f"{one.debit:f}",
                "credit": f"{one.credit:f}",
                "currency": one.currency,
            }
            for one in entry.postings
        ],
    }


def _balance_documents(balances: Balances) -> list[dict[str, Any]]:
    return [
        {"tenant_id": one.tenant_id, "account": one.name, "balance": f"{net:f}", "currency": currency}
        for (one, currency), net in balances.items()
    ]


def _proof_document(proof: LedgerProof) -> dict[str, Any]:
    return {
        "entries": proof.entries,
        "compared": proof.compared,
        "currencies": [
            {"currency": code, "debits": f"{debits:f}", "credits": f"{credits:f}"}
            for code, (debits, credits) in sorted(proof.turnover.items())
        ],
        "faults": list(proof.faults),
    }
