"""A bank statement as every format says it. Owns when one holds together, and what names a statement and an entry.

Amounts are signed from our side: money that came in is positive. A statement whose opening balance and entries do not
add up to its closing balance is not believed, whatever else it says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from core.errors import Fault
from core.ids import derive_id
from core.money import MINOR_UNITS

BYTES_MAX = 32 * 1024 * 1024
# Far beyond any balance; keeps a hostile number from costing time.
_DIGITS_MAX = 18
_PLAIN = re.compile(r"\d+(\.\d*)?", re.ASCII)
# What banks write where they have no reference.
_NO_REFERENCE = frozenset({"", "NONREF", "NOTPROVIDED", "NOREF", "0"})
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class StatementEntry:
    """One movement. `place` is where it stands in the file; `references` are those in fields of their own.

    `is_reversal` says that it takes back an earlier movement (a returned transfer). `amount` is in the statement's
    currency, not zero.
    """

    place: str
    booked_on: date
    valued_on: date
    amount: Decimal
    bank_reference: str = ""
    remittance: str = ""
    references: tuple[str, ...] = ()
    counterparty: str = ""
    counterparty_account: str = ""
    is_reversal: bool = False


@dataclass(frozen=True, slots=True)
class Statement:
    """What a bank says of one account over some days.

    `account` is how the bank names it. `number` is the bank's own name of the statement with its page or sequence, ""
    where there is none (CSV): numbered statements of one format never show the same movement twice, others may.
    """

    place: str
    format: str
    account: str
    currency: str
    number: str
    opened_on: date
    opening: Decimal
    closed_on: date
    closing: Decimal
    entries: tuple[StatementEntry, ...]

    @property
    def digest_parts(self) -> list[str]:
        """What the statement says, for its digest: not how the file wrote it."""
        parts = [self.account, self.currency, self.number, str(self.opened_on), _text(self.opening)]
        parts += [str(self.closed_on), _text(self.closing)]
        for entry in self.entries:
            parts += [str(entry.booked_on), str(entry.valued_on), _text(entry.amount), entry.bank_reference]
            parts += [entry.remittance, *entry.references, entry.counterparty, entry.counterparty_account]
        return parts


def statement_id(statement: Statement, account_id: str) -> str:
    """Return what names a statement: account, format, the bank's number and closing day; without one its content."""
    if not statement.number:
        return derive_id("stmt", account_id, statement.format, content_digest(statement))
    return derive_id("stmt", account_id, statement.format, statement.number, str(statement.closed_on))


def content_digest(statement: Statement) -> str:
    """Return the digest of what the statement says, equal for two files that say the same."""
    return derive_id("said", *statement.digest_parts)


def entry_keys(statement: Statement, account_id: str) -> list[str]:
    """Return what each entry says of itself: equal for the same movement in two statements, and for twins in one.

    The bank's reference with day and amount where there is one, otherwise the texts. `name_entries` tells twins apart.
    """
    return [derive_id("key", account_id, *_content(entry)) for entry in statement.entries]


def name_entries(keys: Sequence[str], seen_before: Counter[str]) -> list[str]:
    """Return the entries' ids: the key and which of the twins it is.

    `seen_before` counts the twins in earlier statements that cannot show the same movement again (the same format,
    numbered); in a statement that may overlap with others they are counted from the first.
    """
    counted: Counter[str] = Counter(seen_before)
    ids = []
    for key in keys:
        counted[key] += 1
        ids.append(derive_id("bent", key, str(counted[key])))
    return ids


def check_statement(statement: Statement, file: str) -> list[Fault]:
    """Return why a statement does not hold together; nothing if it does."""
    faults = [
        Fault("zero_amount", "an entry moves nothing", at(file, entry.place))
        for entry in statement.entries
        if not entry.amount
    ]
    if statement.closed_on < statement.opened_on:
        reason = f"it ends on {statement.closed_on}, before it begins on {statement.opened_on}"
        faults.append(Fault("invalid_date", reason, at(file, statement.place)))
    moved = sum((entry.amount for entry in statement.entries), Decimal(0))
    if statement.opening + moved != statement.closing:
        reason = (
            f"{statement.opening:f} and entries of {moved:f} make {statement.opening + moved:f},"
            f" the closing balance says {statement.closing:f} {statement.currency}"
        )
        faults.append(Fault("balance_mismatch", reason, at(file, statement.place)))
    return faults


def at(file: str, place: str) -> str:
    """Write where in a file something stands."""
    return f"{file}: {place}" if place else file


def read_amount(text: str, currency: str) -> Decimal | Fault:
    """Return a non-negative amount written with a decimal point; a fault for anything else (its path left empty).

    More decimal places than the currency has are a fault unless they are zeros.
    """
    if currency not in MINOR_UNITS:
        return Fault("unknown_currency", f"unknown currency {currency[:10]!r}")
    if not _PLAIN.fullmatch(text) or len(text) > _DIGITS_MAX + 1:
        return Fault("invalid_amount", f"not an amount: {text[:40]!r}")
    whole, _, fraction = text.partition(".")
    if len(fraction.rstrip("0")) > MINOR_UNITS[currency]:
        return Fault("too_many_digits", f"{text} has a fraction of a minor unit of {currency}")
    places = MINOR_UNITS[currency]
    return Decimal(f"{whole}.{fraction[:places].ljust(places, '0')}" if places else whole)


def clean_text(parts: Iterable[str]) -> str:
    """Join texts of a statement as one line, blanks folded, characters that are not printed left out."""
    joined = _BLANKS.sub(" ", " ".join(parts)).strip()
    return "".join(character for character in joined if character.isprintable())


def clean_reference(text: str) -> str:
    """Return a reference, or "" where the bank says that it has none."""
    reference = clean_text([text])
    return "" if reference.upper() in _NO_REFERENCE else reference


def _content(entry: StatementEntry) -> tuple[str, ...]:
    if entry.bank_reference:
        return ("reference", str(entry.booked_on), _text(entry.amount), entry.bank_reference)
    texts = (entry.remittance, entry.counterparty, entry.counterparty_account)
    return ("text", str(entry.booked_on), _text(entry.amount), *("".join(text.split()).upper() for text in texts))


def _text(amount: Decimal) -> str:
    return f"{amount.normalize():f}"
