"""`meterbook bank`: import statements, see what their entries may be for, and say what they are for."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from core.bank_account import BankAccount
from core.clock import SystemClock
from core.errors import Fault, InvalidInputError
from core.read_yaml import read_yaml
from payments.bank.adapters.postgres_desk import PostgresBankDesk
from payments.bank.clerk import bring_in, profile_files
from payments.bank.confirm_entry import Said, confirm_entry
from payments.bank.confirm_match import RESTS, Confirmed, Rest, Wanted, Wish
from payments.bank.domain.csv_profile import CsvProfile, read_profile
from payments.bank.domain.statement import BYTES_MAX
from payments.bank.import_statement import Imported
from payments.bank.ports import AccountState, BankEntry
from payments.bank.propose_matches import propose_matches
from payments.bank.reject_entry import reject_entry, reopen_entry
from payments.bank.show import (
    account_fields,
    confirmed_fields,
    entry_fields,
    imported_fields,
    print_confirmed,
    print_imported,
    print_proposals,
    print_status,
    proposed_fields,
)
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings

T = TypeVar("T")
# The seller's accounts, from wherever the seller is kept.
AccountLoader = Callable[[Settings], Sequence[BankAccount]]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
By = Annotated[str | None, typer.Option(help="Who says so; the user of this machine if not given.")]
EntryName = Annotated[str, typer.Argument(help="The entry's id (bent_…), or enough of its beginning.")]


def create_app(load_accounts: AccountLoader) -> typer.Typer:
    """Return the command; it is handed the seller's accounts, which are another stage's."""
    app = typer.Typer(help="Wire payments: bank statements and what their entries are for.", no_args_is_help=True)

    @app.command("import")
    def bring(
        file: Annotated[Path, typer.Argument(help="CAMT.053, MT940, or a CSV with --profile.")],
        format: Annotated[str | None, typer.Option(help="camt053, mt940 or csv; told by the file otherwise.")] = None,
        profile: Annotated[
            str | None, typer.Option(help="How the CSV is written: a shipped profile's name, or a YAML file.")
        ] = None,
        by: By = None,
        as_json: AsJson = False,
    ) -> None:
        """Take a statement in, whole or not at all; one that came before brings nothing new."""
        settings = load_settings()
        done, confirmed = asyncio.run(
            _import(settings, load_accounts(settings), file, format, _profile(profile), by or getpass.getuser())
        )
        if as_json:
            document = [imported_fields(each) for each in done]
            typer.echo(
                json.dumps({"statements": document, "confirmed": [confirmed_fields(each) for each in confirmed]})
            )
            return
        print_imported(done, confirmed)

    app.command()(proposals)
    app.command()(confirm)
    app.command()(reject)
    app.command()(status)
    return app


def proposals(
    entry: Annotated[str | None, typer.Argument(help="Only this entry (the beginning of its id).")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the entries that wait and what they may be for, with a score and its reasons."""
    found = _run(lambda desk, settings: propose_matches(desk=desk, tolerances=settings.wire_fee_tolerance))
    if entry is not None:
        found = [each for each in found if each.entry.entry_id.startswith(entry)]
    if as_json:
        typer.echo(json.dumps([proposed_fields(each) for each in found]))
        return
    print_proposals(found)


