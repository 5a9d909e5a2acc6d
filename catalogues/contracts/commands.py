"""`meterbook contract`: add, list, show and end contracts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from catalogues.contracts.adapters.postgres import PostgresContractStore
from catalogues.contracts.add_contract import Added, add_contract
from catalogues.contracts.end_contract import end_contract
from catalogues.contracts.ports import StoredContract
from catalogues.contracts.show_contract import (
    contract_document,
    list_text,
    steps_document,
    steps_text,
    version_text,
)
from catalogues.contracts.succession import Steps
from catalogues.load_catalogue import CatalogueFile, read_files
from catalogues.read_date import read_instant
from catalogues.yaml_places import place_faults
from core.clock import SystemClock
from core.errors import Fault, InvalidInputError, NotFoundError
from core.read_yaml import read_yaml
from rating.domain.fields import Fields
from runtime.postgres import Connection, create_pool
from runtime.settings import Settings, load_settings

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
# What follows from a tenant's contracts elsewhere (its limits), in the transaction that changes them.
AfterChange = Callable[[Connection, str, datetime], Awaitable[None]]


def create_contract_app(after_change: AfterChange | None = None) -> typer.Typer:
    """Return the command; `after_change` gets the connection, each changed tenant, and since when it changed."""
    app = typer.Typer(help="Tenants' own prices and terms for a plan, as YAML.", no_args_is_help=True)

    @app.command()
    def add(
        files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Contracts, one a file.")],
        as_json: AsJson = False,
    ) -> None:
        """Store contracts; one whose id is known becomes its next version, and adding twice changes nothing."""
        done = asyncio.run(add_files(load_settings(), read_files(files), after_change))
        if as_json:
            now = SystemClock().now()
            typer.echo(json.dumps([{**contract_document(one.stored, now), "outcome": one.outcome} for one in done]))
            return
        for one in done:
            _print_added(one)

    @app.command(name="list")
    def list_contracts(
        tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None, as_json: AsJson = False
    ) -> None:
        """List contracts by tenant, plan and start."""
        found = asyncio.run(_read(load_settings(), lambda store: store.contracts(tenant)))
        now = SystemClock().now()
        if as_json:
            typer.echo(json.dumps([contract_document(one, now) for one in found]))
            return
        typer.echo(list_text(found, now))

    @app.command()
    def show(contract: Annotated[str, typer.Argument(help="The contract's id.")], as_json: AsJson = False) -> None:
        """Show every version of a contract, and what it makes of the plan, price by price."""
        found, plan = asyncio.run(_read(load_settings(), lambda store: _with_plan(store, contract)))
        now = SystemClock().now()
        if as_json:
            typer.echo(json.dumps([contract_document(one, now) for one in found]))
            return
        typer.echo("\n\n".join(version_text(one, plan, now) for one in found))

    @app.command()
    def end(
        contract: Annotated[str, typer.Argument(help="The contract's id.")],
        at: Annotated[
            str | None,
            typer.Option(help="From when on it no longer counts: a date in the tenant's zone, or an instant; now."),
        ] = None,
        as_json: AsJson = False,
    ) -> None:
        """End a contract; it cannot end before now."""
        steps, time_zone = asyncio.run(end_by_id(load_settings(), contract, at, after_change))
        if as_json:
            typer.echo(json.dumps(steps_document(contract, steps)))
            return
        typer.echo("\n".join(steps_text(steps, time_zone)) or f"{contract}: nothing new, it has ended before then")

    return app


async def add_files(
    settings: Settings, files: Sequence[CatalogueFile], after_change: AfterChange | None = None
) -> list[Added]:
    """Add the contracts of files, all or none; raises `InvalidInputError` with file, line and path of every fault."""
    now = SystemClock().now()
    async with _open(settings) as (store, connection):
        done, faults = [], []
        for file in files:
            lines: dict[str, int] = {}
            try:
                document, lines = read_yaml(file.content, file.name)
            except InvalidInputError as refused:
                faults += refused.faults
                continue
            try:
                done.append(await add_contract(document, store=store, now=now))
            except InvalidInputError as refused:
                faults += place_faults(refused.faults, file.name, lines)
        if faults:
            raise InvalidInputError(faults)
        changed = [one.stored.contract for one in done if one.outcome != "as_before"]
        for tenant_id in sorted({one.tenant_id for one in changed}):
            if after_change is not None:
                since = min(one.valid_from for one in changed if one.tenant_id == tenant_id)
                await after_change(connection, tenant_id, since)
        return done


async def end_by_id(
    settings: Settings, contract_id: str, at: str | None, after_change: AfterChange | None = None
) -> tuple[Steps, str]:
    """End a contract; `at` is a date in the tenant's zone or an instant, None for now. The zone is returned, too."""
    now = SystemClock().now()
    async with _open(settings) as (store, connection):
        versions = await store.versions(contract_id)
        if not versions:
            raise NotFoundError(f"no contract {contract_id[:80]!r}")
        tenant_id = versions[0].contract.tenant_id
        time_zone = await store.lock_tenant(tenant_id) or "UTC"
        faults: list[Fault] = []
        instant = read_instant(Fields({"at": at}, "", faults), "at", time_zone) if at is not None else None
        if faults:
            raise InvalidInputError(faults)
        steps = await end_contract(contract_id, instant, store=store, now=now)
        if steps != Steps() and after_change is not None:
            await after_change(connection, tenant_id, now)
        return steps, time_zone


@asynccontextmanager
async def _open(settings: Settings) -> AsyncIterator[tuple[PostgresContractStore, Connection]]:
    async with create_pool(settings, max_size=1) as pool, pool.connection() as connection, connection.transaction():
        yield PostgresContractStore(connection), connection


async def _read(settings: Settings, question: Callable[[PostgresContractStore], Awaitable[Any]]) -> Any:
    async with _open(settings) as (store, _):
        return await question(store)


async def _with_plan(
    store: PostgresContractStore, contract_id: str
) -> tuple[list[StoredContract], dict[str, Any] | None]:
    found = await store.versions(contract_id)
    if not found:
        raise NotFoundError(f"no contract {contract_id[:80]!r}")
    newest = await store.newest_plan(found[0].contract.plan_id)
    return found, dict(newest.document) if newest else None


def _print_added(one: Added) -> None:
    contract = one.stored.contract
    if one.outcome == "as_before":
        typer.echo(f"{contract.contract_id} version {contract.version}: as before")
        return
    for line in steps_text(one.steps, one.stored.time_zone):
        typer.echo(line)
    typer.echo(version_text(one.stored, one.plan, SystemClock().now()))
