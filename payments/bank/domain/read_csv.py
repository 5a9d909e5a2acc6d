"""Reads a bank's CSV by its profile. Owns that a cut or changed file is noticed, by its running balance or its totals.

Only a file cut between two lines of a table without totals looks like a shorter one; the next file brings the rest.
"""

from __future__ import annotations

import csv
import io
import re
from datetime import date, datetime
from decimal import Decimal

from core.errors import Fault, InvalidInputError
from payments.bank.domain.csv_profile import CsvProfile
from payments.bank.domain.statement import (
    BYTES_MAX,
    Statement,
    StatementEntry,
    at,
    check_statement,
    clean_reference,
    clean_text,
    read_amount,
)

FORMAT = "csv"
# A sign may stand before the amount or, as some banks write it, behind it.
_SIGNED = re.compile(r"([+-]?) *([^+-]*?) *([+-]?)")
_Row = tuple[int, list[str]]


def read_csv(content: bytes, profile: CsvProfile, file: str) -> list[Statement]:
    """Return the one statement of a file; raises `InvalidInputError` with every fault and its line.

    Faults: `too_large`, `invalid_encoding`, `malformed_line`, `missing_column`, `cut_file`, `invalid_amount`,
    `too_many_digits`, `invalid_date`, `wrong_currency`, `wrong_account`, `missing_balance`, `balance_mismatch`.
    """
    reader = _Reader(profile, file)
    statement = reader.read(content)
    if statement is not None and not reader.faults:
        reader.faults += check_statement(statement, file)
    if reader.faults or statement is None:
        raise InvalidInputError(reader.faults or [Fault("cut_file", "there is no entry in it", file)])
    return [statement]


