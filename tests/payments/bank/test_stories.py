"""Stories of wire payments, each with its sum, on the real PostgreSQL; every import is run again, with nothing new.

What invoicing does with the announcements is done by its own functions, twice, as messages may come again. After every
story the scene adds the books up: entries, allocations, invoices and the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from core.creditor_reference import creditor_reference
from core.errors import InvalidInputError, MeterbookError, NotFoundError
from core.read_yaml import read_yaml
from payments.bank.confirm_match import AlreadyConfirmedError, ChargeUnderWayError, EntryRejectedError
from payments.bank.confirm_return import CreditUsedError
from payments.bank.domain.csv_profile import CsvProfile, read_profile
from payments.bank.domain.match import Fit
from payments.bank.import_statement import StatementChangedError
from payments.bank.propose_matches import confirm_exact
from payments.bank.reject_entry import PartlyConfirmedError, reject_entry, reopen_entry
from rating.adapters.postgres_credits import PostgresCreditLedger
from rating.domain.credit import EntryKind
from tests.payments.bank.scene import Scene
from tests.payments.bank.test_readers import GERMAN
from tests.payments.bank.write_statements import Told, write_camt, write_csv, write_mt940

pytestmark = pytest.mark.integration
D = Decimal


async def code_of(work: Awaitable[object]) -> str:
    with pytest.raises(MeterbookError) as refused:
        await work
    error = refused.value
    return error.faults[0].code if isinstance(error, InvalidInputError) else error.code


@pytest.mark.story
async def test_paid_to_the_cent_with_the_reference(scene: Scene) -> None:
    """A transfer with the creditor reference; owed 1,190.00, all came."""
    tenant = await scene.tenant()
    number = await scene.invoice(tenant, "1190.00")
    reference = creditor_reference(number)
    # The bank grouped it, and the customer wrote it small.
    (entry,) = await scene.receive(scene.told("1190.00", f"rechnung {reference[:4].lower()} {reference[4:]}"))
    best = (await scene.proposals(entry)).proposals[0]
    assert (best.fit, best.score, best.is_exact) == (Fit.EXACT, 100, True)
    assert {reason.code for reason in best.reasons} == {"reference", "amount_exact", "name"}
    await scene.confirm(entry, number)
    assert await scene.invoice_state(number) == ("paid", D("1190.00"), D(0))
    assert await scene.payments(number) == [(1, "wire", "succeeded", D("1190.00"))]
    assert await scene.entry_state(entry) == ("done", D("1190.00"))
    # Receivable -1 190.00: the invoice's own entry is not made in this scene.
    assert await scene.ledger(tenant) == {"receivable": D("-1190.00")}
    assert await code_of(scene.confirm(entry, number)) == "already_confirmed"
    await scene.nothing_new()


@pytest.mark.story
async def test_paid_short_then_the_rest(scene: Scene) -> None:
    """400.00 come, then 600.00; owed 1,000.00."""
    number = await scene.invoice(await scene.tenant(), "1000.00")
    first, second = await scene.receive(scene.told("400.00", number), scene.told("600.00", f"Rest {number}"))
    assert (await scene.proposals(first)).proposals[0].fit is Fit.PARTIAL
    await scene.confirm(first, number)
    # 1000.00 - 400.00 = 600.00
    assert await scene.invoice_state(number) == ("finalized", D("400.00"), D("600.00"))
    assert (await scene.proposals(second)).proposals[0].fit is Fit.EXACT
    await scene.confirm(second, number)
    assert await scene.invoice_state(number) == ("paid", D("1000.00"), D(0))
    assert await scene.payments(number) == [
        (1, "wire", "succeeded", D("400.00")),
        (2, "wire", "succeeded", D("600.00")),
    ]
    await scene.nothing_new()


@pytest.mark.story
async def test_bank_fees_within_the_tolerance_are_ours(scene: Scene) -> None:
    """15.00 of bank fees are borne, then the transfer is taken back; owed 1,000.00 again."""
    tenant = await scene.tenant()
    number = await scene.invoice(tenant, "1000.00")
    (entry,) = await scene.receive(scene.told("985.00", number))
    proposal = (await scene.proposals(entry, tolerance="15")).proposals[0]
    assert (proposal.fit, proposal.parts[0].fee) == (Fit.SHORT, D("15.00"))
    assert await code_of(scene.confirm(entry, number, fees_ours=True, tolerance="14.99")) == "beyond_tolerance"
    await scene.confirm(entry, number, fees_ours=True, tolerance="15")
    # 985.00 came, 15.00 we bear: 1000.00 settled
    assert await scene.invoice_state(number) == ("paid", D("1000.00"), D(0))
    assert await scene.ledger(tenant) == {"receivable": D("-1000.00"), "bank_fees": D("15.00")}
    # The bank takes all of it back: 1000.00 are owed again, and the fee is not ours after all.
    (back,) = await scene.receive(scene.told("-985.00", f"RETURN {number}", is_return=True))
    await scene.give_back(back, entry)
    assert await scene.invoice_state(number) == ("finalized", D(0), D("1000.00"))
    assert await scene.ledger(tenant) == {}
    await scene.nothing_new()


@pytest.mark.story
async def test_paid_twice_becomes_credit(scene: Scene) -> None:
    """The same transfer twice; owed 250.00, 250.00 become credit."""
    tenant = await scene.tenant()
    number = await scene.invoice(tenant, "250.00")
    first, second = await scene.receive(scene.told("250.00", number), scene.told("250.00", number))
    assert first != second
    await scene.confirm(first, number)
    proposal = (await scene.proposals(second)).proposals[0]
    assert (proposal.fit, proposal.parts, proposal.rest) == (Fit.PAID_BEFORE, (), D("250.00"))
    assert await code_of(scene.confirm(second, number)) == "nothing_open"
    done = await scene.confirm(second, rest="credit", tenant_id=tenant)
    assert [(each.kind, each.amount) for each in done.allocations] == [("credit", D("250.00"))]
    async with scene.pool.connection() as connection:
        (credit,) = await PostgresCreditLedger(connection).credits(tenant)
    assert (credit.balance, credit.grant.reason, credit.grant.kind.value) == (D("250.00"), "overpayment", "paid")
    assert await scene.ledger(tenant) == {"receivable": D("-250.00"), "customer_credit": D("-250.00")}
    await scene.nothing_new()


@pytest.mark.story
async def test_one_transfer_for_three_invoices(scene: Scene) -> None:
    """One transfer without a word; owed 100.00 + 250.50 + 49.50 = 400.00."""
    tenant = await scene.tenant()
    numbers = [await scene.invoice(tenant, amount) for amount in ("100.00", "250.50", "49.50")]
    # 100.00 + 250.50 + 49.50 = 400.00, and nobody wrote what it is for.
    (entry,) = await scene.receive(scene.told("400.00", "Sammelzahlung Oktober"))
    proposal = (await scene.proposals(entry)).proposals[0]
    assert [part.number for part in proposal.parts] == numbers
    assert [part.amount for part in proposal.parts] == [D("100.00"), D("250.50"), D("49.50")]
    assert {reason.code for reason in proposal.reasons} == {"sum_exact", "name"}
    assert not proposal.is_exact
    await scene.confirm(entry, *numbers)
    assert [await scene.invoice_state(number) for number in numbers] == [
        ("paid", D("100.00"), D(0)), ("paid", D("250.50"), D(0)), ("paid", D("49.50"), D(0)),
    ]  # fmt: skip
    await scene.nothing_new()


async def test_a_wrong_reference_is_only_a_hint(scene: Scene) -> None:
    number = await scene.invoice(await scene.tenant(), "77.77")
    mistyped = number[:2] + ("Z" if number[2] != "Z" else "Y") + number[3:]
    (entry,) = await scene.receive(scene.told("77.77", f"Invoice {mistyped}", payer="J. Doe"))
    proposal = (await scene.proposals(entry)).proposals[0]
    assert {reason.code for reason in proposal.reasons} >= {"reference_near", "amount_exact"}
    assert proposal.parts[0].number == number
    assert (proposal.is_exact, proposal.score) == (False, 60)


@pytest.mark.story
async def test_over_payment_the_rest_is_the_persons_choice(scene: Scene) -> None:
    """100.00 too much are held and sent back; owed 900.00."""
    tenant = await scene.tenant()
    number = await scene.invoice(tenant, "900.00")
    (entry,) = await scene.receive(scene.told("1000.00", number))
    proposal = (await scene.proposals(entry)).proposals[0]
    assert (proposal.fit, proposal.rest) == (Fit.OVER, D("100.00"))
    assert await code_of(scene.confirm(entry, (number, "1000.00"))) == "exceeds_open"
    done = await scene.confirm(entry, number)
    # 1000.00 - 900.00 = 100.00 wait for what becomes of them.
    assert (done.left, await scene.entry_state(entry)) == (D("100.00"), ("open", D("900.00")))
    await scene.confirm(entry, rest="held", tenant_id=tenant)
    assert await scene.entry_state(entry) == ("done", D("1000.00"))
    # And they are given back by a transfer of ours, which the next statement shows.
    (back,) = await scene.receive(scene.told("-100.00", "Rückzahlung", payer="Acme Industries AG"))
    await scene.give_back(back, entry)
    assert await scene.invoice_state(number) == ("paid", D("900.00"), D(0))
    assert await scene.entry_state(back) == ("done", D("100.00"))
    await scene.nothing_new()


@pytest.mark.story
async def test_a_returned_transfer_opens_its_invoice_again(scene: Scene) -> None:
    """A transfer is taken back and comes again; owed 595.00 once."""
    tenant = await scene.tenant()
    number = await scene.invoice(tenant, "595.00")
    (entry,) = await scene.receive(scene.told("595.00", number, end_to_end="E2E-4711"))
    await scene.confirm(entry, number)
    (back,) = await scene.receive(scene.told("-595.00", f"RETURN {number}", is_return=True))
    proposal = (await scene.proposals(back)).proposals[0]
    assert (proposal.fit, proposal.returns) == (Fit.RETURN, entry)
    assert {reason.code for reason in proposal.reasons} >= {"amount_exact", "reversal", "reference"}
    await scene.give_back(back, entry)
    # 595.00 - 595.00 = 0.00 paid, 595.00 owed again
    assert await scene.invoice_state(number) == ("finalized", D(0), D("595.00"))
    assert await scene.ledger(tenant) == {}
    assert await code_of(scene.give_back(back, entry)) == "already_confirmed"
    # Paid again: the second payment of the same invoice.
    (again,) = await scene.receive(scene.told("595.00", number))
    await scene.confirm(again, number)
    assert await scene.invoice_state(number) == ("paid", D("595.00"), D(0))
    assert [attempt for attempt, *_ in await scene.payments(number)] == [1, 2]
    await scene.nothing_new()


@pytest.mark.story
async def test_a_return_takes_back_held_money_and_then_the_last_invoice(scene: Scene) -> None:
    """150.00 of 350.00 are taken back; owed 100.00 of the second invoice again."""
    tenant = await scene.tenant()
    first, second = await scene.invoice(tenant, "100.00"), await scene.invoice(tenant, "200.00")
    (entry,) = await scene.receive(scene.told("350.00", "x"))
    await scene.confirm(entry, first, second, rest="held")
    # 350.00 = 100.00 + 200.00 + 50.00 held; 150.00 go back: 50.00 held and 100.00 of the second.
    (back,) = await scene.receive(scene.told("-150.00", "x", is_return=True))
    done = await scene.give_back(back, entry)
    assert [each.amount for each in done.allocations] == [D("50.00"), D("100.00")]
    assert await scene.invoice_state(first) == ("paid", D("100.00"), D(0))
    assert await scene.invoice_state(second) == ("finalized", D("100.00"), D("100.00"))
    # No more than is left of it: 350.00 - 150.00 = 200.00
    (more,) = await scene.receive(scene.told("-200.01", "x", is_return=True))
    assert await code_of(scene.give_back(more, entry)) == "exceeds_original"
    await scene.nothing_new()


async def test_credit_that_was_drawn_cannot_be_taken_back(scene: Scene) -> None:
    tenant = await scene.tenant()
    (entry,) = await scene.receive(scene.told("80.00", "advance"))
    done = await scene.confirm(entry, rest="credit", tenant_id=tenant)
    grant = done.allocations[0].grant_id
    assert grant is not None
    (back,) = await scene.receive(scene.told("-80.00", "advance", is_return=True))
    async with scene.pool.connection() as connection, connection.transaction():
        ledger = PostgresCreditLedger(connection)
        credit = await ledger.lock_credit(grant)
        assert credit is not None
        await ledger.enter(credit.grant, EntryKind.DRAWN, D("-0.01"), at=scene.clock.now(), reference="inv_1")
    with pytest.raises(CreditUsedError):
        await scene.give_back(back, entry)
    assert await scene.entry_state(back) == ("open", D(0))


@pytest.mark.story
async def test_foreign_currency_is_refused(scene: Scene) -> None:
    """Money and statements in another currency; owed 123.45 USD still."""
    number = await scene.invoice(await scene.tenant(), "123.45", currency="USD")
    (entry,) = await scene.receive(scene.told("123.45", number, payer="Nobody"))
    # Named, and to the amount, but in another currency.
    assert (await scene.proposals(entry)).proposals == ()
    assert await code_of(scene.confirm(entry, number)) == "wrong_currency"
    dollars = replace(scene.statement(scene.told("123.45", number)), currency="USD")
    assert await code_of(scene.bring(write_mt940(dollars))) == "wrong_currency"
    other = replace(dollars, account="37040044/1", currency="EUR")
    assert await code_of(scene.bring(write_camt(other))) == "unknown_account"
    await scene.nothing_new()


async def test_a_cut_file_leaves_nothing_behind(scene: Scene) -> None:
    whole = [
        scene.statement(scene.told("10.00", "a"), scene.told("20.00", "b")),
        scene.statement(scene.told("5.00", "c")),
    ]
    content = write_mt940(*whole)
    # Cut in the second statement: the first, which is whole, is not taken either.
    assert await code_of(scene.bring(content[: content.rindex(b":62F:")])) == "cut_file"
    assert await scene.rows("SELECT 1 FROM bank_statements WHERE account_id = %s", scene.account.account_id) == []
    done = await scene.bring(content)
    assert [len(each.new_entries) for each in done] == [2, 1]


async def test_the_second_statement_of_a_file_is_refused_and_so_is_the_first(scene: Scene) -> None:
    (entry,) = await scene.receive(scene.told("10.00", "a"))
    ours = scene.statement(scene.told("20.00", "b"))
    foreign = replace(ours, account="37040044/99", number="00001/001")
    assert await code_of(scene.bring(write_mt940(ours, foreign))) == "unknown_account"
    rows = await scene.rows("SELECT entry_id FROM bank_entries WHERE account_id = %s", scene.account.account_id)
    assert [row["entry_id"] for row in rows] == [entry]


# Twins and overlaps


def csv_of(scene: Scene) -> CsvProfile:
    return replace(GERMAN, account=f"37040044/{scene.account.account_number}")


@pytest.mark.story
async def test_twins_are_two_entries_and_overlapping_exports_none(scene: Scene) -> None:
    """Transfers that say the same, in exports that overlap; owed nothing, each is kept once."""
    tenant = await scene.tenant()
    # The same customer pays 50.00 twice on one day and once more on the next page of that day, without any reference.
    twin = scene.told("50.00", "Abo")
    page_one = scene.statement(twin, twin)
    page_two = replace(
        page_one, number="00001/002", opening=page_one.closing, entries=(twin, replace(twin, amount=D("7.00")))
    )
    scene.balance = page_two.closing
    assert [len(each.new_entries) for each in await scene.bring(write_mt940(page_one, page_two))] == [2, 2]
    # An export of that day and the next shows all of them again: 50.00 + 50.00 + 50.00 + 7.00, and 9.00 more.
    later = Told(scene.day, D("9.00"), "neu", "Acme Industries")
    export = replace(
        page_one, opening=page_one.opening, closed_on=scene.day, entries=(*page_one.entries, *page_two.entries, later)
    )
    (done,) = await scene.bring(write_csv(export), profile=csv_of(scene))
    assert [entry.amount for entry in done.new_entries] == [D("9.00")]
    assert done.gap == 0
    (again,) = await scene.bring(write_csv(export), profile=csv_of(scene))
    assert again.new_entries == ()
    assert tenant
    await scene.nothing_new()


async def test_the_same_days_in_other_words_are_refused(scene: Scene) -> None:
    (entry,) = await scene.receive(scene.told("50.00", "Abo Oktober"))
    one = scene.statement(scene.told("1.00", "x"))
    # The day before again, in an export that cuts the texts: it would count 50.00 twice.
    told = Told(scene.day - timedelta(days=2), D("50.00"), "Abo Okt", "Acme Industries")
    export = replace(one, opening=D("1000.00"), opened_on=told.day, closed_on=told.day, entries=(told,))
    assert await code_of(scene.bring(write_csv(export), profile=csv_of(scene))) == "overlap_mismatch"
    rows = await scene.rows("SELECT entry_id FROM bank_entries WHERE account_id = %s", scene.account.account_id)
    assert [row["entry_id"] for row in rows] == [entry]


@pytest.mark.story
async def test_one_entry_in_two_formats_is_one_by_the_banks_reference(scene: Scene) -> None:
    """One transfer in MT940 and CAMT.053; owed nothing, it is kept once."""
    told = scene.told("50.00", "RF 18 long text of the first", bank_reference="2026100500017")
    one = scene.statement(told)
    (first,) = await scene.bring(write_mt940(one))
    (second,) = await scene.bring(write_camt(replace(one, entries=(replace(told, text="shorter"),)), version="08"))
    assert (len(first.new_entries), second.new_entries, second.gap) == (1, (), D(0))
    await scene.nothing_new()


async def test_a_statement_that_says_something_else_now_is_refused(scene: Scene) -> None:
    one = scene.statement(scene.told("50.00", "a"))
    await scene.bring(write_mt940(one))
    other = replace(one, entries=(scene.told("51.00", "a"),))
    with pytest.raises(StatementChangedError):
        await scene.bring(write_mt940(replace(other, entries=[replace(other.entries[0], day=one.entries[0].day)])))


@pytest.mark.story
async def test_a_missing_statement_shows_as_a_gap_until_it_comes(scene: Scene) -> None:
    """A statement is missing and comes late; owed nothing, a gap of 20.00 closes."""
    one, two, three = (scene.statement(scene.told(amount, "x")) for amount in ("10.00", "20.00", "30.00"))
    await scene.bring(write_mt940(one))
    (last,) = await scene.bring(write_mt940(three))
    # 1000.00 + 10.00 + 30.00 = 1040.00; the bank says 1060.00
    assert last.gap == D("20.00")
    (between,) = await scene.bring(write_mt940(two))
    assert between.gap == 0
    await scene.nothing_new()


# People


async def test_two_persons_confirm_at_once(scene: Scene) -> None:
    tenant = await scene.tenant()
    number, other = await scene.invoice(tenant, "300.00"), await scene.invoice(tenant, "300.00")
    (entry,) = await scene.receive(scene.told("300.00", "x"))
    answers = await asyncio.gather(
        *(scene.confirm(entry, one, by=by) for one, by in ((number, "ada"), (other, "bob"), (number, "cyd"))),
        return_exceptions=True,
    )
    refused = [each for each in answers if isinstance(each, BaseException)]
    assert len(refused) == 2
    assert all(isinstance(each, AlreadyConfirmedError) for each in refused)
    paid = sorted([await scene.payments(number), await scene.payments(other)], key=len)
    assert paid == [[], [(1, "wire", "succeeded", D("300.00"))]]


async def test_two_entries_for_one_invoice_at_once(scene: Scene) -> None:
    number = await scene.invoice(await scene.tenant(), "300.00")
    entries = await scene.receive(scene.told("300.00", "a"), scene.told("300.00", "b"))
    answers = await asyncio.gather(*(scene.confirm(entry, number) for entry in entries), return_exceptions=True)
    (refused,) = [each for each in answers if isinstance(each, BaseException)]
    assert isinstance(refused, InvalidInputError)
    assert refused.faults[0].code == "nothing_open"
    # Not even announced and not settled yet is it open to a second one.
    assert await scene.payments(number) == [(1, "wire", "succeeded", D("300.00"))]


async def test_two_imports_of_one_statement_at_once(scene: Scene) -> None:
    content = write_mt940(scene.statement(scene.told("10.00", "a"), scene.told("10.00", "a")))
    done = [each for (each,) in await asyncio.gather(*(scene.bring(content) for _ in range(3)))]
    assert sorted(len(each.new_entries) for each in done) == [0, 0, 2]
    assert sum(each.is_new for each in done) == 1


@pytest.mark.story
async def test_rejected_and_taken_up_again(scene: Scene) -> None:
    """Put away, taken up again and confirmed in part; owed 10.00 - 4.00 = 6.00."""
    number = await scene.invoice(await scene.tenant(), "10.00")
    (entry,) = await scene.receive(scene.told("10.00", "interest"))
    await reject_entry(entry, reason="interest of the bank", desk=scene.desk, clock=scene.clock, by="ada")
    with pytest.raises(EntryRejectedError, match="interest of the bank"):
        await scene.confirm(entry, number)
    await reopen_entry(entry, desk=scene.desk, clock=scene.clock, by="ada")
    await scene.confirm(entry, (number, "4.00"))
    with pytest.raises(PartlyConfirmedError):
        await reject_entry(entry, reason="", desk=scene.desk, clock=scene.clock, by="ada")
    await scene.nothing_new()


async def test_wishes_that_cannot_be(scene: Scene) -> None:
    tenant = await scene.tenant()
    number = await scene.invoice(tenant, "10.00")
    entry, out = await scene.receive(scene.told("10.00", "x"), scene.told("-3.00", "fee"))
    assert await code_of(scene.confirm("bent_nothing", number)) == "not_found"
    assert await code_of(scene.confirm("bent_", number)) == "ambiguous_entry"
    assert await code_of(scene.confirm(entry, "X-1")) == "unknown_invoice"
    assert await code_of(scene.confirm(entry, number, number)) == "duplicate_invoice"
    assert await code_of(scene.confirm(entry)) == "nothing_wanted"
    assert await code_of(scene.confirm(entry, rest="credit")) == "tenant_needed"
    assert await code_of(scene.confirm(entry, rest="credit", tenant_id="nobody")) == "unknown_tenant"
    assert await code_of(scene.confirm(out, number)) == "not_incoming"
    assert await code_of(scene.confirm(entry, (number, "10.01"))) == "exceeds_entry"
    for amount in ("0", "-1", "1.001"):
        assert await code_of(scene.confirm(entry, (number, amount))) == "invalid_amount"
    assert await code_of(scene.confirm(entry, number, fees_ours=True)) == "no_shortfall"
    assert await code_of(scene.give_back(entry, out)) == "not_outgoing"
    assert await scene.entry_state(entry) == ("open", D(0))
    with pytest.raises(NotFoundError):
        await reject_entry("bent_nothing", reason="", desk=scene.desk, clock=scene.clock, by="ada")


@pytest.mark.story
async def test_an_invoice_that_is_being_charged_waits(scene: Scene) -> None:
    """A transfer for an invoice that is being charged; owed 10.00, paid once the charge failed."""
    tenant = await scene.tenant()
    number = await scene.invoice(tenant, "10.00")
    (entry,) = await scene.receive(scene.told("10.00", number))
    async with scene.pool.connection() as connection:
        await connection.execute(
            "INSERT INTO payments (payment_id, invoice_id, tenant_id, attempt, provider, amount, currency, status,"
            " created_at, updated_at) SELECT %s, invoice_id, tenant_id, 1, 'stripe', 10, 'EUR', 'processing', now(),"
            " now() FROM invoices WHERE number = %s",
            (f"pay_{number}", number),
        )
    with pytest.raises(ChargeUnderWayError):
        await scene.confirm(entry, number)
    async with scene.pool.connection() as connection:
        await connection.execute("UPDATE payments SET status = 'failed' WHERE payment_id = %s", (f"pay_{number}",))
    await scene.confirm(entry, number)
    assert await scene.payments(number) == [(1, "stripe", "failed", D(10)), (2, "wire", "succeeded", D("10.00"))]
    await scene.nothing_new()


@pytest.mark.story
async def test_what_leaves_no_doubt_may_confirm_itself(scene: Scene) -> None:
    """Four transfers of which one leaves no doubt; owed 20.00 and 31.00 still, 10.00 are paid."""
    tenant = await scene.tenant()
    sure, short, unnamed = [await scene.invoice(tenant, amount) for amount in ("10.00", "20.00", "31.00")]
    entries = await scene.receive(
        scene.told("10.00", sure),
        scene.told("10.00", f"again {sure}"),
        scene.told("19.00", short),
        scene.told("31.00", "x"),
    )
    done = await confirm_exact(desk=scene.desk, clock=scene.clock, tolerances={"EUR": D(5)}, only=set(entries))
    # Of the two that name the first invoice one pays it; the other waits for a person, as do 19.00 and 31.00.
    assert [each.allocations[0].amount for each in done] == [D("10.00")]
    await scene.deliver()
    assert await scene.invoice_state(sure) == ("paid", D("10.00"), D(0))
    assert [await scene.invoice_state(number) for number in (short, unnamed)] == [
        ("finalized", D(0), D("20.00")), ("finalized", D(0), D("31.00")),
    ]  # fmt: skip
    assert await confirm_exact(desk=scene.desk, clock=scene.clock, tolerances={}, only=set(entries)) == []
    await scene.nothing_new()


# What the store itself refuses, whoever writes


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE bank_entries SET amount = amount + 1",
        "UPDATE bank_entries SET allocated = 0 WHERE allocated > 0",
        "DELETE FROM bank_entries",
        "UPDATE bank_statements SET closing = 0",
        "UPDATE bank_allocations SET amount = 1",
        "INSERT INTO bank_allocations (allocation_id, entry_id, kind, tenant_id, amount, confirmed_by, confirmed_at)"
        " SELECT 'x', entry_id, 'held', NULL, 0.01, 'mallory', now() FROM bank_entries WHERE status = 'done' LIMIT 1",
    ],
)
async def test_the_store_guards_what_was_decided(scene: Scene, statement: str) -> None:
    number = await scene.invoice(await scene.tenant(), "10.00")
    (entry,) = await scene.receive(scene.told("10.00", number))
    await scene.confirm(entry, number)
    with pytest.raises(psycopg.Error):
        async with scene.pool.connection() as connection, connection.transaction():
            await connection.execute(statement.encode())


def test_the_shipped_profiles_are_well_formed() -> None:
    files = sorted((Path(__file__).parents[3] / "payments" / "bank" / "profiles").glob("*.yaml"))
    assert len(files) >= 2
    for file in files:
        assert read_profile(read_yaml(file.read_bytes(), file.name)[0], file.name).name == file.stem
