"""Stories of what becomes of invoices after they were issued, each with its sums, each ending with "nothing new"."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from core.errors import InvalidInputError
from invoicing.domain.invoice import DocumentKind, Invoice, Origin
from invoicing.issue_one_time import OneTimeItem
from invoicing.open_invoice import InvoiceStateError, KeyUsedError, PaymentUnderWayError
from rating.domain.credit import CreditKind
from rating.domain.timeline import ChangeKind
from tests.invoicing.life.stage import Stage
from tests.invoicing.scene import amounts, at, subscribed_to
from tests.invoicing.story import COUPON, CPU, LARGE, SMALL, base, plan, settled, the_one
from tests.invoicing.tax.taxing import BERLIN, tables
from tests.invoicing.tax.test_tax_stories import RATES


@pytest.fixture
def stage() -> Stage:
    return Stage()


def used_in_october(stage: Stage, requests: int) -> None:
    """Let this be all that is known of October's requests: what was counted before was voided."""
    stage.usage.hours["acme"] = []
    stage.usage.events["acme"] = []
    stage.used("api_requests", requests)


async def october(stage: Stage, requests: int = 350) -> Invoice:
    """Bill acme 30.00 and 0.10 for each request beyond 100."""
    stage.subscribe(SMALL)
    used_in_october(stage, requests)
    return await the_one(stage, "2026-11-02", "2026-10")


async def nothing_new(stage: Stage, *periods: str) -> None:
    """Hold that billing again gives nothing, and that the books agree with themselves."""
    before = list(stage.books.state.invoices)
    await settled(stage, *(periods or ("2026-10",)))
    assert stage.books.state.invoices == before
    stage.check_books()
    await stage.check_ledger()


async def test_usage_voided_after_the_invoice_becomes_a_credit_note(stage: Stage) -> None:
    invoice = await october(stage)
    assert str(invoice.total) == "55.00"  # 30.00 + 250 × 0.10
    used_in_october(stage, 200)
    note = await the_one(stage, "2026-11-05", "2026-10")
    assert (note.kind, note.number, str(note.total)) == (DocumentKind.CREDIT_NOTE, "MB-CN-2026-000001", "-15.00")
    assert amounts(note) == {"Requests — beyond 100": "-15.00"}  # (100 - 250) × 0.10
    assert note.draft.lines[0].corrects_invoice == invoice.draft.invoice_id
    assert (note.snapshot["kind"], note.snapshot["corrects"][0]["number"]) == ("credit_note", "MB-2026-000001")
    assert (stage.standing(invoice).amount_due, stage.standing(invoice).status) == (Decimal("40.00"), "finalized")
    assert stage.left_of_credits == 0, "what is open is lowered before anything is granted"
    assert stage.total_of_documents() == await stage.owed("2026-10-15") == Decimal("40.00")
    await nothing_new(stage)


async def test_a_credit_note_on_a_paid_invoice_is_drawn_by_the_next_one(stage: Stage) -> None:
    invoice = await october(stage)
    stage.pay(invoice)
    used_in_october(stage, 200)
    note = await the_one(stage, "2026-11-05", "2026-10")
    (credit,) = stage.books.state.ledger.held.values()
    assert (credit.grant.kind, credit.grant.reason, str(credit.balance)) == (CreditKind.PAID, "credit_note", "15.00")
    assert (stage.standing(invoice).status, stage.standing(invoice).amount_credited) == ("paid", 0)
    november = await the_one(stage, "2026-12-02", "2026-11")
    # 30.00 - 15.00 of credit
    assert (str(november.total), str(november.credits_applied), str(november.amount_due)) == ("30.00", "15.00", "15.00")
    assert str(note.amount_due) == "0"
    await nothing_new(stage, "2026-10", "2026-11")


async def test_a_part_is_paid_and_more_than_is_open_given_back(stage: Stage) -> None:
    invoice = await october(stage)
    stage.pay(invoice, "50.00")
    note = await stage.credit(invoice, "20.00")
    # 5.00 was open; 15.00 of what was paid is a credit.
    assert (str(note.total), str(stage.left_of_credits)) == ("-20.00", "15.00")
    standing = stage.standing(invoice)
    assert (standing.status, str(standing.amount_credited), str(standing.credit_granted)) == ("paid", "5.00", "15.00")
    await nothing_new(stage)


