"""Readers of statements: what an independent writer wrote is read back; nothing malformed or cut passes."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import mt940
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InvalidInputError
from core.read_yaml import read_yaml
from payments.bank.domain.csv_profile import CsvProfile, read_profile
from payments.bank.domain.read_camt import read_camt
from payments.bank.domain.read_csv import read_csv
from payments.bank.domain.read_mt940 import read_mt940
from payments.bank.domain.statement import Statement
from tests.payments.bank.write_statements import TheStatement, Told, write_camt, write_csv, write_mt940

D = Decimal
FILES = Path(__file__).parent / "files"
PROFILES = Path(__file__).parents[3] / "payments" / "bank" / "profiles"


def profile(name: str) -> CsvProfile:
    file = PROFILES / f"{name}.yaml"
    return read_profile(read_yaml(file.read_bytes(), file.name)[0], file.name)


GERMAN = profile("de-semicolon")
READERS: dict[str, tuple[Callable[[TheStatement], bytes], Callable[[bytes], list[Statement]]]] = {
    "mt940": (write_mt940, lambda content: read_mt940(content, "f")),
    "mt940 words": (lambda one: write_mt940(one, words=True), lambda content: read_mt940(content, "f")),
    "camt 02": (write_camt, lambda content: read_camt(content, "f")),
    "camt 08": (lambda one: write_camt(one, version="08"), lambda content: read_camt(content, "f")),
    "csv": (write_csv, lambda content: read_csv(content, GERMAN, "f")),
    "csv newest first": (
        lambda one: write_csv(one, newest_first=True),
        lambda content: read_csv(content, replace(GERMAN, newest_first=True), "f"),
    ),
}


def refusals(work: Callable[[], object]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidInputError) as refused:
        work()
    return [(fault.code, fault.path) for fault in refused.value.faults]


# Laws

_WORDS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 -.,", min_size=1, max_size=60).map(
    lambda text: " ".join(text.split()) or "x"
)
_AMOUNTS = st.integers(-(10**12), 10**12).filter(bool).map(lambda cents: D(cents).scaleb(-2))
_ENTRIES = st.lists(
    st.builds(
        Told,
        day=st.integers(0, 30).map(lambda days: date(2026, 10, 1) + timedelta(days=days)),
        amount=_AMOUNTS,
        text=_WORDS,
        payer=_WORDS.map(lambda text: text[:40].strip()),
        payer_account=st.sampled_from(["", "FR7630006000011234567890189", "NL91ABNA0417164300"]),
        bank_reference=st.sampled_from(["", "2026103100001", "AB12345"]),
        end_to_end=st.sampled_from(["", "RF21MB2026000001", "INV-77"]),
    ),
    min_size=1,
    max_size=8,
).map(lambda entries: sorted(entries, key=lambda each: each.day))
_STATEMENTS = st.builds(
    TheStatement, entries=_ENTRIES, opening=st.integers(-(10**12), 10**12).map(lambda n: D(n) / 100)
)


@pytest.mark.parametrize("form", READERS)
@settings(max_examples=25)
@given(told=_STATEMENTS)
def test_what_was_written_is_read(form: str, told: TheStatement) -> None:
    write, read = READERS[form]
    (found,) = read(write(told))
    assert (found.account, found.currency) == (told.account, told.currency)
    assert (found.opening, found.closing) == (told.opening, told.closing)
    # No amount changes, no entry is lost, none is added.
    assert [entry.amount for entry in found.entries] == [entry.amount for entry in told.entries]
    assert [entry.booked_on for entry in found.entries] == [entry.day for entry in told.entries]
    for entry, was in zip(found.entries, told.entries, strict=True):
        assert "".join(entry.remittance.split()) == "".join(was.text.split())
        assert "".join(entry.counterparty.split()) == "".join(was.payer.split())
        assert entry.counterparty_account == was.payer_account
        if not form.startswith("csv"):
            assert entry.bank_reference == was.bank_reference
            assert (was.end_to_end in entry.references) == bool(was.end_to_end)


@pytest.mark.parametrize("form", READERS)
@settings(max_examples=25)
@given(told=_STATEMENTS, data=st.data())
def test_a_cut_file_is_refused_or_says_the_same(form: str, told: TheStatement, data: st.DataObject) -> None:
    write, read = READERS[form]
    content = write(told)
    length = data.draw(st.integers(0, len(content) - 1))
    try:
        (found,) = read(content[:length])
    except InvalidInputError:
        return
    if form.startswith("csv"):
        # Between two lines a table without totals cannot be told from a shorter one: what is there is whole.
        read_amounts = [entry.amount for entry in found.entries]
        amounts = [entry.amount for entry in told.entries]
        kept = len(read_amounts)
        assert read_amounts == (amounts[-kept:] if "newest" in form else amounts[:kept])
    else:
        # Only what means nothing was missing: a line's end, a zero after the comma.
        assert [entry.amount for entry in found.entries] == [entry.amount for entry in told.entries]
        assert found.closing == told.closing


@pytest.mark.parametrize("form", READERS)
@settings(max_examples=25)
@given(told=_STATEMENTS, data=st.data())
def test_a_changed_byte_never_moves_money(form: str, told: TheStatement, data: st.DataObject) -> None:
    write, read = READERS[form]
    content = bytearray(write(told))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    try:
        (found,) = read(bytes(content))
    except InvalidInputError:
        return
    # Balances hold both ways: a figure may only change together with another one, which one byte cannot do.
    total = sum((entry.amount for entry in found.entries), D(0))
    assert found.opening + total == found.closing
    if form.startswith(("camt", "mt940")):
        assert total == told.closing - told.opening or len(found.entries) != len(told.entries)


@settings(max_examples=25)
@given(told=_STATEMENTS)
def test_mt940_is_read_as_another_reader_does(told: TheStatement) -> None:
    content = write_mt940(told)
    (found,) = read_mt940(content, "f")
    other = mt940.parse(io.BytesIO(content))
    assert [entry.amount for entry in found.entries] == [each.data["amount"].amount for each in other]
    assert [entry.booked_on for entry in found.entries] == [each.data["entry_date"] for each in other]
    assert other.data["final_closing_balance"].amount.amount == found.closing


@settings(max_examples=30)
@given(content=st.binary(max_size=300))
def test_nothing_crashes_the_readers(content: bytes) -> None:
    for _, read in READERS.values():
        with pytest.raises(InvalidInputError):
            read(content)


# What banks really send


def test_sample_of_a_german_bank_in_mt940() -> None:
    first, second = read_mt940((FILES / "german-bank.sta").read_bytes(), "german-bank.sta")
    # 12 500.00 + 1 190.00 - 14.90 + 2 380.00 = 16 055.10
    assert (first.opening, first.closing) == (D("12500.00"), D("16055.10"))
    assert first.account == "37040044/0532013000"
    received = first.entries[0]
    assert (received.amount, received.counterparty) == (D("1190.00"), "MUELLER UND SOEHNE GMBH KOELN")
    assert received.remittance == "RF21 MB20 2600 0001 RECHNUNG OKTOBER"
    assert received.references == ("NOTP-4711",)
    assert (received.booked_on, received.valued_on) == (date(2026, 10, 5), date(2026, 10, 5))
    assert first.entries[2].counterparty_account == "FR7630006000011234567890189"
    # 16 055.10 - 1 190.00 = 14 865.10, booked in January, valued in December.
    (returned,) = second.entries
    assert (returned.amount, returned.is_reversal, returned.booked_on) == (D("-1190.00"), True, date(2027, 1, 2))
    assert second.closing == D("14865.10")


def test_sample_of_a_dutch_bank_in_mt940() -> None:
    (found,) = read_mt940((FILES / "dutch-bank.sta").read_bytes(), "dutch-bank.sta")
    paid, fee = found.entries
    assert paid.counterparty == "Van Dijk Logistiek B.V."
    assert paid.counterparty_account == "NL91ABNA0417164300"
    assert paid.remittance == "MB-2026-000007 MB-2026-000008"
    assert paid.references == ("E2E-20261014-1",)
    assert fee.amount == D("-2.15")


def test_sample_of_camt_with_a_batch_and_a_return() -> None:
    (found,) = read_camt((FILES / "batch-and-return.xml").read_bytes(), "batch-and-return.xml")
    # 20 000.00 + 3 570.00 (a batch of 1 190.00 and 2 380.00) - 595.00 (returned) = 22 975.00; 500.00 are not booked yet
    assert [entry.amount for entry in found.entries] == [D("1190.00"), D("2380.00"), D("-595.00")]
    one, other, back = found.entries
    assert one.references == ("RF21MB2026000001", "ACME-1")
    assert (one.bank_reference, other.bank_reference) == ("BATCH-7/1", "BATCH-7/2")
    assert other.counterparty == "Société Générale des Eaux S.A."
    assert back.is_reversal
    assert back.counterparty == "Acme Industries AG"
    assert found.closing == D("22975.00")
    assert one.place == "line 25: BkToCstmrStmt/Stmt/Ntry[1]/NtryDtls/TxDtls[1]"


def test_sample_of_an_american_bank_in_csv() -> None:
    (found,) = read_csv((FILES / "american-bank.csv").read_bytes(), profile("us-comma"), "american-bank.csv")
    # 100,000.00 + 12,450.00 - 25.00 + 7,999.50 = 120,424.50
    assert [entry.amount for entry in found.entries] == [D("12450.00"), D("-25.00"), D("7999.50")]
    assert (found.opening, found.closing) == (D("100000.00"), D("120424.50"))
    assert found.entries[0].remittance == "WIRE IN MB-2026-000011, thank you"
    assert found.entries[0].counterparty == 'Globex "West" LLC'


# Refusals, each with its place

ONE = TheStatement([Told(date(2026, 10, 5), D("119.00"), "RF21MB2026000001", "Acme")])


@pytest.mark.parametrize(
    ("before", "after", "faults"),
    [
        (":62F:", ":62X:", [("unknown_field", "f: line 7"), ("cut_file", "f: line 6")]),
        ("C261031EUR1119,00", "C261031EUR1119,01", [("balance_mismatch", "f: line 1")]),
        ("C119,00", "C11x,00", [("malformed_line", "f: line 5")]),
        ("C119,00", "C119,001", [("too_many_digits", "f: line 5")]),
        ("2610051005", "2613051005", [("invalid_date", "f: line 5")]),
        ("2610051005", "2602301005", [("invalid_date", "f: line 5")]),
        (":28C:", ":29C:", [("unknown_field", "f: line 3"), ("missing_field", "f: line 1")]),
        ("C261031EUR", "C261031USD", [("wrong_currency", "f: line 7")]),
        ("C261031EUR", "C261031EUX", [("unknown_currency", "f: line 7")]),
        (":61:", "garbage\n:61:", [("malformed_line", "f: line 5")]),
        (":20:", ":21:", [("malformed_line", f"f: line {line}") for line in (1, 2, 3, 4, 5, 6, 7, 8)]),
    ],
)
def test_malformed_mt940(before: str, after: str, faults: list[tuple[str, str]]) -> None:
    content = write_mt940(ONE, ending="\n").decode()
    assert before in content
    assert refusals(lambda: read_mt940(content.replace(before, after).encode(), "f")) == faults


@pytest.mark.parametrize(
    ("before", "after", "faults"),
    [
        ("camt.053.001.02", "camt.053.001.99", ["unknown_version"]),
        ("<Cd>CLBD</Cd>", "<Cd>CLAV</Cd>", ["missing_element"]),
        (">119.00<", ">119.001<", ["too_many_digits"]),
        (">119.00<", ">-119.00<", ["invalid_amount"]),
        (">119.00<", ">1e3<", ["invalid_amount"]),
        (">119.00<", "><", ["invalid_amount"]),
        ('<Ntry><Amt Ccy="EUR">', '<Ntry><Amt Ccy="USD">', ["wrong_currency"]),
        (">1119.00<", ">1119.01<", ["balance_mismatch"]),
        ("<BookgDt><Dt>2026-10-05", "<BookgDt><Dt>2026-10-32", ["invalid_date"]),
        ("CRDT</CdtDbtInd><Sts>", "KRED</CdtDbtInd><Sts>", ["invalid_value"]),
        ("<Sts>BOOK", "<Sts>DONE", ["invalid_value"]),
        ("<NbOfNtries>1", "<NbOfNtries>2", ["sum_mismatch"]),
        ("</Document>", "", ["invalid_xml"]),
        ('encoding="UTF-8"', 'encoding="latin-99"', ["invalid_xml"]),
        ("<Document", "<!DOCTYPE Document [<!ENTITY a 'b'>]><Document", ["forbidden_xml"]),
    ],
)
def test_malformed_camt(before: str, after: str, faults: list[str]) -> None:
    content = write_camt(ONE).decode()
    assert before in content
    found = refusals(lambda: read_camt(content.replace(before, after, 1).encode(), "f"))
    assert [code for code, _ in found] == faults
    assert all(path.startswith("f") for _, path in found)


def test_a_fault_of_camt_names_line_and_element() -> None:
    content = write_camt(ONE).replace(b">119.00<", b">119.x<")
    assert refusals(lambda: read_camt(content, "f")) == [("invalid_amount", "f: line 9: BkToCstmrStmt/Stmt/Ntry/Amt")]


@pytest.mark.parametrize(
    "entity",
    [
        '<!ENTITY x SYSTEM "file:///etc/hostname">',
        '<!ENTITY x SYSTEM "http://127.0.0.1:1/x">',
        '<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY x "&b;&b;&b;&b;&b;&b;&b;">',
    ],
)
def test_entities_are_never_followed(entity: str) -> None:
    content = write_camt(ONE).decode().replace("<Document", f"<!DOCTYPE Document [{entity}]><Document")
    content = content.replace("RF21MB2026000001", "&x;")
    assert refusals(lambda: read_camt(content.encode(), "f")) == [("forbidden_xml", "f")]


@pytest.mark.parametrize(
    ("before", "after", "faults"),
    [
        ("Betrag", "Summe", [("missing_column", "f")]),
        ("119,00", "119.00", [("invalid_amount", "f: line 5")]),
        ("119,00", "--119,00", [("invalid_amount", "f: line 5")]),
        ("119,00", "119,005", [("too_many_digits", "f: line 5")]),
        ('"-7,00"', '"-8,00"', [("balance_mismatch", "f: line 6")]),
        ('"1.112,00"', '"1.113,00"', [("balance_mismatch", "f: line 6")]),
        ("05.10.2026", "2026-10-05", [("invalid_date", "f: line 5"), ("invalid_date", "f: line 5")]),
        ("EUR", "USD", [("wrong_currency", "f: line 6")]),
        (';"119,00"', "", [("malformed_line", "f: line 5")]),
    ],
)
def test_malformed_csv(before: str, after: str, faults: list[tuple[str, str]]) -> None:
    two = TheStatement([*ONE.entries, Told(date(2026, 10, 6), D("-7.00"), "fee")])
    content = write_csv(two).decode("cp1252")
    assert before in content
    changed = content.replace(before, after) if before.startswith("05") else content.replace(before, after, 1)
    assert refusals(lambda: read_csv(changed.encode("cp1252"), GERMAN, "f")) == faults


def test_a_csv_without_its_totals_is_refused() -> None:
    content = (FILES / "american-bank.csv").read_bytes()
    cut = content[: content.index(b"Closing Balance")]
    assert refusals(lambda: read_csv(cut, profile("us-comma"), "f")) == [("missing_balance", "f")]
    lost = content.replace(b'10/14/2026,000123456789,"Bank fee","",25.00,,,F-77\r\n', b"")
    assert lost != content
    assert refusals(lambda: read_csv(lost, profile("us-comma"), "f")) == [("balance_mismatch", "f")]


def test_all_faults_of_a_profile_are_reported() -> None:
    document = {
        "name": "X y", "encoding": "klingon", "delimiter": ";;", "decimal": ",", "thousands": ",", "date": "day",
        "columns": {"amount": "A", "colour": "B"}, "typo": 1,
    }  # fmt: skip
    found = refusals(lambda: read_profile(document, "p.yaml"))
    assert {path.removeprefix("p.yaml: ") for _, path in found} == {
        "name", "encoding", "delimiter", "thousands", "date", "columns.colour", "columns.booked_on", "account",
        "currency", "balances", "typo",
    }  # fmt: skip
