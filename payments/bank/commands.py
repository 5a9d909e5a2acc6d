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
from core.errors import Fault, InvalidInputError, NotFoundError
from core.read_yaml import read_yaml
from payments.bank.adapters.postgres_desk import PostgresBankDesk
from payments.bank.confirm_match import RESTS, Confirmed, Rest, Wanted, Wish, confirm_match, lock_open_entry, wish_of
from payments.bank.confirm_return import confirm_return
from payments.bank.domain.csv_profile import CsvProfile, read_profile
from payments.bank.domain.match import Rules
from payments.bank.domain.statement import BYTES_MAX
from payments.bank.import_statement import Imported, import_statements, read_statements
from payments.bank.ports import AccountState, BankEntry
from payments.bank.propose_matches import Proposed, confirm_exact, propose_matches
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
_SHIPPED = Path(__file__).parent / "profiles"


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
    if returns is not None:
        if (invoice and len(invoice) > 1) or amount or proposed or fees_ours or rest != "open":
            reason = "an entry that takes another back takes at most one --invoice beside"
            raise InvalidInputError([Fault("contradiction", reason, "--returns")])
        only = invoice[0] if invoice else None
        done = _run(
            lambda desk, _: confirm_return(entry, returns, desk=desk, clock=SystemClock(), by=who, invoice=only)
        )
    else:
        wish = Wish(_wanted(invoice or [], amount or []), fees_ours, _rest(rest), tenant)
        if proposed and wish.invoices:
            raise InvalidInputError([Fault("contradiction", "either --proposed or --invoice", "--proposed")])
        done = _run(lambda desk, settings: _confirm(desk, settings, entry, wish, who, proposed=proposed))
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
    content = _read(file)
    statements = read_statements(content, file=file.name, format=format, profile=profile)
    async with create_pool(settings, max_size=1) as pool:
        desk, clock = PostgresBankDesk(pool), SystemClock()
        done = await import_statements(
            content, statements, file=file.name, accounts=accounts, desk=desk, clock=clock, by=by
        )
        new = {entry.entry_id for each in done for entry in each.new_entries}
        if not settings.wire_confirm_exact or not new:
            return done, []
        tolerances = settings.wire_fee_tolerance
        return done, await confirm_exact(desk=desk, clock=clock, tolerances=tolerances, only=new)


async def _confirm(
    desk: PostgresBankDesk, settings: Settings, entry: str, wish: Wish, by: str, *, proposed: bool
) -> Confirmed:
    async with desk.transaction() as unit:
        found = await lock_open_entry(unit, entry)
    rules = Rules(settings.wire_fee_tolerance.get(found.currency, Decimal(0)))
    if proposed:
        best = await _best(desk, settings, entry)
        if best.proposals[0].returns is not None:
            original = best.proposals[0].returns
            reasons = best.proposals[0].reasons
            return await confirm_return(entry, original, desk=desk, clock=SystemClock(), by=by, reasons=reasons)
        wish = wish_of(best.proposals[0], rest=wish.rest)
    return await confirm_match(entry, wish, desk=desk, clock=SystemClock(), by=by, rules=rules)


async def _best(desk: PostgresBankDesk, settings: Settings, entry: str) -> Proposed:
    found = await propose_matches(desk=desk, tolerances=settings.wire_fee_tolerance)
    own = [each for each in found if each.entry.entry_id.startswith(entry) and each.proposals]
    if len(own) != 1:
        raise NotFoundError(f"nothing is proposed for one entry that begins with {entry[:60]!r}")
    return own[0]


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
    if not amount.is_finite() or abs(amount.adjusted()) > 20:
        raise InvalidInputError([Fault("invalid_amount", f"expected such as 12.50, got {text[:40]!r}", "--amount")])
    return amount


def _rest(text: str) -> Rest:
    return next(rest for rest in RESTS if rest == text)


def _profile(name: str | None) -> CsvProfile | None:
    if name is None:
        return None
    shipped = {file.stem: file for file in _SHIPPED.glob("*.yaml")}
    file = shipped.get(name, Path(name))
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