async def test_what_a_person_gave_back_is_not_billed_again(stage: Stage) -> None:
    invoice = await october(stage)
    await stage.credit(invoice, "10.00")
    await nothing_new(stage)
    used_in_october(stage, 400)
    late = await the_one(stage, "2026-11-05", "2026-10")
    assert amounts(late) == {"Requests — beyond 100": "5.00"}  # 50 × 0.10; the 10.00 stay given back
    assert stage.total_of_documents() == Decimal("50.00")  # 55 - 10 + 5
    await nothing_new(stage)


async def test_no_item_is_ever_credited_below_zero(stage: Stage) -> None:
    invoice = await october(stage)
    position = next(at for at, line in enumerate(invoice.draft.lines, 1) if line.amount == Decimal("25.00"))
    await stage.credit(invoice, **{f"line_{position}": "20.00"})
    used_in_october(stage, 110)
    note = await the_one(stage, "2026-11-05", "2026-10")
    # 1.00 is owed of 25.00, of which 20.00 was given back: the 5.00 that are left go back, not 24.00.
    assert amounts(note) == {"Requests — beyond 100": "-5.00"}
    assert stage.total_of_documents() == Decimal("30.00")
    await nothing_new(stage)
    used_in_october(stage, 320)
    late = await the_one(stage, "2026-11-06", "2026-10")
    assert amounts(late) == {"Requests — beyond 100": "2.00"}  # 22.00 are owed, 20.00 of it was given back
    await nothing_new(stage)


async def test_half_credited_twice_and_not_a_third_time(stage: Stage) -> None:
    invoice = await october(stage, 100)
    assert str(invoice.total) == "30.00"
    first = await stage.credit(invoice, "15.00", key="one")
    assert await stage.credit(invoice, "15.00", key="one") == first, "the same key gives back once"
    with pytest.raises(KeyUsedError):
        await stage.credit(invoice, "14.00", key="one")
    second = await stage.credit(invoice, "15.00", key="two")
    assert (first.number, second.number) == ("MB-CN-2026-000001", "MB-CN-2026-000002")
    with pytest.raises(InvalidInputError, match="nothing_left"):
        await stage.credit(invoice, "0.01", key="three")
    assert (stage.standing(invoice).status, stage.total_of_documents()) == ("paid", 0)
    await nothing_new(stage)


async def test_more_than_is_left_is_refused_and_uses_no_number_up(stage: Stage) -> None:
    invoice = await october(stage)
    await stage.credit(invoice, "50.00")
    with pytest.raises(InvalidInputError, match="exceeds_invoice"):
        await stage.credit(invoice, "5.01")
    for amount in ("0", "-1", "1.001", "NaN"):
        with pytest.raises(InvalidInputError, match="invalid_amount"):
            await stage.credit(invoice, amount)
    assert stage.books.state.series == {"MB-2026": 1, "MB-CN-2026": 1}
    await nothing_new(stage)


async def test_an_amount_is_given_back_of_every_line_and_its_coupon(stage: Stage) -> None:
    stage.subscribe(SMALL)
    stage.redeem(COUPON, "2026-10-01")
    used_in_october(stage, 350)
    invoice = await the_one(stage, "2026-11-02", "2026-10")
    assert str(invoice.total) == "44.00"  # 55.00 less 20 %
    note = await stage.credit(invoice, "22.00")
    lines = await self_lines(stage, note.invoice_id)
    # Half of 30.00, of 25.00, and of the 6.00 and 5.00 that the coupon took off.
    assert sorted(lines.values()) == ["-12.50", "-15.00", "2.50", "3.00"]
    await nothing_new(stage)


async def self_lines(stage: Stage, invoice_id: str) -> dict[str, str]:
    async with stage.books.view_account("acme") as account:
        assert account is not None
        return {line.item_key: str(line.amount) for line in await account.issued.lines(invoice_id)}


async def test_a_line_is_given_back_with_what_the_coupon_took_off_it(stage: Stage) -> None:
    stage.subscribe(SMALL)
    stage.redeem(COUPON, "2026-10-01")
    used_in_october(stage, 350)
    invoice = await the_one(stage, "2026-11-02", "2026-10")
    position = next(at for at, line in enumerate(invoice.draft.lines, 1) if line.description == "Base")
    note = await stage.credit(invoice, **{f"line_{position}": None})
    assert str(note.total) == "-24.00"  # 30.00 less 20 %
    assert stage.total_of_documents() == Decimal("20.00")  # 25.00 less 20 %
    await nothing_new(stage)


