"""`meterbook dunning`: how accounts stand, what was done about them and comes next; pause and resume."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.clock import SystemClock
from core.errors import ConflictError, Fault, InvalidInputError, NotFoundError
from core.period import format_instant
from payments.dunning.adapters.postgres_dunning import PostgresDunning
from payments.dunning.adapters.postgres_status import PostgresStatus, Status
from payments.dunning.ports import Standing
from payments.dunning.read_schedules import load_schedules
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings, load_settings

_WIDTH_WITHOUT_TERMINAL = 500
app = typer.Typer(help="Dunning: unpaid invoices, step by step.", no_args_is_help=True)
TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


class PausedError(ConflictError):
    """Dunning of the account is paused already."""

    code = "already_paused"


class NotPausedError(ConflictError):
    """Dunning of the account is not paused."""

    code = "not_paused"


@app.command()
def status(
    tenant_id: Annotated[str | None, typer.Argument(metavar="[TENANT]", help="One tenant, with every step.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the accounts that are not current, or everything about one: invoices, steps, what comes next, history."""
    settings = load_settings()
    if tenant_id is None:
        accounts = asyncio.run(_accounts(settings))
        if as_json:
            typer.echo(json.dumps([_plain(one) for one in accounts]))
        elif not accounts:
            typer.echo("every account is current")
        else:
            _show_accounts(accounts)
        return
    found = asyncio.run(_status(settings, tenant_id))
    if as_json:
        typer.echo(json.dumps(_document(found)))
        return
    _show_accounts([found.account])
    _show_one(found)