def confirm(
    entry: EntryName,
    invoice: Annotated[
        list[str] | None, typer.Option(help="An invoice it pays, by number; several, in the order they are served.")
    ] = None,
    amount: Annotated[
        list[str] | None, typer.Option(help="How much each invoice gets, in their order; all that fits if not given.")
    ] = None,
    proposed: Annotated[bool, typer.Option("--proposed", help="Confirm the best proposal.")] = False,
    fees_ours: Annotated[
        bool, typer.Option("--fees-ours", help="What the last invoice is short of is bank fees, and we bear them.")
    ] = False,
    rest: Annotated[
        str, typer.Option(help="What is left then: stays open, becomes credit, or is held to be sent back.")
    ] = "open",
    tenant: Annotated[str | None, typer.Option(help="Whose the rest is, where no invoice tells.")] = None,
    returns: Annotated[str | None, typer.Option(help="The entry that this one takes back.")] = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Say what an entry is for: invoices it pays, credit, money to be given back, or an entry that it takes back."""
    who = by or getpass.getuser()
    if rest not in RESTS:
        raise InvalidInputError([Fault("invalid_rest", f"expected one of {', '.join(RESTS)}, got {rest!r}", "--rest")])
    said = Said(Wish(_wanted(invoice or [], amount or []), fees_ours, _rest(rest), tenant), proposed, returns)
    done = _run(
        lambda desk, settings: confirm_entry(
            entry, said, desk=desk, tolerances=settings.wire_fee_tolerance, clock=SystemClock(), by=who
        )
    )
    if as_json:
        typer.echo(json.dumps(confirmed_fields(done)))
        return
    print_confirmed(done)


def reject(
    entry: EntryName,
    reason: Annotated[str, typer.Option(help="Why it is none of ours, for whoever looks later.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take a rejection back.")] = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Put an entry away that pays no invoice."""
    who = by or getpass.getuser()
    if not undo and not reason.strip():
        raise InvalidInputError([Fault("missing_reason", "say why, for whoever looks later", "--reason")])

    def work(desk: PostgresBankDesk, _: Settings) -> Awaitable[BankEntry]:
        if undo:
            return reopen_entry(entry, desk=desk, clock=SystemClock(), by=who)
        return reject_entry(entry, reason=reason, desk=desk, clock=SystemClock(), by=who)

    found = _run(work)
    if as_json:
        typer.echo(json.dumps({**entry_fields(found), "status": "open" if undo else "rejected"}))
        return
    typer.echo(f"{found.entry_id}: {'waits again' if undo else 'rejected'}")


def status(as_json: AsJson = False) -> None:
    """Show each account: until when its statements go, whether books and bank agree, and what waits."""

    async def work(desk: PostgresBankDesk, _: Settings) -> list[AccountState]:
        async with desk.transaction() as unit:
            return await unit.accounts()

    accounts = _run(work)
    if as_json:
        typer.echo(json.dumps([account_fields(each) for each in accounts]))
        return
    print_status(accounts)


async def _import(
    settings: Settings,
    accounts: Sequence[BankAccount],
    file: Path,
    format: str | None,
    profile: CsvProfile | None,
    by: str,
) -> tuple[list[Imported], list[Confirmed]]:
    async with create_pool(settings, max_size=1) as pool:
        return await bring_in(
            _read(file),
            file=file.name,
            format=format,
            profile=profile,
            accounts=accounts,
            desk=PostgresBankDesk(pool),
            tolerances=settings.wire_fee_tolerance if settings.wire_confirm_exact else None,
            clock=SystemClock(),
            by=by,
        )


def _wanted(invoices: Sequence[str], amounts: Sequence[str]) -> tuple[Wanted, ...]:
    if amounts and len(amounts) != len(invoices):
        reason = f"{len(amounts)} amounts for {len(invoices)} invoices"
        raise InvalidInputError([Fault("invalid_amount", reason, "--amount")])
    if not amounts:
        return tuple(Wanted(number) for number in invoices)
    return tuple(Wanted(number, _amount(text)) for number, text in zip(invoices, amounts, strict=True))


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text) if len(text) <= 24 else Decimal("NaN")
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        raise InvalidInputError([Fault("invalid_amount", f"expected such as 12.50, got {text[:40]!r}", "--amount")])
    return amount


def _rest(text: str) -> Rest:
    return next(rest for rest in RESTS if rest == text)


def _profile(name: str | None) -> CsvProfile | None:
    if name is None:
        return None
    file = profile_files().get(name, Path(name))
    document, _ = read_yaml(_read(file), file.name)
    return read_profile(document, file.name)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            # One more than is taken, so that a file that is too large is refused as such.
            return opened.read(BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInputError([Fault("unreadable_file", error.strerror or str(error), str(file))]) from None


def _run(work: Callable[[PostgresBankDesk, Settings], Awaitable[T]]) -> T:
    settings = load_settings()

    async def run() -> T:
        async with create_pool(settings, max_size=1) as pool:
            return await work(PostgresBankDesk(pool), settings)

    return asyncio.run(run())