async def test_void_and_rebill(stage: Stage) -> None:
    invoice = await october(stage)
    await stage.grant("20.00", "2026-10-01")
    assert (await stage.void(invoice)).status == "void"
    assert (await stage.void(invoice)).status == "void", "void again is the same"
    assert stage.total_of_documents() == 0
    again = await the_one(stage, "2026-11-03", "2026-10")
    assert (again.number, str(again.total), str(again.amount_due)) == ("MB-2026-000002", "55.00", "35.00")
    assert all(line.corrects_invoice is None for line in again.draft.lines), "as if it were the first"
    assert stage.books.state.issued.voided == [invoice.draft.invoice_id]
    await nothing_new(stage)


async def test_credits_returned_on_void_are_those_drawn(stage: Stage) -> None:
    stage.subscribe(SMALL)
    await stage.grant("12.00", "2026-10-01", kind=CreditKind.PROMOTIONAL)
    await stage.grant("10.00", "2026-10-01")
    invoice = await the_one(stage, "2026-11-02", "2026-10")
    assert str(invoice.amount_due) == "8.00"  # 30 - 22
    await stage.void(invoice)
    assert [str(credit.balance) for credit in stage.books.state.ledger.held.values()] == ["12.00", "10.00"]
    again = await the_one(stage, "2026-11-03", "2026-10")
    assert str(again.amount_due) == "8.00"
    await nothing_new(stage)


async def test_a_credit_note_gives_promotional_credit_back_as_what_it_was(stage: Stage) -> None:
    stage.subscribe(SMALL)
    await stage.grant("12.00", "2026-10-01", kind=CreditKind.PROMOTIONAL)
    invoice = await the_one(stage, "2026-11-02", "2026-10")
    stage.pay(invoice)  # 18.00
    await stage.credit(invoice, "20.00", key="a")
    await stage.credit(invoice, "10.00", key="b")
    held = {credit.grant.kind: str(credit.balance) for credit in stage.books.state.ledger.held.values()}
    # The money first (18.00), as paid credits; then 12.00 of what had been drawn, to where it was drawn from.
    assert held[CreditKind.PROMOTIONAL] == "12.00"
    assert stage.left_of_credits == Decimal("30.00")
    assert stage.standing(invoice).creditable == 0
    await nothing_new(stage)


async def test_a_paid_or_corrected_invoice_is_not_voided(stage: Stage) -> None:
    invoice = await october(stage)
    stage.fly(invoice)
    with pytest.raises(PaymentUnderWayError):
        await stage.void(invoice)
    with pytest.raises(PaymentUnderWayError):
        await stage.write_off(invoice)
    stage.pay(invoice, "10.00")
    with pytest.raises(InvoiceStateError, match="is paid"):
        await stage.void(invoice)
    november = await the_one(stage, "2026-12-02", "2026-11")
    note = await stage.credit(november, "5.00")
    with pytest.raises(InvoiceStateError, match="corrected by MB-CN-2026-000001"):
        await stage.void(november)
    with pytest.raises(InvoiceStateError, match="credit note"):
        await stage.void(note)
    await nothing_new(stage, "2026-10", "2026-11")


async def test_what_a_payment_under_way_asks_for_is_not_lowered(stage: Stage) -> None:
    invoice = await october(stage)
    stage.fly(invoice)
    used_in_october(stage, 200)
    await the_one(stage, "2026-11-05", "2026-10")
    assert stage.standing(invoice).amount_due == Decimal("55.00")
    assert stage.left_of_credits == Decimal("15.00"), "the payment will come whole, so the difference is a credit"
    stage.pay(invoice)
    await nothing_new(stage)