@app.command()
def pause(
    tenant_id: TenantId,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks later.")] = "",
    until: Annotated[str | None, typer.Option(help="Until then (ISO 8601); until resumed if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take no step for a tenant; what was planned meanwhile comes later by as much."""
    ends, now = None if until is None else _instant(until), SystemClock().now()
    if ends is not None and ends <= now:
        raise InvalidInputError([Fault("invalid_time", "that is not in the future", "--until")])

    async def work(pool: Pool) -> Standing:
        await _must_exist(pool, tenant_id)
        paused = await PostgresDunning(pool).pause(tenant_id, until=ends, reason=reason, by=getpass.getuser(), now=now)
        if paused is None:
            raise PausedError
        return paused

    standing = asyncio.run(_with_pool(load_settings(), work))
    _tell(tenant_id, standing, as_json, f"dunning of {tenant_id} is paused" + (f" until {until}" if until else ""))


@app.command()
def resume(
    tenant_id: TenantId,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks later.")] = "",
    as_json: AsJson = False,
) -> None:
    """Take steps for a tenant again."""

    async def work(pool: Pool) -> Standing:
        await _must_exist(pool, tenant_id)
        now = SystemClock().now()
        resumed = await PostgresDunning(pool).resume(tenant_id, reason=reason, by=getpass.getuser(), now=now)
        if resumed is None:
            raise NotPausedError
        return resumed

    _tell(tenant_id, asyncio.run(_with_pool(load_settings(), work)), as_json, f"dunning of {tenant_id} goes on")


async def _with_pool(settings: Settings, work: Any) -> Any:
    async with create_pool(settings, max_size=2) as pool:
        return await work(pool)


async def _accounts(settings: Settings) -> list[dict[str, Any]]:
    async with create_pool(settings, max_size=1) as pool:
        return await PostgresStatus(pool).accounts()


async def _status(settings: Settings, tenant_id: str) -> Status:
    schedules = load_schedules(settings.dunning_file)
    async with create_pool(settings, max_size=2) as pool:
        await _must_exist(pool, tenant_id)
        found = await PostgresStatus(pool).status(tenant_id, schedules, SystemClock().now())
    nothing: dict[str, Any] = {"tenant_id": tenant_id, "stage": "current", "since": None, "paused_at": None}
    return found or Status(nothing, [], [], [], [])


async def _must_exist(pool: Pool, tenant_id: str) -> None:
    async with pool.connection() as connection:
        found = await connection.execute("SELECT 1 FROM tenants WHERE tenant_id = %s", (tenant_id,))
        if await found.fetchone() is None:
            raise NotFoundError(f"no tenant {tenant_id[:80]!r}")


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise InvalidInputError([Fault("invalid_time", f"not an instant with a zone: {text[:40]!r}", "--until")])
    return instant


def _tell(tenant_id: str, standing: Standing, as_json: bool, words: str) -> None:
    if not as_json:
        typer.echo(f"{words}; it stands {standing.stage.value}")
        return
    typer.echo(
        json.dumps(
            {
                "tenant_id": tenant_id,
                "stage": standing.stage.value,
                "paused_at": standing.paused_at and format_instant(standing.paused_at),
                "paused_until": standing.paused_until and format_instant(standing.paused_until),
            }
        )
    )


def _show_accounts(accounts: Sequence[dict[str, Any]]) -> None:
    rows = []
    for one in accounts:
        paused = ""
        if one["paused_at"] is not None:
            until = one.get("paused_until")
            paused = f"since {_when(one['paused_at'])}" + (f" until {_when(until)}" if until else "")
            paused += f" ({one['pause_reason']})" if one.get("pause_reason") else ""
        rows.append((one["tenant_id"], one["stage"], _when(one["since"]), str(one.get("invoices", 0)), paused))
    _print(["tenant", "stands", "since", "open", "paused"], rows, right=("open",))


def _show_one(found: Status) -> None:
    if found.cases:
        rows = [
            (one["number"], one["stage"] if one["is_open"] else "closed", _when(one["due_at"]),
             f"{one['amount_open']:f} {one['currency']}", one["waits_for"])
            for one in found.cases
        ]  # fmt: skip
        _print(["invoice", "stands", "due", "open", "waits for"], rows, right=("open",))
    numbers = {one["invoice_id"]: one["number"] for one in found.cases}
    done = [(numbers[one["invoice_id"]], one["name"], _when(one["done_at"]), one["outcome"], _mail(one))
            for one in found.steps]  # fmt: skip
    coming = [(number, name, _when(at), "to come", "") for number, name, at in found.upcoming]
    if done or coming:
        _print(["invoice", "step", "when", "outcome", "mail"], [*done, *coming])
    if found.history:
        changes = [
            (_when(one["changed_at"]), one["kind"], f"{one['stage_before']} -> {one['stage_after']}",
             one["changed_by"], one["reason"])
            for one in found.history
        ]  # fmt: skip
        _print(["when", "what", "stands", "by", "why"], changes)


def _mail(step: dict[str, Any]) -> str:
    if step["mail"] is None:
        return ""
    if step["mail"] == "sent":
        return f"sent {_when(step['sent_at'])}"
    return f"{step['mail']}, {step['attempts']} tries" + (f": {step['last_error']}" if step["last_error"] else "")


def _when(instant: datetime | None) -> str:
    return "" if instant is None else instant.strftime("%Y-%m-%d %H:%M")


def _document(found: Status) -> dict[str, Any]:
    return {
        **_plain(found.account),
        "invoices": [_plain(one) for one in found.cases],
        "steps": [_plain(one) for one in found.steps],
        "upcoming": [
            {"number": number, "step": name, "due_at": format_instant(at)} for number, name, at in found.upcoming
        ],
        "history": [_plain(one) for one in found.history],
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: format_instant(value) if isinstance(value, datetime) else value
        if isinstance(value, str | int | bool | None) else f"{value:f}"
        for name, value in row.items()
    }  # fmt: skip


def _print(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, heading in enumerate(headings):
        width = max((len(row[place]) for row in rows), default=0)
        is_last = place == len(headings) - 1
        table.add_column(
            heading, justify="right" if heading in right else "left", no_wrap=not is_last,
            min_width=min(width, 16) if is_last else max(width, len(heading)), overflow="fold",
        )  # fmt: skip
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    Console(highlight=False, width=console.width if console.is_terminal else _WIDTH_WITHOUT_TERMINAL).print(table)
