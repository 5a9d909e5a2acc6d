"""Entries: what they must satisfy, and what each cause moves, with the sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BrokenInvariantError
from ledger.domain import postings
from ledger.domain.entry import Account, AccountKind, EntryKind, LedgerEntry, Posting, entry_of, net_by_currency
from ledger.domain.postings import CreditSource, Entries
from tests.ledger.conftest import NOW

D = Decimal
amounts = st.decimals(min_value=0, max_value=10**9, places=2)
accounts = st.sampled_from([kind for kind in AccountKind if kind not in {AccountKind.CASH, AccountKind.TAX_PAYABLE}])
currencies = st.sampled_from(["USD", "EUR", "MXN"])


def net(*entries: Entries) -> dict[str, str]:
    """Every account's debits less credits, by name; those that came to nothing are left out."""
    found: dict[str, Decimal] = {}
    for one in (posting for group in entries for entry in group for posting in entry.postings):
        found[one.account.name] = found.get(one.account.name, D(0)) + one.net
    return {name: f"{amount:f}" for name, amount in found.items() if amount}


@given(st.lists(st.tuples(accounts, currencies, amounts), min_size=1, max_size=12))
def test_moves_that_add_up_make_an_entry_that_balances(moves: list[tuple[AccountKind, str, Decimal]]) -> None:
    there = [(Account(kind, "acme"), currency, amount) for kind, currency, amount in moves]
    back = [(Account(AccountKind.FX_DIFFERENCE, None), currency, -amount) for _, currency, amount in moves]
    for entry in entry_of(EntryKind.EXCHANGE, "x", NOW, there + back):
        assert set(net_by_currency(entry.postings).values()) <= {0}
        for one in entry.postings:
            assert (one.debit == 0) != (one.credit == 0)
            assert one.debit >= 0 <= one.credit
        seen = [(one.account, one.currency) for one in entry.postings]
        assert len(set(seen)) == len(seen), "an account stands in an entry once"


@given(st.lists(st.tuples(accounts, currencies, amounts), min_size=1, max_size=6), amounts.filter(bool))
def test_moves_that_do_not_add_up_are_never_an_entry(
    moves: list[tuple[AccountKind, str, Decimal]], too_much: Decimal
) -> None:
    there = [(Account(kind, "acme"), currency, amount) for kind, currency, amount in moves]
    back = [(Account(AccountKind.FX_DIFFERENCE, None), currency, -amount) for _, currency, amount in moves]
    with pytest.raises(BrokenInvariantError):
        entry_of(EntryKind.EXCHANGE, "x", NOW, [*there, *back, (Account(AccountKind.REVENUE, "acme"), "USD", too_much)])


@pytest.mark.parametrize(
    "postings_",
    [
        [],
        [Posting(Account(AccountKind.REVENUE, "acme"), "USD", debit=D(1))],
        [
            Posting(Account(AccountKind.REVENUE, "acme"), "USD", debit=D(1)),
            Posting(Account(AccountKind.RECEIVABLE, "acme"), "EUR", credit=D(1)),
        ],
    ],
)
def test_an_entry_that_does_not_balance_in_every_currency_cannot_be_made(postings_: Sequence[Posting]) -> None:
    with pytest.raises(BrokenInvariantError):
        LedgerEntry(EntryKind.INVOICE, "inv_1", NOW, tuple(postings_))


@pytest.mark.parametrize(
    ("debit", "credit"), [("0", "0"), ("1", "1"), ("-1", "0"), ("0", "-1"), ("1", "-1"), ("0.001", "0")]
)
def test_a_posting_has_one_side_above_zero_in_whole_minor_units(debit: str, credit: str) -> None:
    with pytest.raises(BrokenInvariantError):
        Posting(Account(AccountKind.REVENUE, "acme"), "USD", debit=D(debit), credit=D(credit))


@pytest.mark.parametrize(
    ("kind", "part"), [("cash", ""), ("tax_payable", "D E"), ("tax_payable", "ü"), ("revenue", "stripe")]
)
def test_only_cash_and_tax_are_split_and_by_plain_names(kind: str, part: str) -> None:
    with pytest.raises(BrokenInvariantError):
        Account(AccountKind(kind), "acme", part)