async def test_a_payment_that_never_came_leaves_open_what_was_given_back_for_it(stage: Stage) -> None:
    invoice = await october(stage)
    stage.fly(invoice)
    await stage.credit(invoice, "20.00")
    assert stage.left_of_credits == Decimal("20.00")
    stage.land(invoice)
    await stage.credit(invoice, "35.00")
    # 55.00 are given back: 20.00 as a credit that nobody paid for, so 20.00 stay open.
    assert (stage.standing(invoice).amount_open, stage.left_of_credits) == (Decimal("20.00"), Decimal("20.00"))
    with pytest.raises(InvalidInputError, match="nothing_left"):
        await stage.credit(invoice, "0.01")
    await nothing_new(stage)


async def test_an_invoice_is_written_off_and_stays_billed(stage: Stage) -> None:
    invoice = await october(stage)
    stage.pay(invoice, "5.00")
    assert (await stage.write_off(invoice)).status == "uncollectible"
    assert (await stage.write_off(invoice)).status == "uncollectible"
    await nothing_new(stage)
    with pytest.raises(InvoiceStateError, match="is paid"):
        await stage.void(invoice)
    used_in_october(stage, 400)
    late = await the_one(stage, "2026-11-05", "2026-10")
    assert str(late.total) == "5.00"  # 50 × 0.10: the 55.00 stay billed
    await nothing_new(stage)


async def test_an_unpaid_invoice_is_reissued_by_voiding_it(stage: Stage) -> None:
    invoice = await october(stage)
    taken, anew = await stage.reissue(invoice)
    assert (taken.number, taken.status) == ("MB-2026-000001", "void")
    assert (anew.number, anew.replaces, str(anew.total)) == ("MB-2026-000002", invoice.draft.invoice_id, "55.00")
    assert await stage.reissue(invoice) == [taken, anew], "asked again: the same documents"
    await nothing_new(stage)


async def test_a_paid_invoice_is_reissued_by_a_credit_note_that_pays_for_the_new_one(stage: Stage) -> None:
    invoice = await october(stage)
    stage.pay(invoice)
    used_in_october(stage, 200)
    note, anew = await stage.reissue(invoice)
    assert (note.origin, note.number, str(note.total)) == (Origin.REISSUE, "MB-CN-2026-000001", "-55.00")
    assert (str(anew.total), str(anew.credits_applied), anew.status) == ("40.00", "40.00", "paid")
    assert stage.left_of_credits == Decimal("15.00")  # 55 - 40
    assert stage.total_of_documents() == await stage.owed("2026-10-15") == Decimal("40.00")
    assert await stage.reissue(invoice) == [note, anew]
    await nothing_new(stage)
    second, third = await stage.reissue(anew)
    # Credit alone had paid for it, so it is voided, and the credit comes back for the third.
    assert (second.status, str(third.total), str(third.credits_applied)) == ("void", "40.00", "40.00")
    assert stage.left_of_credits == Decimal("15.00")
    await nothing_new(stage)


async def test_what_a_person_gave_back_stays_given_back_when_reissued(stage: Stage) -> None:
    invoice = await october(stage)
    stage.pay(invoice)
    await stage.credit(invoice, "10.00")
    note, anew = await stage.reissue(invoice)
    assert str(note.total) == "-45.00", "what is left: 55 - 10"
    assert str(anew.total) == "45.00"
    await nothing_new(stage)


async def test_usage_that_comes_in_the_grace_is_on_the_invoice(stage: Stage) -> None:
    stage.terms = stage.terms.__class__(stage.terms.seller, 15, grace_hours=48)
    stage.subscribe(SMALL)
    used_in_october(stage, 350)
    assert await stage.bill_at("2026-11-01", "2026-10") == []
    (draft,) = stage.books.state.issued.standings.values()
    assert (draft.status, draft.number, str(draft.total)) == ("draft", None, "55.00")
    assert draft.finalize_at == at("2026-11-03")
    used_in_october(stage, 400)
    assert await stage.bill_at("2026-11-02", "2026-10") == [], "asked again, the draft is made anew, its grace is not"
    (draft,) = stage.books.state.issued.standings.values()
    assert (str(draft.total), draft.finalize_at) == ("60.00", at("2026-11-03"))
    assert (await stage.finalize()).issued == (), "the grace is not over"
    used_in_october(stage, 410)
    stage.clock.travel_to("2026-11-03")
    (invoice,) = (await stage.finalize()).issued
    assert (invoice.number, str(invoice.total)) == ("MB-2026-000001", "61.00")  # 30 + 310 × 0.10
    assert (await stage.finalize()).issued == ()
    await nothing_new(stage)