class _Reader:
    """Reads one file and notes every fault."""

    def __init__(self, profile: CsvProfile, file: str) -> None:
        self._profile, self._file = profile, file
        self.faults: list[Fault] = []
        self._places: dict[str, list[int]] = {}

    def read(self, content: bytes) -> Statement | None:
        """Return the statement, None if there is none to be read."""
        rows = self._rows(self._decode(content))
        table = self._table(rows)
        if table is None:
            return None
        width, lines = table
        found = []
        for number, row in lines:
            if len(row) != width:
                what = "the file ends in the middle of a line" if (number, row) == lines[-1] else "not as many cells"
                code = "cut_file" if (number, row) == lines[-1] else "malformed_line"
                self.fault(number, code, f"{what}: {len(row)}, the heading has {width}")
                continue
            found.append((number, row))
        if not found:
            self.faults.append(Fault("cut_file", "there is no entry in it", self._file))
            return None
        if self._profile.newest_first:
            found.reverse()
        account, currency = self._common("account", found), self._common("currency", found)
        entries = [self._entry(number, row, currency) for number, row in found]
        read = [entry for entry in entries if entry is not None]
        if self.faults or not read:
            return None
        balances = self._balances(rows, found, read, currency)
        if balances is None:
            return None
        days = [entry.booked_on for entry in read]
        return Statement(
            place="",
            format=FORMAT,
            account=account,
            currency=currency,
            number="",
            opened_on=min(days),
            opening=balances[0],
            closed_on=max(days),
            closing=balances[1],
            entries=tuple(read),
        )

    def fault(self, line: int, code: str, reason: str) -> None:
        """Note a fault at a line."""
        self.faults.append(Fault(code, reason, at(self._file, f"line {line}")))

    def _decode(self, content: bytes) -> str:
        if len(content) > BYTES_MAX:
            reason = f"{len(content)} bytes; at most {BYTES_MAX} are read"
            raise InvalidInputError([Fault("too_large", reason, self._file)])
        for encoding in self._profile.encodings:
            try:
                return content.decode(encoding)
            except UnicodeDecodeError:
                continue
        known = ", ".join(self._profile.encodings)
        raise InvalidInputError([Fault("invalid_encoding", f"it is not {known}", self._file)])

    def _rows(self, text: str) -> list[_Row]:
        if "\0" in text:
            raise InvalidInputError([Fault("invalid_encoding", "there is a NUL in it: another encoding?", self._file)])
        lines = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=self._profile.delimiter,
            quotechar=self._profile.quote,
            strict=True,
        )
        rows: list[_Row] = []
        begun = 1
        try:
            for row in lines:
                if any(cell.strip() for cell in row):
                    rows.append((begun, row))
                begun = lines.line_num + 1
        except csv.Error as error:
            # A quote that never ends is how a cut file shows.
            code = "cut_file" if "unexpected end" in str(error) else "malformed_line"
            raise InvalidInputError([Fault(code, str(error), at(self._file, f"line {begun}"))]) from None
        return rows

    def _table(self, rows: list[_Row]) -> tuple[int, list[_Row]] | None:
        """Return how wide the table is and its lines, without heading and what stands around it."""
        start, width = 0, 0
        if self._profile.has_heading:
            wanted = {name for names in self._profile.columns.values() for name in names}
            best: set[str] = set()
            for index, (_, row) in enumerate(rows):
                present = wanted & {cell.strip() for cell in row}
                if len(present) > len(best):
                    best, start, width = present, index + 1, len(row)
            if missing := sorted(wanted - best):
                self.faults.append(Fault("missing_column", f"no column {', '.join(missing)}", self._file))
                return None
            heading = [cell.strip() for cell in rows[start - 1][1]]
            places = {name: heading.index(name) for name in wanted}
        else:
            wanted = {name for names in self._profile.columns.values() for name in names}
            if wrong := sorted(name for name in wanted if not name.isdecimal() or int(name) < 1):
                self.faults.append(Fault("missing_column", f"not a column's number: {', '.join(wrong)}", self._file))
                return None
            places = {name: int(name) - 1 for name in wanted}
            width = max((len(row) for _, row in rows if not self._is_balance(row)), default=0)
            if width <= max(places.values()):
                self.faults.append(Fault("missing_column", f"the lines have only {width} cells", self._file))
                return None
        self._places = {what: [places[name] for name in names] for what, names in self._profile.columns.items()}
        return width, [each for each in rows[start:] if not self._is_balance(each[1])]

    def _is_balance(self, row: list[str]) -> bool:
        labels = [label for label in (self._profile.opening, self._profile.closing) if label]
        return any(row[0].strip().startswith(label) for label in labels)

    def _cells(self, row: list[str], what: str) -> list[str]:
        return [row[place].strip() for place in self._places.get(what, ())]

    def _cell(self, row: list[str], what: str) -> str:
        return next(iter(self._cells(row, what)), "")

    def _common(self, what: str, rows: list[_Row]) -> str:
        """Return what all lines have in common, account or currency, or what the profile says."""
        fixed = self._profile.account if what == "account" else self._profile.currency
        if what not in self._profile.columns:
            return fixed
        first = fixed or self._cell(rows[0][1], what)
        for number, row in rows:
            if self._cell(row, what) != first:
                self.fault(number, f"wrong_{what}", f"{self._cell(row, what)[:40]!r}, the others are of {first[:40]!r}")
        return first

    def _entry(self, number: int, row: list[str], currency: str) -> StatementEntry | None:
        booked = self._day(number, self._cell(row, "booked_on"))
        valued = self._day(number, text) if (text := self._cell(row, "valued_on")) else booked
        amount = self._moved(number, row, currency)
        if booked is None or valued is None or amount is None:
            return None
        references = [clean_reference(text) for text in self._cells(row, "reference")]
        return StatementEntry(
            place=f"line {number}",
            booked_on=booked,
            valued_on=valued,
            amount=amount,
            bank_reference=clean_reference(" ".join(self._cells(row, "bank_reference"))),
            remittance=clean_text(self._cells(row, "remittance")),
            references=tuple(each for each in references if each),
            counterparty=clean_text(self._cells(row, "counterparty")),
            counterparty_account=clean_text(self._cells(row, "counterparty_account")),
        )

    def _moved(self, number: int, row: list[str], currency: str) -> Decimal | None:
        if "amount" in self._places:
            amount = self._amount(number, self._cell(row, "amount"), currency)
            if amount is not None and self._cell(row, "mark") in self._profile.debit_marks and "mark" in self._places:
                return -abs(amount)
            return amount
        debit, credit = self._cell(row, "debit"), self._cell(row, "credit")
        if bool(debit) == bool(credit):
            self.fault(number, "invalid_amount", "either a debit or a credit amount")
            return None
        amount = self._amount(number, debit or credit, currency)
        return amount if amount is None or credit else -abs(amount)

    def _amount(self, number: int, text: str, currency: str) -> Decimal | None:
        amount = self._parse(text, currency)
        if isinstance(amount, Fault):
            self.fault(number, amount.code, amount.reason)
            return None
        return amount

    def _parse(self, text: str, currency: str) -> Decimal | Fault:
        signed = _SIGNED.fullmatch(text.replace("\u2212", "-").replace("\u00a0", " ").strip())
        if signed is None or (signed[1] and signed[3]):
            return Fault("invalid_amount", f"not an amount: {text[:40]!r}")
        sign, plain = (-1 if "-" in (signed[1], signed[3]) else 1), signed[2]
        thousands, decimal = self._profile.thousands, self._profile.decimal
        whole, point, fraction = plain.partition(decimal)
        groups = whole.split(thousands) if thousands else [whole]
        if len(groups) > 1 and (not 1 <= len(groups[0]) <= 3 or any(len(group) != 3 for group in groups[1:])):
            return Fault("invalid_amount", f"not an amount: {text[:40]!r}")
        amount = read_amount("".join(groups) + ("." if point else "") + fraction, currency)
        if isinstance(amount, Fault):
            return Fault(amount.code, amount.reason.replace(repr(plain[:40]), repr(text[:40])))
        return amount * sign

    def _day(self, number: int, text: str) -> date | None:
        try:
            # A day has no zone.
            return datetime.strptime(text, self._profile.day).date()  # noqa: DTZ007
        except ValueError:
            self.fault(number, "invalid_date", f"expected a day as {self._profile.day}, got {text[:40]!r}")
            return None

    def _balances(
        self, rows: list[_Row], lines: list[_Row], entries: list[StatementEntry], currency: str
    ) -> tuple[Decimal, Decimal] | None:
        labelled = {
            name: self._labelled(rows, label, currency)
            for name, label in (("opening", self._profile.opening), ("closing", self._profile.closing))
            if label
        }
        running = self._running(lines, entries, currency) if "balance" in self._places else None
        if self.faults:
            return None
        opening = labelled.get("opening") if labelled.get("opening") is not None else running and running[0]
        closing = labelled.get("closing") if labelled.get("closing") is not None else running and running[1]
        if opening is None or closing is None:
            self.faults.append(Fault("missing_balance", "no line of the opening or closing balance", self._file))
            return None
        if running is not None and (opening, closing) != running:
            reason = f"the lines go from {running[0]:f} to {running[1]:f}, the totals say {opening:f} to {closing:f}"
            self.faults.append(Fault("balance_mismatch", reason, self._file))
            return None
        return opening, closing

    def _labelled(self, rows: list[_Row], label: str, currency: str) -> Decimal | None:
        for number, row in rows:
            if row[0].strip().startswith(label):
                amounts = [self._parse(cell, currency) for cell in row[1:] if cell.strip()]
                found = next((amount for amount in amounts if isinstance(amount, Decimal)), None)
                if found is None:
                    self.fault(number, "invalid_amount", f"no amount in the line of {label!r}")
                return found
        self.faults.append(Fault("missing_balance", f"no line begins with {label!r}: a cut file?", self._file))
        return None

    def _running(
        self, lines: list[_Row], entries: list[StatementEntry], currency: str
    ) -> tuple[Decimal, Decimal] | None:
        """Hold every line to the balance after it; returns the balances before the first and after the last."""
        after = [self._amount(number, self._cell(row, "balance"), currency) for number, row in lines]
        if any(balance is None for balance in after):
            return None
        known = [balance for balance in after if balance is not None]
        opening = reached = known[0] - entries[0].amount
        for (number, _), entry, balance in zip(lines, entries, known, strict=True):
            reached += entry.amount
            if balance != reached:
                reason = f"the balance after this line is {reached:f}, it says {balance:f}"
                self.fault(number, "balance_mismatch", reason)
                return None
        return opening, reached
