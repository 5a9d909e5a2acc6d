"""Reads the European Central Bank's reference rates from its own file (`eurofxref-hist.csv`, zipped or not).

One row per business day, newest or oldest first, a column per currency: so much of it is one euro. `N/A` or nothing is
a currency without a rate that day. Anything else is refused: a rate that was misread would be on invoices.
"""

from __future__ import annotations

import csv
import io
import zipfile
from datetime import date
from decimal import Decimal
from pathlib import Path

from core.errors import Fault, InvalidInputError
from core.money import MINOR_UNITS
from invoicing.domain.exchange import NO_RATES, ExchangeRates
from rating.domain.fields import parse_amount

BASE = "EUR"
SOURCE = "ECB"
_ABSENT = frozenset({"", "N/A"})
_SIZE_MAX = 64_000_000
_FAULTS_SHOWN = 20


def load_exchange_rates(path: Path | None) -> ExchangeRates:
    """Return the rates of a file; without one there are none, so that every conversion is refused.

    Raises `InvalidInputError` with file and line of every fault.
    """
    if path is None:
        return NO_RATES
    try:
        content = path.read_bytes()
        if path.suffix == ".zip":
            content = _unzip(content)
    except (OSError, zipfile.BadZipFile) as error:
        raise InvalidInputError([Fault("unreadable_file", str(error), str(path))]) from None
    return read_exchange_rates(content, path.name)


def read_exchange_rates(content: bytes, name: str) -> ExchangeRates:
    """Return the rates of a file's bytes; raises `InvalidInputError`."""
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError([Fault("invalid_csv", str(error), name)]) from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    if not header or header[0].lower() != "date":
        raise InvalidInputError([Fault("invalid_csv", "expected a first column Date and one per currency", name)])
    faults: list[Fault] = []
    rates: dict[date, dict[str, Decimal]] = {}
    for number, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        at = f"{name}:{number}"
        try:
            day = date.fromisoformat(row[0].strip())
        except ValueError:
            faults.append(Fault("invalid_date", f"expected a day such as 2026-11-20, got {row[0][:40]!r}", at))
            continue
        if day in rates:
            faults.append(Fault("duplicate_date", f"{day.isoformat()} stands here twice", at))
        if len(row) != len(header):
            faults.append(Fault("invalid_csv", f"{len(row)} cells, the header has {len(header)}: the file is cut", at))
            continue
        rates[day] = _read_row(header, row, at, faults)
    if not rates and not faults:
        faults.append(Fault("invalid_csv", "the file has no rates", name))
    if faults:
        raise InvalidInputError(faults[:_FAULTS_SHOWN])
    return ExchangeRates(BASE, SOURCE, tuple(sorted(rates)), rates)


def _read_row(header: list[str], row: list[str], at: str, faults: list[Fault]) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for currency, cell in zip(header[1:], row[1:], strict=True):
        text = cell.strip()
        # The bank's file ends its rows with a comma, and has currencies of the past that nobody is invoiced in.
        if currency not in MINOR_UNITS or text in _ABSENT:
            continue
        rate = parse_amount(text)
        if isinstance(rate, Fault) or not rate:
            faults.append(Fault("invalid_rate", f"expected a rate above zero, got {text[:40]!r}", f"{at}: {currency}"))
        else:
            found[currency] = rate
    return found


def _unzip(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [one for one in archive.infolist() if one.filename.endswith(".csv")]
        if len(names) != 1 or names[0].file_size > _SIZE_MAX:
            raise zipfile.BadZipFile("expected one CSV file of a reasonable size in the archive")
        return archive.read(names[0])