async def test_a_draft_of_which_nothing_is_owed_any_more_goes(stage: Stage) -> None:
    stage.terms = stage.terms.__class__(stage.terms.seller, 15, grace_hours=1)
    stage.subscribe(plan("free", CPU))
    stage.used("cpu", 10)
    assert await stage.bill_at("2026-11-01", "2026-10") == []
    stage.usage.hours["acme"] = []
    done = await stage.finalize(is_early=True)
    assert (done.issued, len(done.dropped)) == ((), 1)
    assert stage.books.state.issued.standings == {}
    assert stage.books.state.series == {}, "a draft uses no number up"
    await nothing_new(stage)


async def test_what_is_billed_in_advance_waits_for_its_grace_too(stage: Stage) -> None:
    stage.terms = stage.terms.__class__(stage.terms.seller, 15, grace_hours=24)
    stage.subscribe(plan("ahead", base("30", bill="in_advance")), started="2026-10-15", anchored=True)
    assert await stage.bill_at("2026-11-01", "2026-10") == []
    stage.clock.travel_to("2026-11-02")
    (invoice,) = (await stage.finalize()).issued
    assert str(invoice.draft.period) == "2026-10-15T00:00:00Z/2026-11-15T00:00:00Z"
    assert amounts(invoice) == {"Base": "30.00"}
    await nothing_new(stage, "2026-10")


async def test_a_one_time_fee(stage: Stage) -> None:
    stage.subscribe(SMALL)
    setup = OneTimeItem("Setup", Decimal("99.99"))
    hours = OneTimeItem("Consulting", Decimal("120.005"), Decimal("2.5"), "hour")
    invoice = await stage.one_time(setup, hours)
    # 99.99 + 2.5 × 120.005 = 300.0125, half up
    assert (invoice.number, str(invoice.total), invoice.origin) == ("MB-2026-000001", "400.00", Origin.ONE_TIME)
    assert await stage.one_time(setup, hours) == invoice, "the same key issues once"
    with pytest.raises(KeyUsedError):
        await stage.one_time(setup)
    month = await the_one(stage, "2026-11-02", "2026-10")
    assert str(month.total) == "30.00", "the fee is no item of the month"
    note = await stage.credit(invoice, line_2="100.01")
    assert (str(note.total), stage.standing(invoice).amount_due) == ("-100.01", Decimal("299.99"))
    with pytest.raises(InvoiceStateError, match="one-time"):
        await stage.reissue(invoice)
    await nothing_new(stage)


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (OneTimeItem("", Decimal(1)), "invalid_text"),
        (OneTimeItem("a\nb", Decimal(1)), "invalid_text"),
        (OneTimeItem("Setup", Decimal("-1")), "invalid_amount"),
        (OneTimeItem("Setup", Decimal("NaN")), "invalid_amount"),
        (OneTimeItem("Setup", Decimal(1), Decimal(0)), "invalid_quantity"),
        (OneTimeItem("Setup", Decimal(1), Decimal("1E+30")), "invalid_quantity"),
    ],
)
async def test_one_time_items_that_make_no_sense_are_refused(stage: Stage, item: OneTimeItem, code: str) -> None:
    stage.subscribe(SMALL)
    with pytest.raises(InvalidInputError) as refused:
        await stage.one_time(item)
    assert [fault.code for fault in refused.value.faults] == [code]
    assert stage.books.state.series == {}


async def test_a_downgrade_put_down_late_gives_the_difference_back(stage: Stage) -> None:
    stage.subscribe(LARGE, SMALL)
    invoice = await the_one(stage, "2026-11-02", "2026-10")
    stage.pay(invoice)
    stage.switch(SMALL, "2026-10-17T00:00", put_down="2026-11-10T00:00")
    documents = await stage.bill_at("2026-12-02", "2026-11")
    # Back: 90 - 90 × 16/31 = 43.55. New: 30 × 15/31 = 14.52 of October, 30.00 of November: more than comes back.
    assert [str(one.total) for one in documents] == ["0.97"]  # 44.52 - 43.55
    assert stage.total_of_documents() == Decimal("90.97")
    await nothing_new(stage, "2026-10", "2026-11")