def test_the_same_cause_is_the_same_entry_and_another_kind_is_another() -> None:
    moves = [
        (Account(AccountKind.REVENUE, "acme"), "USD", D(1)),
        (Account(AccountKind.RECEIVABLE, "acme"), "USD", D(-1)),
    ]
    (entry,) = entry_of(EntryKind.INVOICE, "inv_1", NOW, moves)
    (again,) = entry_of(EntryKind.INVOICE, "inv_1", NOW, moves[::-1])
    (other,) = entry_of(EntryKind.VOID, "inv_1", NOW, moves)
    assert entry.entry_id == again.entry_id != other.entry_id
    assert entry.content == again.content
    assert replace(entry, kind=EntryKind.VOID).entry_id == other.entry_id


# 100.00 and 20.00 net; 19 % of 100.00 in Germany, 21 % of 20.00 in Spain, nothing in Andorra
TAXES = {"DE": D("19.00"), "ES": D("4.20"), "AD": D("0.00")}


def invoice() -> Entries:
    return postings.of_invoice("inv_1", "acme", "EUR", subtotal=D("120.00"), taxes=TAXES, at=NOW)


def test_an_invoice_is_owed_with_its_taxes() -> None:
    assert net(invoice()) == {
        "receivable": "143.20",  # 120.00 + 19.00 + 4.20
        "revenue": "-120.00",
        "tax_payable:DE": "-19.00",
        "tax_payable:ES": "-4.20",
    }


def test_an_invoice_of_nothing_moves_nothing() -> None:
    assert postings.of_invoice("inv_1", "acme", "EUR", subtotal=D(0), taxes={"DE": D(0)}, at=NOW) == ()


def test_an_invoice_paid_in_two_parts_leaves_no_debt() -> None:
    first = postings.of_settlement("pay_1", "acme", "EUR", provider="stripe", amount=D("100.00"), at=NOW)
    second = postings.of_settlement("pay_2", "acme", "EUR", provider="wire", amount=D("43.20"), at=NOW)
    receipt = postings.of_bank_receipt("line-7", "EUR", amount=D("50.00"), at=NOW)
    assert net(invoice(), first, receipt, second) == {
        "revenue": "-120.00",
        "tax_payable:DE": "-19.00",
        "tax_payable:ES": "-4.20",
        "cash:stripe": "100.00",
        "cash:wire": "50.00",
        "unallocated": "-6.80",  # 50.00 - 43.20
    }


def test_a_void_takes_everything_back() -> None:
    void = postings.of_void("inv_1", "acme", "EUR", subtotal=D("120.00"), taxes=TAXES, at=NOW)
    assert net(invoice(), void) == {}


def test_a_credit_note_lowers_what_is_open_and_the_rest_becomes_credit() -> None:
    paid = postings.of_settlement("pay_1", "acme", "EUR", provider="stripe", amount=D("140.00"), at=NOW)
    note = postings.of_credit_note(
        "cn_1", "acme", "EUR", subtotal=D("-20.00"), taxes={"ES": D("-4.20")}, applied=D("3.20"), at=NOW
    )
    assert net(invoice(), paid, note) == {
        "revenue": "-100.00",
        "tax_payable:DE": "-19.00",
        "cash:stripe": "140.00",
        "refunds": "-21.00",  # 24.20 - 3.20 applied
    }
    grant = postings.of_credit_granted(
        "c_1", 1, "acme", "EUR", source=CreditSource.CREDIT_NOTE, amount=D("21.00"), at=NOW
    )
    assert net(invoice(), paid, note, grant)["customer_credit"] == "-21.00"
    assert "refunds" not in net(invoice(), paid, note, grant)
    refund = postings.of_refund("ref_1", "acme", "EUR", provider="stripe", amount=D("21.00"), at=NOW)
    given_back = net(invoice(), paid, note, refund)
    assert given_back["cash:stripe"] == "119.00"  # 140.00 - 21.00
    assert "refunds" not in given_back, "what the note owes has been given back"


@pytest.mark.parametrize(("subtotal", "applied"), [("1.00", "0"), ("-1.00", "1.01"), ("-1.00", "-0.01")])
def test_a_credit_note_that_asks_for_money_or_takes_off_too_much_is_refused(subtotal: str, applied: str) -> None:
    with pytest.raises(BrokenInvariantError):
        postings.of_credit_note("cn", "acme", "EUR", subtotal=D(subtotal), taxes={}, applied=D(applied), at=NOW)


