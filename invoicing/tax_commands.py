"""`meterbook tax`: check VAT numbers with VIES, and look at rates."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any

import typer

from core.clock import SystemClock
from core.errors import Fault, InvalidInputError
from core.period import format_instant
from invoicing.adapters.postgres_vat_checks import PostgresVatChecks
from invoicing.adapters.seller_file import load_seller
from invoicing.adapters.tax_tables import load_tax_tables
from invoicing.adapters.vies import Vies, requester_of
from invoicing.check_vat_numbers import RECHECK_AFTER, VatCheck, check_vat_numbers
from invoicing.domain.tax.treatment import rate_text
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings

app = typer.Typer(help="VAT numbers and tax rates.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command("check-vat")
def check_vat(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant, however lately it was asked about.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask VIES about tenants' VAT numbers that were not checked for a month, or never.

    Exit code 1 if any could not be checked: such a number stays as it was.
    """
    found = asyncio.run(_check(load_settings(), tenant))
    if tenant is not None and not found:
        reason = "no tenant of the Union with a VAT number goes by that id"
        raise InvalidInputError([Fault("nothing_to_check", reason, "tenant")])
    if as_json:
        typer.echo(json.dumps([_as_document(one) for one in found]))
    for one in found if not as_json else ():
        said = one.problem or ("valid" if one.answer and one.answer.valid else "not valid")
        proof = f", consultation {one.answer.consultation}" if one.answer and one.answer.consultation else ""
        typer.echo(f"{one.tenant_id:<24} {one.vat_number:<16} {said}{proof}")
    if any(one.answer is None for one in found):
        raise typer.Exit(1)


@app.command()
def rates(
    on: Annotated[str | None, typer.Option(help="A day, such as 2026-10-31; today if not given.")] = None,
    place: Annotated[str | None, typer.Option(help="Only this place, such as DE or US-CA.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the rates that count on a day."""
    day, tables = _read_day(on), load_tax_tables(load_settings().tax_tables_dir)
    known = {name: tables.rate(name, day) for name in sorted(tables.rates) if place in (None, name)}
    if place is not None and not known:
        raise InvalidInputError([Fault("unknown_place", f"no rates of {place[:40]!r}", "place")])
    shown = {name: None if rate is None else rate_text(rate) for name, rate in known.items()}
    if as_json:
        checks = {name: asdict(tables.checks[name]) for name in shown if name in tables.checks}
        typer.echo(json.dumps({"on": day.isoformat(), "rates": shown, "checks": checks}))
        return
    for name, rate in shown.items():
        typer.echo(f"{name:<6} {tables.kinds[name]:<9} {'not known' if rate is None else rate + ' %'}")
        check = tables.checks.get(name)
        if place is not None and check is not None:
            typer.echo(f"  rate: {check.rate_source or 'not checked'}")
            note = f" ({check.note})" if check.note else ""
            typer.echo(f"  software as a service: {check.services}{note}; {check.services_source or 'not checked'}")


async def _check(settings: Settings, tenant_id: str | None) -> list[VatCheck]:
    seller, clock, vies = load_seller(settings), SystemClock(), Vies(settings.vies_url)
    try:
        async with create_pool(settings, max_size=1) as pool:
            checks = PostgresVatChecks(pool)
            before = None if tenant_id is not None else clock.now() - RECHECK_AFTER
            due = await checks.due(before=before, tenant_id=tenant_id)
            requester = requester_of(seller.tax.vat_number, seller.country)
            return await check_vat_numbers(due, register=vies, checks=checks, requester=requester, clock=clock)
    finally:
        await vies.close()


def _as_document(one: VatCheck) -> dict[str, Any]:
    answer = one.answer
    return {
        "tenant_id": one.tenant_id,
        "vat_number": one.vat_number,
        "valid": answer.valid if answer else None,
        "checked_at": format_instant(answer.checked_at) if answer else None,
        "consultation": answer.consultation if answer else "",
        "name": answer.name if answer else "",
        "address": answer.address if answer else "",
        "problem": one.problem,
    }


def _read_day(text: str | None) -> date:
    if text is None:
        return SystemClock().now().date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidInputError([Fault("invalid_date", f"expected 2026-10-31, got {text[:40]!r}", "on")]) from None