async def test_what_one_invoice_billed_and_another_took_back_is_borne_by_both(stage: Stage) -> None:
    stage.subscribe(SMALL, LARGE)
    first = await the_one(stage, "2026-11-02", "2026-10")
    stage.switch(LARGE, "2026-10-01T00:00", put_down="2026-11-03T00:00")
    second = await the_one(stage, "2026-11-04", "2026-10")
    assert (str(first.total), str(second.total)) == ("30.00", "60.00")  # 90 - 30
    stage.change(ChangeKind.CANCELED, "2026-10-01T00:00", put_down="2026-11-05T00:00")
    note = await the_one(stage, "2026-11-06", "2026-10")
    # The line of 90.00 stands on an invoice that asked for 60.00 only: the rest comes off the first.
    assert str(note.total) == "-90.00"
    assert [str(stage.standing(one).amount_due) for one in (first, second)] == ["0.00", "0.00"]
    assert stage.left_of_credits == 0
    await nothing_new(stage)


async def test_a_coupon_redeemed_after_the_invoice(stage: Stage) -> None:
    invoice = await october(stage)
    stage.redeem(COUPON, "2026-10-20")
    note = await the_one(stage, "2026-11-05", "2026-10")
    assert str(note.total) == "-11.00"  # 20 % of 55.00
    assert {line.corrects_invoice for line in note.draft.lines} == {invoice.draft.invoice_id}
    assert stage.standing(invoice).amount_due == Decimal("44.00")
    await nothing_new(stage)
    stage.pay(invoice)
    note, anew = await stage.reissue(invoice)
    assert (str(note.total), str(anew.total)) == ("-44.00", "44.00"), "what the coupon took off goes with the invoice"
    await nothing_new(stage)


async def test_a_coupon_takes_nothing_off_what_was_given_back(stage: Stage) -> None:
    invoice = await october(stage)
    position = next(at for at, line in enumerate(invoice.draft.lines, 1) if line.description == "Base")
    await stage.credit(invoice, **{f"line_{position}": None})
    stage.redeem(COUPON, "2026-10-20")
    note = await the_one(stage, "2026-11-05", "2026-10")
    # 20 % of 25.00; of the 30.00 nothing is left that a coupon could lower.
    assert str(note.total) == "-5.00"
    assert stage.total_of_documents() == Decimal("20.00")
    await nothing_new(stage)


async def test_late_usage_after_a_credit_note_after_late_usage(stage: Stage) -> None:
    first = await october(stage)
    used_in_october(stage, 400)
    second = await the_one(stage, "2026-11-03", "2026-10")
    used_in_october(stage, 340)
    note = await the_one(stage, "2026-11-04", "2026-10")
    # 6.00 come back: the 5.00 of the second invoice first, then 1.00 of the first.
    taken = {line.corrects_invoice: str(line.amount) for line in note.draft.lines}
    assert taken == {second.draft.invoice_id: "-5.00", first.draft.invoice_id: "-1.00"}
    assert [str(stage.standing(one).amount_due) for one in (first, second)] == ["54.00", "0.00"]
    used_in_october(stage, 500)
    assert str((await the_one(stage, "2026-11-05", "2026-10")).total) == "16.00"  # 160 × 0.10
    assert stage.total_of_documents() == Decimal("70.00")  # 30 + 400 × 0.10
    await nothing_new(stage)


async def test_taxed_items_are_given_back_with_the_tax_that_was_charged(stage: Stage) -> None:
    stage.terms = replace(stage.terms, seller=replace(stage.terms.seller, tax=BERLIN), tables=tables(), exchange=RATES)
    stage.subscribe(SMALL)
    used_in_october(stage, 351)
    invoice = await the_one(stage, "2026-11-03", "2026-10")
    # 30.00 + 251 × 0.10 = 55.10; × 19 % = 10.469
    assert (str(invoice.draft.subtotal), str(invoice.tax), str(invoice.total)) == ("55.10", "10.47", "65.57")
    notes = [await stage.credit(invoice, amount) for amount in ("21.85", "21.85", None)]
    # A third of each line with a third of its tax; the last takes what is left, 21.87.
    assert [str(note.total) for note in notes] == ["-21.85", "-21.85", "-21.87"]
    assert sum(note.tax for note in notes) == Decimal("-10.47")
    await nothing_new(stage)
    used_in_october(stage, 300)
    await nothing_new(stage)