def test_a_refund_that_came_back_is_as_if_it_had_not_been() -> None:
    out = postings.of_refund("ref_1", "acme", "EUR", provider="stripe", amount=D("5.00"), at=NOW)
    back = postings.of_failed_refund("ref_1", "acme", "EUR", provider="stripe", amount=D("5.00"), at=NOW)
    assert net(out, back) == {}


def test_a_dispute_takes_the_money_and_gives_it_back_or_not() -> None:
    opened = postings.of_dispute_opened("d_1", "acme", "EUR", provider="stripe", amount=D("9.99"), at=NOW)
    assert net(opened) == {"disputed": "9.99", "cash:stripe": "-9.99"}
    won = postings.of_dispute_won("d_1", "acme", "EUR", provider="stripe", amount=D("9.99"), at=NOW)
    assert net(opened, won) == {}
    lost = postings.of_dispute_lost("d_1", "acme", "EUR", amount=D("9.99"), at=NOW)
    assert net(opened, lost) == {"bad_debt": "9.99", "cash:stripe": "-9.99"}


def test_what_was_written_off_and_comes_all_the_same_lowers_the_bad_debt() -> None:
    given_up = postings.of_write_off("inv_1", "acme", "EUR", open_amount=D("143.20"), at=NOW)
    assert net(invoice(), given_up)["bad_debt"] == "143.20"
    late = postings.of_settlement(
        "pay_1", "acme", "EUR", provider="paypal", amount=D("43.20"), at=NOW, written_off=True
    )
    assert net(invoice(), given_up, late)["bad_debt"] == "100.00"  # 143.20 - 43.20


@pytest.mark.parametrize(
    ("source", "account", "when_expired"),
    [
        (CreditSource.PREPAID, "cash:prepaid", "breakage"),
        (CreditSource.PROMOTION, "promotions", "promotions"),
        (CreditSource.CREDIT_NOTE, "refunds", "breakage"),
        (CreditSource.OVERPAYMENT, "unallocated", "breakage"),
    ],
)
def test_a_credit_comes_from_somewhere_and_goes_back_there(
    source: CreditSource, account: str, when_expired: str
) -> None:
    granted = postings.of_credit_granted("c_1", 1, "acme", "USD", source=source, amount=D("50.00"), at=NOW)
    drawn = postings.of_credit_drawn("c_1", 2, "acme", "USD", amount=D("30.00"), at=NOW)
    assert net(granted, drawn) == {account: "50.00", "customer_credit": "-20.00", "receivable": "-30.00"}
    returned = postings.of_credit_drawn("c_1", 3, "acme", "USD", amount=D("-30.00"), at=NOW)
    taken = postings.of_credit_taken_back("c_1", 4, "acme", "USD", source=source, amount=D("50.00"), at=NOW)
    assert net(granted, drawn, returned, taken) == {}
    expired = postings.of_credit_expired("c_1", 3, "acme", "USD", source=source, amount=D("20.00"), at=NOW)
    # 50.00 came in, 30.00 paid for an invoice, 20.00 ended unused
    left = net(granted, drawn, expired)
    assert left.pop("receivable") == "-30.00"
    promoted = {"promotions": "30.00"}  # 50.00 - 20.00
    assert left == (promoted if source is CreditSource.PROMOTION else {account: "50.00", when_expired: "-20.00"})


def test_money_that_fits_nothing_goes_back() -> None:
    came = postings.of_bank_receipt("line-1", "EUR", amount=D("7.00"), at=NOW)
    went = postings.of_bank_return("line-9", "EUR", amount=D("7.00"), at=NOW)
    assert net(came, went) == {}


def test_an_exchange_balances_in_both_currencies() -> None:
    unallocated = Account(AccountKind.UNALLOCATED, None)
    (entry,) = postings.of_exchange("line-1", unallocated, given=(D(-110), "USD"), got=(D(-100), "EUR"), at=NOW)
    assert {(one.account.name, one.currency): f"{one.net:f}" for one in entry.postings} == {
        ("unallocated", "USD"): "110",
        ("fx_difference", "USD"): "-110",
        ("unallocated", "EUR"): "-100",
        ("fx_difference", "EUR"): "100",
    }
