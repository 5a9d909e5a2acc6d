"""Which invoices an entry is proposed for: the laws that money cannot break, and cases with their points."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.bank_account import BankAccount, transfer_details
from core.creditor_reference import creditor_reference, is_creditor_reference, print_reference
from payments.bank.domain.match import (
    Fit,
    Incoming,
    Movement,
    OpenInvoice,
    Rules,
    name_likeness,
    propose,
    propose_returns,
)
from payments.bank.domain.reference import compact, names_invoice

D = Decimal
DAY = date(2026, 10, 5)


def invoice(number: int, amount: str, tenant: str = "acme", name: str = "Acme Industries AG") -> OpenInvoice:
    return OpenInvoice(
        f"inv_{number}", f"MB-2026-{number:06d}", tenant, name, "EUR", D(amount), DAY + timedelta(number)
    )


def money(amount: str, text: str = "", payer: str = "", account: str = "", *references: str) -> Incoming:
    return Incoming("bent_1", "EUR", D(amount), text, references, payer, account)


# References


@given(number=st.from_regex(r"[A-Z][A-Z0-9]{0,9}-20[2-9][0-9]-[0-9]{6,7}", fullmatch=True), data=st.data())
def test_a_reference_is_valid_and_one_slip_makes_it_invalid(number: str, data: st.DataObject) -> None:
    reference = creditor_reference(number)
    assert is_creditor_reference(reference)
    assert len(reference) <= 25
    assert reference == creditor_reference(number)
    assert compact(print_reference(reference)) == reference
    place = data.draw(st.integers(4, len(reference) - 1))
    # Of the same kind: a letter counts as two digits, so one for a digit moves all that follow, and may fit by chance.
    kind = "0123456789" if reference[place].isdigit() else "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    letter = data.draw(st.sampled_from(kind.replace(reference[place], "")))
    assert not is_creditor_reference(reference[:place] + letter + reference[place + 1 :])


@given(one=st.integers(1, 10**6), other=st.integers(1, 10**6))
def test_two_invoices_never_share_a_reference(one: int, other: int) -> None:
    first, second = (creditor_reference(f"MB-2026-{number:06d}") for number in (one, other))
    assert (first == second) == (one == other)


def test_a_number_that_is_too_long_has_a_reference_all_the_same() -> None:
    reference = creditor_reference("AVERYLONGP-2026-123456789012")
    assert is_creditor_reference(reference)
    assert is_creditor_reference(creditor_reference("№ 7"))


@pytest.mark.parametrize(
    "text",
    [
        "MB-2026-000001", "mb 2026 000001", "MB2026000001", "RECHNUNGMB-2026-000001VOM1.10.", "Inv. MB/2026/000001.",
        "MB-2026-\n000001", "MB - 2026 - 000 001", "RF21 MB20 2600 0001", "rf21mb2026000001", "RF21MB2026 000001 danke",
    ],
)  # fmt: skip
def test_how_payers_write_it(text: str) -> None:
    assert names_invoice("MB-2026-000001", text, compact(text)) is not None


@pytest.mark.parametrize("text", ["MB-2026-0000012", "MB-2026-000002", "MB-2026-00001", "2026-000001", "MB 2026", ""])
def test_what_names_another_one_or_none(text: str) -> None:
    assert names_invoice("MB-2026-000001", text, compact(text)) is None


# Laws

_INVOICES = st.lists(
    st.builds(
        lambda number, cents, tenant: invoice(number, f"{cents / 100:.2f}", tenant, f"Customer {tenant}"),
        st.integers(1, 30), st.integers(0, 50_000), st.sampled_from(["a", "b"]),
    ),
    max_size=10, unique_by=lambda one: one.number,
)  # fmt: skip


@settings(max_examples=150)
@given(invoices=_INVOICES, data=st.data(), tolerance=st.sampled_from(["0", "0.50", "10"]))
def test_no_proposal_gives_out_more_than_came_or_is_open(
    invoices: list[OpenInvoice], data: st.DataObject, tolerance: str
) -> None:
    named = data.draw(st.lists(st.sampled_from(invoices), max_size=3)) if invoices else []
    sums = [sum((one.open_amount for one in named), D(0)), D("123.45"), D("0.01")]
    amount = data.draw(st.sampled_from([one for one in sums if one > 0]))
    text = " ".join(data.draw(st.sampled_from([one.number, creditor_reference(one.number), "x"])) for one in named)
    payer = data.draw(st.sampled_from(["Customer a", "CUSTOMER B GMBH", "", "Somebody"]))
    incoming = Incoming("bent_1", "EUR", amount, text, (), payer, "NL91")
    payers = {"NL91": frozenset({"a"})} if data.draw(st.booleans()) else {}
    found = propose(incoming, invoices, payers=payers, rules=Rules(D(tolerance)))
    opened = {one.invoice_id: one.open_amount for one in invoices}
    for proposal in found:
        given_out = sum((part.amount for part in proposal.parts), D(0))
        assert given_out + proposal.rest == amount
        assert all(part.amount > 0 and part.amount + part.fee <= opened[part.invoice_id] for part in proposal.parts)
        assert sum(part.fee for part in proposal.parts) <= D(tolerance)
        assert len({part.invoice_id for part in proposal.parts}) == len(proposal.parts)
        assert 0 <= proposal.score <= 100
        if proposal.is_exact:
            assert proposal.rest == 0
            assert all(part.amount == opened[part.invoice_id] for part in proposal.parts)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    # The order in which invoices are read changes nothing.
    assert propose(incoming, invoices[::-1], payers=payers, rules=Rules(D(tolerance))) == found


# Cases: fit, points, invoices

CASES = [
    # reference 60 + amount 30 + name 20, at most 100
    (money("100.00", "RF21 MB20 2600 0001", "ACME INDUSTRIES"), "0", [(Fit.EXACT, 100, [1])]),
    # number 60 + amount 30: whoever paid
    (money("100.00", "MB-2026-000001", "Jane Doe"), "0", [(Fit.EXACT, 90, [1])]),
    # in the field of its own, not in the text
    (money("100.00", "thank you", "Jane Doe", "", "RF21MB2026000001"), "0", [(Fit.EXACT, 90, [1])]),
    # 60 + 10: a part
    (money("40.00", "MB-2026-000001"), "0", [(Fit.PARTIAL, 70, [1])]),
    # 60 + 20: 100.00 - 95.00 = 5.00 of fees
    (money("95.00", "MB-2026-000001"), "5", [(Fit.SHORT, 80, [1])]),
    (money("95.00", "MB-2026-000001"), "4.99", [(Fit.PARTIAL, 70, [1])]),
    # 60 + 15: 20.00 too much, and no other invoice makes it whole
    (money("120.00", "MB-2026-000001"), "0", [(Fit.OVER, 75, [1])]),
    # two named: 100.00 + 200.00 = 300.00; 60 + 30
    (money("300.00", "MB-2026-000001/MB-2026-000002"), "0", [(Fit.EXACT, 90, [1, 2])]),
    # one named, another makes it whole: 60 + 30 - 10 before 60 + 15
    (money("300.00", "MB-2026-000001 and 2"), "0", [(Fit.EXACT, 80, [1, 2]), (Fit.OVER, 75, [1])]),
    # nothing named: amount 30 + name 20
    (money("200.00", "consulting", "Acme Industries"), "0", [(Fit.EXACT, 50, [2])]),
    # the sum of all three: 100.00 + 200.00 + 300.00; 30 + name 20
    (money("600.00", "", "Acme Industries"), "0", [(Fit.EXACT, 50, [1, 2, 3])]),
    # the same amount twice: by account 20 + amount 30 - 10
    (money("70.00", "", "", "NL91 ABNA 0417"), "0", [(Fit.EXACT, 40, [4])]),
    # no amount fits: the oldest first, 10 + 20 - 10
    (money("150.00", "", "Acme Industries"), "0", [(Fit.PARTIAL, 20, [1, 2])]),
    # mistyped, amount right: 30 + 30
    (money("200.00", "MB-2O26-000002"), "0", [(Fit.EXACT, 60, [2])]),
    # named and paid before: 60 - 20
    (money("50.00", "MB-2026-000006"), "0", [(Fit.PAID_BEFORE, 40, [])]),
    # an amount that two invoices of strangers have says nothing
    (money("70.00", "", "Jane Doe"), "0", []),
    (money("1.23", "", "Jane Doe"), "0", []),
    # another currency's invoice is none
    (Incoming("bent_1", "USD", D("100.00"), "MB-2026-000001", (), "Acme", ""), "0", []),
]
OPEN = [
    invoice(1, "100.00"), invoice(2, "200.00"), invoice(3, "300.00"), invoice(4, "70.00", "globex", "Globex LLC"),
    invoice(5, "70.00", "initech", "Initech Inc."), invoice(6, "0.00", "umbrella", "Umbrella S.A."),
]  # fmt: skip


@pytest.mark.parametrize(("incoming", "tolerance", "expected"), CASES)
def test_cases(incoming: Incoming, tolerance: str, expected: list[tuple[Fit, int, list[int]]]) -> None:
    payers = {"NL91ABNA0417": frozenset({"globex"})}
    found = propose(incoming, OPEN, payers=payers, rules=Rules(D(tolerance)))
    assert [(one.fit, one.score, [int(part.number[-6:]) for part in one.parts]) for one in found] == expected


def test_several_tenants_in_one_payment_are_doubtful() -> None:
    (found,) = propose(money("170.00", "MB-2026-000001 MB-2026-000004"), OPEN)
    # 100.00 of Acme + 70.00 of Globex: 60 + 30 - 10
    assert (found.score, found.tenant_ids, found.is_exact) == (80, ("acme", "globex"), False)


@pytest.mark.parametrize(
    ("payer", "tenant", "at_least"),
    [
        ("MÜLLER & SÖHNE GMBH", "Müller & Söhne", 100),
        ("MUELLER UND SOEHNE GMBH KOELN", "Müller & Söhne", 90),
        ("Muller y Sohne", "Müller & Söhne GmbH", 80),
        ("Acme S.A. de C.V.", "ACME, SA de CV", 100),
        ("Industries Acme", "Acme Industries AG", 100),
        ("Societe Generale des Eaux", "Société Générale des Eaux S.A.", 100),
    ],
)
def test_names_that_are_the_same(payer: str, tenant: str, at_least: int) -> None:
    assert name_likeness(payer, tenant) >= at_least


@pytest.mark.parametrize(
    ("payer", "tenant"), [("Globex LLC", "Initech LLC"), ("Acme Foods", "Acme"), ("", "Acme"), ("GmbH", "Acme GmbH")]
)
def test_names_that_are_not(payer: str, tenant: str) -> None:
    assert name_likeness(payer, tenant) < 70


# Returns


def moved(name: str, left: str, *texts: str, reversal: bool = False, payer: str = "", day: int = 5) -> Movement:
    return Movement(name, date(2026, 10, day), D(left), "", texts, payer, "", reversal)


def test_returns_need_the_amount_and_something_else() -> None:
    received = [moved("one", "50.00", "MB-2026-000001", payer="Acme"), moved("late", "50.00", "MB-2026-000001", day=9)]
    fee = moved("fee", "50.00", "quarterly fee", payer="Our bank", day=6)
    assert propose_returns(fee, received) == []
    back = moved("back", "50.00", "RETURN MB-2026-000001", reversal=True, payer="Acme", day=6)
    # amount 30 + reversal 30 + reference 30 + name 10
    (found,) = propose_returns(back, received)
    assert (found.returns, found.score) == ("one", 100)
    assert propose_returns(moved("less", "49.99", "MB-2026-000001", reversal=True, day=6), received) == []


# What the invoice says


def test_an_invoice_shows_the_accounts_in_its_currency() -> None:
    euro = BankAccount("EUR", "Seller", "Bank", iban="DE89370400440532013000", bic="COBADEFF370")
    dollar = BankAccount("USD", "Seller", "Bank", account_number="123", routing="123456780")
    shown = transfer_details("MB-2026-000001", "EUR", [euro, dollar])
    assert shown == {
        "reference": "RF21MB2026000001",
        "reference_printed": "RF21 MB20 2600 0001",
        "accounts": [
            {"holder": "Seller", "bank": "Bank", "iban": "DE89 3704 0044 0532 0130 00", "bic": "COBADEFF370",
             "currency": "EUR"}
        ],
    }  # fmt: skip
    assert transfer_details("MB-2026-000001", "MXN", [euro, dollar]) is None


@pytest.mark.parametrize(
    "name",
    ["DE89370400440532013000", "de89 3704 0044 0532 0130 00", "37040044/0532013000", "COBADEFF370/0532013000EUR"],
)
def test_how_banks_call_an_account(name: str) -> None:
    account = BankAccount(
        "EUR",
        "Seller",
        "Bank",
        "DE89370400440532013000",
        "COBADEFF370",
        account_number="0532013000",
        routing="37040044",
    )
    assert account.is_called(name)
    assert not account.is_called(name.replace("3", "4"))
    assert not account.is_called("")