async def test_a_taxed_correction_and_a_reissue_leave_the_tax_of_what_is_left(stage: Stage) -> None:
    stage.terms = replace(stage.terms, seller=replace(stage.terms.seller, tax=BERLIN), tables=tables(), exchange=RATES)
    stage.subscribe(SMALL)
    used_in_october(stage, 351)
    invoice = await the_one(stage, "2026-11-03", "2026-10")
    stage.pay(invoice)
    used_in_october(stage, 350)
    note = await the_one(stage, "2026-11-04", "2026-10")
    # 55.00 × 19 % = 10.45, so 0.02 of tax come back with 0.10.
    assert (str(note.draft.subtotal), str(note.tax)) == ("-0.10", "-0.02")
    taken, anew = await stage.reissue(invoice)
    assert (str(taken.total), str(anew.total), str(anew.tax)) == ("-65.45", "65.45", "10.45")
    assert str(anew.credits_applied) == "65.45", "credit pays for tax, too"
    await nothing_new(stage)


async def test_two_subscriptions_on_one_invoice(stage: Stage) -> None:
    stage.subscribe(SMALL)
    beside = subscribed_to(plan("extra", base("7"), CPU), tenant_id="acme")
    beside = replace(beside, start=replace(beside.start, subscription_id="sub_beside"))
    stage.books.state.subscribed["acme"].append(beside)
    stage.books.state.buyers["acme"] = replace(stage.books.state.buyers["acme"], consolidated_invoices=True)
    used_in_october(stage, 150)
    stage.used("cpu", 100)
    invoice = await the_one(stage, "2026-11-02", "2026-10")
    # 30.00 + 50 × 0.10 + 7.00 + 100 × 0.05
    assert str(invoice.total) == "47.00"
    assert {line.subscription_id for line in invoice.draft.lines} == {None, "sub_beside"}
    await nothing_new(stage)
    used_in_october(stage, 150)
    note = await the_one(stage, "2026-11-04", "2026-10")
    # The CPU was voided: 5.00 of the subscription beside come back.
    assert (str(note.total), stage.standing(invoice).amount_due) == ("-5.00", Decimal("42.00"))
    await nothing_new(stage)
    stage.pay(invoice)
    taken, anew = await stage.reissue(invoice)
    assert (str(taken.total), str(anew.total)) == ("-42.00", "42.00")
    await nothing_new(stage)
    stage.books.state.buyers["acme"] = replace(stage.books.state.buyers["acme"], consolidated_invoices=False)
    stage.used("cpu", 20)
    late = await the_one(stage, "2026-11-05", "2026-10")
    assert (late.draft.subscription_id, str(late.total)) == ("sub_beside", "1.00")
    await nothing_new(stage)


async def test_a_consolidated_draft_is_made_anew_whole(stage: Stage) -> None:
    stage.terms = replace(stage.terms, grace_hours=24)
    stage.subscribe(SMALL)
    beside = subscribed_to(plan("extra", base("7")), tenant_id="acme")
    beside = replace(beside, start=replace(beside.start, subscription_id="sub_beside"))
    stage.books.state.subscribed["acme"].append(beside)
    stage.books.state.buyers["acme"] = replace(stage.books.state.buyers["acme"], consolidated_invoices=True)
    assert await stage.bill_at("2026-11-01", "2026-10") == []
    assert await stage.bill_at("2026-11-01", "2026-10") == []
    (draft,) = stage.books.state.issued.standings.values()
    assert (draft.status, str(draft.total)) == ("draft", "37.00")
    stage.clock.travel_to("2026-11-02")
    (invoice,) = (await stage.finalize()).issued
    assert str(invoice.total) == "37.00"
    await nothing_new(stage)


async def test_a_parked_account_issues_nothing_by_hand(stage: Stage) -> None:
    invoice = await october(stage)
    async with stage.books.open_account("acme") as account:
        assert account is not None
        await account.park("a person must look", at("2026-11-03"))
    with pytest.raises(InvoiceStateError, match="a person must look"):
        await stage.reissue(invoice)
    with pytest.raises(InvoiceStateError, match="a person must look"):
        await stage.one_time(OneTimeItem("Setup", Decimal(1)))
    assert len(stage.books.state.invoices) == 1
