"""Statement files cut at every byte: refused with a stable code, or, in a CSV without totals, whole lines."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from core.errors import InvalidInputError
from tests.payments.bank.test_readers import READERS
from tests.payments.bank.write_statements import IBAN, TheStatement, Told

D = Decimal
STATEMENT = TheStatement(
    [
        Told(date(2026, 10, 5), D("1190.00"), "RF21MB2026000001 Rechnung", "Müller & Söhne", IBAN),
        Told(date(2026, 10, 6), D("-14.90"), "Gebühr", ""),
        Told(date(2026, 10, 7), D("-595.00"), "zurück", "Acme", IBAN, is_return=True),
    ]
)
CODES = {
    "balance_mismatch", "cut_file", "forbidden_xml", "invalid_amount", "invalid_date", "invalid_encoding",
    "invalid_value", "invalid_xml", "malformed_line", "missing_balance", "missing_column", "missing_element",
    "missing_field", "sum_mismatch", "too_many_digits", "unknown_currency", "unknown_field", "unknown_format",
    "wrong_currency", "wrong_account",
}  # fmt: skip


@pytest.mark.parametrize("form", READERS)
def test_cut_at_every_byte(form: str) -> None:
    write, read = READERS[form]
    content = write(STATEMENT)
    whole = [entry.amount for entry in read(content)[0].entries]
    for length in range(len(content)):
        try:
            (found,) = read(content[:length])
        except InvalidInputError as refused:
            unknown = {fault.code for fault in refused.faults} - CODES
            assert not unknown, (length, unknown)
            continue
        amounts = [entry.amount for entry in found.entries]
        if form.startswith("csv"):
            kept = len(amounts)
            assert amounts == (whole[-kept:] if "newest" in form and kept else whole[:kept]), length
        else:
            assert amounts == whole, length
