"""How a bank writes its CSV: a profile, read from YAML and checked fault by fault (docs/wire.md shows the fields)."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from datetime import date

from core.errors import Fault, InvalidInputError
from core.money import MINOR_UNITS
from rating.domain.fields import Fields

# One name for what a column holds; lists are joined.
_ONE = ("account", "currency", "booked_on", "valued_on", "amount", "debit", "credit", "mark", "balance")
_SEVERAL = ("bank_reference", "reference", "remittance", "counterparty", "counterparty_account")
_ENCODINGS = {"utf-8", "utf-8-sig", "cp1252", "iso8859-1", "iso8859-15", "utf-16", "ascii", "cp850", "cp437"}


@dataclass(frozen=True, slots=True)
class CsvProfile:
    """A bank's CSV.

    `columns` are the headings (or numbers from 1 where there is no heading line) by what they hold. `decimal` and
    `thousands` are how amounts are written, `day` a `strptime` format. `opening` and `closing` are the labels of
    lines outside the table that give the balances. `debit_marks` are what the `mark` column says of money going out.
    """

    name: str
    encodings: tuple[str, ...]
    delimiter: str
    quote: str
    decimal: str
    thousands: str
    day: str
    has_heading: bool
    newest_first: bool
    account: str
    currency: str
    columns: dict[str, tuple[str, ...]]
    debit_marks: frozenset[str]
    opening: str
    closing: str


def read_profile(document: object, file: str) -> CsvProfile:
    """Read a profile; raises `InvalidInputError` with every fault and its path in the file."""
    faults: list[Fault] = []
    fields = Fields(document, "", faults)
    columns = _columns(fields)
    decimal = fields.choice("decimal", (".", ","), "invalid_mark", default=".")
    thousands = fields.choice("thousands", (".", ",", "'", " ", ""), "invalid_mark", default="")
    if thousands == decimal:
        fields.fault("thousands", "invalid_mark", "the mark of thousands cannot be the decimal mark")
    day = fields.text("date")
    balances = Fields(fields.mapping("balances"), "balances", faults)
    profile = CsvProfile(
        name=fields.name("name"),
        encodings=_encodings(fields),
        delimiter=_one_character(fields, "delimiter", ","),
        quote=_one_character(fields, "quote", '"'),
        decimal=decimal,
        thousands=thousands,
        day=day,
        has_heading=not fields.flag("no_heading"),
        newest_first=fields.choice("order", ("oldest_first", "newest_first"), "invalid_order", default="oldest_first")
        == "newest_first",
        account=fields.text("account", default=""),
        currency=fields.choice("currency", MINOR_UNITS, "unknown_currency", default=""),
        columns=columns,
        debit_marks=frozenset(str(each) for each in fields.items("debit_marks")),
        opening=balances.text("opening", default=""),
        closing=balances.text("closing", default=""),
    )
    balances.finish()
    fields.finish()
    _check(profile, fields)
    if faults:
        raise InvalidInputError([Fault(fault.code, fault.reason, f"{file}: {fault.path}") for fault in faults])
    return profile


def _columns(fields: Fields) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    mapping = fields.mapping("columns")
    for name, value in mapping.items():
        several = value if isinstance(value, list) and name in _SEVERAL else [value]
        if name not in _ONE + _SEVERAL:
            known = ", ".join(_ONE + _SEVERAL)
            fields.fault(f"columns.{name}", "unknown_field", f"unknown column; known are {known}")
        elif not several or not all(isinstance(each, (str, int)) and str(each).strip() for each in several):
            fields.fault(f"columns.{name}", "invalid_type", "expected a heading, or a column's number from 1")
        else:
            found[name] = tuple(str(each) for each in several)
    return found


def _encodings(fields: Fields) -> tuple[str, ...]:
    value = fields.raw("encoding") if fields.has("encoding") else "utf-8-sig"
    names = []
    for each in value if isinstance(value, list) else [value]:
        try:
            name = codecs.lookup(str(each)).name
        except LookupError:
            name = ""
        if name not in _ENCODINGS:
            fields.fault(
                "encoding", "unknown_encoding", f"expected one of {', '.join(sorted(_ENCODINGS))}, got {each!r}"
            )
        names.append(name)
    return tuple(names)


def _one_character(fields: Fields, name: str, default: str) -> str:
    value = fields.raw(name) if fields.has(name) else default
    if value == "tab":
        return "\t"
    if not isinstance(value, str) or len(value) != 1 or value in "\r\n\0":
        fields.fault(name, "invalid_mark", "expected one character, or tab")
        return default
    return value


def _check(profile: CsvProfile, fields: Fields) -> None:
    columns = profile.columns
    if "booked_on" not in columns:
        fields.fault("columns.booked_on", "missing_field", "the day of booking is needed")
    if ("amount" in columns) == ("debit" in columns and "credit" in columns):
        fields.fault("columns", "missing_field", "either an amount column, or a debit and a credit column")
    if ("mark" in columns) != bool(profile.debit_marks):
        fields.fault("debit_marks", "missing_field", "a mark column and debit_marks go together")
    if not profile.account and "account" not in columns:
        fields.fault("account", "missing_field", "the account: fixed, or a column")
    if not profile.currency and "currency" not in columns:
        fields.fault("currency", "missing_field", "the currency: fixed, or a column")
    if "balance" not in columns and not (profile.opening and profile.closing):
        reason = "without a balance column the lines of opening and closing balance are needed: a cut file would pass"
        fields.fault("balances", "missing_field", reason)
    try:
        if profile.day:
            sample = date(2026, 10, 31)
            if profile.day.count("%") < 3 or sample.strftime(profile.day) == profile.day:
                raise ValueError
    except ValueError:
        fields.fault("date", "invalid_format", "expected a format such as %d.%m.%Y")
