"""Takes statements in: all of a file or nothing, and nothing of it twice."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import Decimal

from core.bank_account import BankAccount
from core.clock import Clock
from core.errors import ConflictError, Fault, InvalidInputError
from ledger.domain.postings import of_bank_receipt
from payments.bank.domain.continuity import Span, gap, overlaps
from payments.bank.domain.csv_profile import CsvProfile
from payments.bank.domain.read_camt import read_camt
from payments.bank.domain.read_csv import read_csv
from payments.bank.domain.read_mt940 import read_mt940
from payments.bank.domain.statement import Statement, at, content_digest, entry_keys, name_entries, statement_id
from payments.bank.ports import BankDesk, BankEntry, BankUnit, Source

FORMATS = ("camt053", "mt940", "csv")


class StatementChangedError(ConflictError):
    """A statement of this number was imported before, and said something else."""

    code = "statement_changed"


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one statement. `gap` is how far the account's books are from the bank's balance afterwards."""

    statement_id: str
    account_id: str
    statement: Statement
    is_new: bool
    new_entries: tuple[BankEntry, ...]
    gap: Decimal


def read_statements(
    content: bytes, *, file: str, format: str | None = None, profile: CsvProfile | None = None
) -> list[Statement]:
    """Return a file's statements; without a format it is told by how the file begins.

    Raises `InvalidInputError` with every fault and its place; nothing of such a file is taken.
    """
    found = format or _recognise(content)
    if found == "camt053":
        return read_camt(content, file)
    if found == "mt940":
        return read_mt940(content, file)
    if found != "csv":
        raise InvalidInputError([Fault("unknown_format", f"expected one of {', '.join(FORMATS)}, got {found!r}", file)])
    if profile is None:
        reason = "neither CAMT.053 nor MT940; a CSV needs a profile that says what its columns are"
        raise InvalidInputError([Fault("unknown_format", reason, file)])
    return read_csv(content, profile, file)


async def import_statements(
    content: bytes,
    statements: Sequence[Statement],
    *,
    file: str,
    accounts: Sequence[BankAccount],
    desk: BankDesk,
    clock: Clock,
    by: str,
) -> list[Imported]:
    """Write a file's statements down, all or none; a statement that was imported before brings nothing new.

    Raises `InvalidInputError` (`unknown_account`, `wrong_currency`, `overlap_mismatch`) and `StatementChangedError`.
    """
    whose = _find_accounts(statements, accounts, file)
    source = Source(file, hashlib.sha256(content).hexdigest(), by)
    now = clock.now()
    async with desk.transaction() as unit:
        for account_id in sorted({account.account_id for account in whose}):
            await unit.lock_account(account_id)
        return [
            await _import(unit, statement, account, source, now)
            for statement, account in zip(statements, whose, strict=True)
        ]


async def _import(
    unit: BankUnit, statement: Statement, account: BankAccount, source: Source, now: datetime
) -> Imported:
    account_id, named = account.account_id, statement_id(statement, account.account_id)
    before = await unit.known_digest(named)
    spans, moved = await unit.spans(account_id), await unit.moved(account_id)
    if before is not None:
        if before != content_digest(statement):
            raise StatementChangedError(
                f"statement {statement.number!r} of {account_id} was imported before with other content"
            )
        return Imported(named, account_id, statement, False, (), gap(spans, moved))
    keys = entry_keys(statement, account_id)
    seen = await unit.twins_before(account_id, statement.format, keys) if statement.number else Counter[str]()
    await unit.add_statement(named, account, statement, source, now)
    new = await unit.add_entries(named, account_id, statement, name_entries(keys, seen), keys, now)
    for entry in new:
        if entry.amount > 0:
            booked = datetime.combine(entry.booked_on, time(), UTC)
            await unit.post(of_bank_receipt(entry.entry_id, entry.currency, amount=entry.amount, at=booked), now)
    span = _span(statement)
    moved_now = moved + sum((entry.amount for entry in new), Decimal(0))
    gap_now = gap([*spans, span], moved_now)
    if overlaps(span, spans) and not gap(spans, moved) and gap_now:
        reason = (
            f"with it the entries of {account_id} would be {gap_now:f} {statement.currency} from the bank's balance:"
            " it shows entries of statements imported before in other words, or leaves some out"
        )
        raise InvalidInputError([Fault("overlap_mismatch", reason, at(source.file, statement.place))])
    return Imported(named, account_id, statement, True, tuple(new), gap_now)


def _span(statement: Statement) -> Span:
    series = statement.format if statement.number else ""
    return Span(statement.opened_on, statement.opening, statement.closed_on, statement.closing, series)


def _find_accounts(statements: Sequence[Statement], accounts: Sequence[BankAccount], file: str) -> list[BankAccount]:
    faults: list[Fault] = []
    found: list[BankAccount] = []
    for statement in statements:
        called = [account for account in accounts if account.is_called(statement.account)]
        matching = [account for account in called if account.currency == statement.currency]
        place = at(file, statement.place)
        if not called:
            reason = f"no account of the seller is called {statement.account[:60]!r}"
            faults.append(Fault("unknown_account", reason, place))
        elif not matching:
            own = ", ".join(account.currency for account in called)
            reason = f"the statement is in {statement.currency}, the account {statement.account[:60]!r} in {own}"
            faults.append(Fault("wrong_currency", reason, place))
        found += matching[:1]
    if faults:
        raise InvalidInputError(faults)
    return found


def _recognise(content: bytes) -> str:
    start = content[:4096].lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    if start.startswith(b"<"):
        return "camt053"
    return "mt940" if start.startswith((b":20:", b"{1:", b"\x01{1:")) or b"\n:20:" in start else "csv"
