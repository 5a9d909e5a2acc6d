"""What the HTTP API asks of the bank desk: the commands' verbs, with documents as answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from core.bank_account import BankAccount
from core.clock import Clock
from core.errors import ConflictError, Fault, InvalidInputError
from core.read_yaml import read_yaml
from payments.bank.adapters.postgres_desk import PostgresBankDesk
from payments.bank.confirm_entry import Said, confirm_entry
from payments.bank.confirm_match import Confirmed, Wanted, Wish
from payments.bank.domain.csv_profile import CsvProfile, read_profile
from payments.bank.import_statement import Imported, import_statements, read_statements
from payments.bank.propose_matches import confirm_exact, propose_matches
from payments.bank.reject_entry import reject_entry, reopen_entry
from payments.bank.show import account_fields, confirmed_fields, entry_fields, imported_fields, proposed_fields
from payments.domain.card_data import refuse_card_numbers
from runtime.postgres import Pool, join

_SHIPPED = Path(__file__).parent / "profiles"
_BY_MAX = 200
# The key's row is written first: who asks at the same time with the same key waits for it.
_CLAIM = "INSERT INTO bank_requests (request_key, asked_sha256, asked_at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
_ANSWER = "UPDATE bank_requests SET answer = %s WHERE request_key = %s"
_KNOWN = "SELECT asked_sha256, answer FROM bank_requests WHERE request_key = %s"


class KeyUsedError(ConflictError):
    """The key was used before, for something else."""

    code = "key_used"


class BankClerk:
    """Implements `api.ports.BankClerk`; `load_accounts` are the seller's accounts, `tolerances` what fees may take."""

    def __init__(
        self,
        pool: Pool,
        load_accounts: Callable[[], Sequence[BankAccount]],
        *,
        tolerances: Mapping[str, Decimal],
        is_exact_confirmed: bool,
        clock: Clock,
    ) -> None:
        self._pool, self._desk, self._clock = pool, PostgresBankDesk(pool), clock
        self._load_accounts, self._tolerances, self._is_exact_confirmed = load_accounts, tolerances, is_exact_confirmed

    async def import_file(
        self, content: bytes, *, file: str, format: str | None, profile: str | None, by: str
    ) -> dict[str, Any]:
        """Take a statement in, whole or not at all; one that came before brings nothing new."""
        _check_names(file=file, by=by)
        shipped = None if profile is None else shipped_profile(profile)
        done, confirmed = await bring_in(
            content,
            file=file,
            format=format,
            profile=shipped,
            accounts=self._load_accounts(),
            desk=self._desk,
            tolerances=self._tolerances if self._is_exact_confirmed else None,
            clock=self._clock,
            by=by,
        )
        return {
            "statements": [imported_fields(each) for each in done],
            "confirmed": [confirmed_fields(each) for each in confirmed],
        }

    async def list_proposals(self, entry: str | None) -> list[dict[str, Any]]:
        """Return the entries that wait, oldest first, with what they may be for, best first."""
        found = await propose_matches(desk=self._desk, tolerances=self._tolerances)
        return [proposed_fields(each) for each in found if entry is None or each.entry.entry_id.startswith(entry)]

    async def confirm(self, entry: str, said: Mapping[str, Any], *, key: str, by: str) -> dict[str, Any]:
        """Write down what an entry is for, once per key; `said` is what the fields of `Said` and `Wish` are."""
        _check_names(by=by)
        asked = hashlib.sha256(msgspec.json.encode([entry, sorted(said.items())])).hexdigest()
        async with self._pool.connection() as connection, connection.transaction():
            claimed = await connection.execute(_CLAIM, (key, asked, self._clock.now()))
            if not claimed.rowcount:
                known = await (await connection.execute(_KNOWN, (key,))).fetchone()
                if known is None or known["asked_sha256"] != asked:
                    raise KeyUsedError
                answered: dict[str, Any] = known["answer"]
                return answered
            done = await confirm_entry(
                entry,
                _said(said),
                desk=PostgresBankDesk(join(connection)),
                tolerances=self._tolerances,
                clock=self._clock,
                by=by,
            )
            answer = confirmed_fields(done)
            await connection.execute(_ANSWER, (Jsonb(answer), key))
        return answer

    async def reject(self, entry: str, *, reason: str, by: str) -> dict[str, Any]:
        """Put an entry away that pays no invoice; again: nothing new."""
        _check_names(by=by)
        if not reason.strip():
            raise InvalidInputError([Fault("missing_reason", "say why, for whoever looks later", "reason")])
        found = await reject_entry(entry, reason=reason, desk=self._desk, clock=self._clock, by=by)
        return {**entry_fields(found), "status": "rejected", "note": reason}

    async def reopen(self, entry: str, *, by: str) -> dict[str, Any]:
        """Take a rejection back; again: nothing new."""
        _check_names(by=by)
        found = await reopen_entry(entry, desk=self._desk, clock=self._clock, by=by)
        return {**entry_fields(found), "status": "open" if found.status == "rejected" else found.status}

    async def list_accounts(self) -> list[dict[str, Any]]:
        """Return each account: until when its statements go, whether books and bank agree, and what waits."""
        async with self._desk.transaction() as unit:
            return [account_fields(each) for each in await unit.accounts()]


async def bring_in(
    content: bytes,
    *,
    file: str,
    format: str | None,
    profile: CsvProfile | None,
    accounts: Sequence[BankAccount],
    desk: PostgresBankDesk,
    tolerances: Mapping[str, Decimal] | None,
    clock: Clock,
    by: str,
) -> tuple[list[Imported], list[Confirmed]]:
    """Import a file's statements, and confirm what leaves no doubt; with no `tolerances` a person confirms all."""
    statements = read_statements(content, file=file, format=format, profile=profile)
    done = await import_statements(content, statements, file=file, accounts=accounts, desk=desk, clock=clock, by=by)
    new = {entry.entry_id for each in done for entry in each.new_entries}
    if tolerances is None or not new:
        return done, []
    return done, await confirm_exact(desk=desk, clock=clock, tolerances=tolerances, only=new)


def shipped_profile(name: str) -> CsvProfile:
    """Return a CSV profile that ships; raises `InvalidInputError` (`unknown_profile`)."""
    shipped = profile_files()
    if name not in shipped:
        reason = f"expected one of {', '.join(sorted(shipped))}, got {name[:60]!r}"
        raise InvalidInputError([Fault("unknown_profile", reason, "profile")])
    document, _ = read_yaml(shipped[name].read_bytes(), shipped[name].name)
    return read_profile(document, shipped[name].name)


def profile_files() -> dict[str, Path]:
    """Return the shipped profiles by name."""
    return {file.stem: file for file in _SHIPPED.glob("*.yaml")}


def _said(said: Mapping[str, Any]) -> Said:
    invoices = tuple(
        Wanted(one["number"], None if one["amount"] is None else Decimal(one["amount"])) for one in said["invoices"]
    )
    wish = Wish(invoices, said["fees_ours"], said["rest"], said["tenant_id"])
    return Said(wish, said["proposed"], said["returns"])


def _check_names(**names: str) -> None:
    refuse_card_numbers(names)
    faults = [
        Fault("invalid_text", f"expected 1 to {_BY_MAX} printable characters", name)
        for name, text in names.items()
        if not 1 <= len(text) <= _BY_MAX or not text.isprintable()
    ]
    if faults:
        raise InvalidInputError(faults)
