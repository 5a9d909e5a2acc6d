"""Stories of what becomes of invoices after they were issued, each with its sums, each ending with "nothing new"."""

from __future__ import annotations

from decimal import Decimal

import pytest

from core.errors import InvalidInputError
from invoicing.domain.invoice import DocumentKind, Origin
from invoicing.open_invoice import InvoiceStateError, KeyUsedError, PaymentUnderWayError
from rating.domain.credit import CreditKind
from rating.domain.timeline import ChangeKind
from tests.invoicing.life.stage import Stage, lines_of, nothing_new, october, used_in_october
from tests.invoicing.scene import amounts
from tests.invoicing.story import COUPON, LARGE, SMALL, the_one


@pytest.mark.story
async def test_usage_voided_after_the_invoice_becomes_a_credit_note(stage: Stage) -> None:
    """150 requests are voided before the payment; owed 55.00 - 15.00 = 40.00."""
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


@pytest.mark.story
async def test_a_credit_note_on_a_paid_invoice_is_drawn_by_the_next_one(stage: Stage) -> None:
    """15.00 of a paid invoice come back as credit; owed 30.00 - 15.00 for November."""
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


@pytest.mark.story
async def test_a_part_is_paid_and_more_than_is_open_given_back(stage: Stage) -> None:
    """50.00 of 55.00 are paid, 20.00 credited; owed nothing, 15.00 are credit."""
    invoice = await october(stage)
    stage.pay(invoice, "50.00")
    note = await stage.credit(invoice, "20.00")
    # 5.00 was open; 15.00 of what was paid is a credit.
    assert (str(note.total), str(stage.left_of_credits)) == ("-20.00", "15.00")
    standing = stage.standing(invoice)
    assert (standing.status, str(standing.amount_credited), str(standing.credit_granted)) == ("paid", "5.00", "15.00")
    await nothing_new(stage)


@pytest.mark.story
async def test_what_a_person_gave_back_is_not_billed_again(stage: Stage) -> None:
    """10.00 are given back by hand, then usage comes late; owed 55 - 10 + 5 = 50.00."""
    invoice = await october(stage)
    await stage.credit(invoice, "10.00")
    await nothing_new(stage)
    used_in_october(stage, 400)
    late = await the_one(stage, "2026-11-05", "2026-10")
    assert amounts(late) == {"Requests — beyond 100": "5.00"}  # 50 × 0.10; the 10.00 stay given back
    assert stage.total_of_documents() == Decimal("50.00")  # 55 - 10 + 5
    await nothing_new(stage)


@pytest.mark.story
async def test_no_item_is_ever_credited_below_zero(stage: Stage) -> None:
    """20.00 given back by hand, then usage falls and rises; owed 30.00, then 32.00."""
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


@pytest.mark.story
async def test_half_credited_twice_and_not_a_third_time(stage: Stage) -> None:
    """Half is credited, then the other half; owed nothing of 30.00."""
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


@pytest.mark.story
async def test_more_than_is_left_is_refused_and_uses_no_number_up(stage: Stage) -> None:
    """50.00 of 55.00 are credited, and no more than is left; owed 5.00."""
    invoice = await october(stage)
    await stage.credit(invoice, "50.00")
    with pytest.raises(InvalidInputError, match="exceeds_invoice"):
        await stage.credit(invoice, "5.01")
    for amount in ("0", "-1", "1.001", "NaN"):
        with pytest.raises(InvalidInputError, match="invalid_amount"):
            await stage.credit(invoice, amount)
    assert stage.books.state.series == {"MB-2026": 1, "MB-CN-2026": 1}
    await nothing_new(stage)


@pytest.mark.story
async def test_an_amount_is_given_back_of_every_line_and_its_coupon(stage: Stage) -> None:
    """Half of an invoice with a coupon is given back; owed 44.00 - 22.00 = 22.00."""
    stage.subscribe(SMALL)
    stage.redeem(COUPON, "2026-10-01")
    used_in_october(stage, 350)
    invoice = await the_one(stage, "2026-11-02", "2026-10")
    assert str(invoice.total) == "44.00"  # 55.00 less 20 %
    note = await stage.credit(invoice, "22.00")
    lines = await lines_of(stage, note.invoice_id)
    # Half of 30.00, of 25.00, and of the 6.00 and 5.00 that the coupon took off.
    assert sorted(lines.values()) == ["-12.50", "-15.00", "2.50", "3.00"]
    await nothing_new(stage)


@pytest.mark.story
async def test_a_line_is_given_back_with_what_the_coupon_took_off_it(stage: Stage) -> None:
    """A line with its share of a coupon is given back; owed 44.00 - 24.00 = 20.00."""
    stage.subscribe(SMALL)
    stage.redeem(COUPON, "2026-10-01")
    used_in_october(stage, 350)
    invoice = await the_one(stage, "2026-11-02", "2026-10")
    position = next(at for at, line in enumerate(invoice.draft.lines, 1) if line.description == "Base")
    note = await stage.credit(invoice, **{f"line_{position}": None})
    assert str(note.total) == "-24.00"  # 30.00 less 20 %
    assert stage.total_of_documents() == Decimal("20.00")  # 25.00 less 20 %
    await nothing_new(stage)


@pytest.mark.story
async def test_void_and_rebill(stage: Stage) -> None:
    """An invoice is voided, a credit granted, billed anew; owed 55.00 - 20.00 = 35.00."""
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


@pytest.mark.story
async def test_credits_returned_on_void_are_those_drawn(stage: Stage) -> None:
    """A void gives two credits back, and the next invoice draws them again; owed 30.00 - 22.00 = 8.00."""
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


@pytest.mark.story
async def test_a_credit_note_gives_promotional_credit_back_as_what_it_was(stage: Stage) -> None:
    """An invoice paid by promotion and money is credited; owed nothing, 30.00 are credit again."""
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


@pytest.mark.story
async def test_a_paid_or_corrected_invoice_is_not_voided(stage: Stage) -> None:
    """What is being paid, paid or corrected is not voided; owed what was billed: 45.00 and 25.00 open."""
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


@pytest.mark.story
async def test_what_a_payment_under_way_asks_for_is_not_lowered(stage: Stage) -> None:
    """Usage is voided while the payment is under way; owed 55.00, 15.00 are credit."""
    invoice = await october(stage)
    stage.fly(invoice)
    used_in_october(stage, 200)
    await the_one(stage, "2026-11-05", "2026-10")
    assert stage.standing(invoice).amount_due == Decimal("55.00")
    assert stage.left_of_credits == Decimal("15.00"), "the payment will come whole, so the difference is a credit"
    stage.pay(invoice)
    await nothing_new(stage)


@pytest.mark.story
async def test_a_payment_that_never_came_leaves_open_what_was_given_back_for_it(stage: Stage) -> None:
    """Credited while a payment was under way that failed; owed 20.00, 20.00 are credit."""
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


@pytest.mark.story
async def test_an_invoice_is_written_off_and_stays_billed(stage: Stage) -> None:
    """5.00 of 55.00 are paid, the rest given up, usage comes late; owed 5.00 more."""
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


@pytest.mark.story
async def test_an_unpaid_invoice_is_reissued_by_voiding_it(stage: Stage) -> None:
    """An unpaid invoice is issued anew; owed 55.00 on the second one."""
    invoice = await october(stage)
    taken, anew = await stage.reissue(invoice)
    assert (taken.number, taken.status) == ("MB-2026-000001", "void")
    assert (anew.number, anew.replaces, str(anew.total)) == ("MB-2026-000002", invoice.draft.invoice_id, "55.00")
    assert await stage.reissue(invoice) == [taken, anew], "asked again: the same documents"
    await nothing_new(stage)


@pytest.mark.story
async def test_a_paid_invoice_is_reissued_by_a_credit_note_that_pays_for_the_new_one(stage: Stage) -> None:
    """A paid invoice is issued anew, twice, with less usage; owed 40.00, all paid by credit."""
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


@pytest.mark.story
async def test_what_a_person_gave_back_stays_given_back_when_reissued(stage: Stage) -> None:
    """10.00 given back by hand, then issued anew; owed 55.00 - 10.00 = 45.00."""
    invoice = await october(stage)
    stage.pay(invoice)
    await stage.credit(invoice, "10.00")
    note, anew = await stage.reissue(invoice)
    assert str(note.total) == "-45.00", "what is left: 55 - 10"
    assert str(anew.total) == "45.00"
    await nothing_new(stage)


@pytest.mark.story
async def test_a_downgrade_put_down_late_gives_the_difference_back(stage: Stage) -> None:
    """A downgrade of October, put down in November; owed 90.00, then 0.97."""
    stage.subscribe(LARGE, SMALL)
    invoice = await the_one(stage, "2026-11-02", "2026-10")
    stage.pay(invoice)
    stage.switch(SMALL, "2026-10-17T00:00", put_down="2026-11-10T00:00")
    documents = await stage.bill_at("2026-12-02", "2026-11")
    # Back: 90 - 90 × 16/31 = 43.55. New: 30 × 15/31 = 14.52 of October, 30.00 of November: more than comes back.
    assert [str(one.total) for one in documents] == ["0.97"]  # 44.52 - 43.55
    assert stage.total_of_documents() == Decimal("90.97")
    await nothing_new(stage, "2026-10", "2026-11")


@pytest.mark.story
async def test_what_one_invoice_billed_and_another_took_back_is_borne_by_both(stage: Stage) -> None:
    """Upgraded, then cancelled as of the first day; owed 30 + 60 - 90 = 0.00."""
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


@pytest.mark.story
async def test_a_coupon_redeemed_after_the_invoice(stage: Stage) -> None:
    """20 % off, put down late, then issued anew; owed 55.00 - 11.00 = 44.00."""
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


@pytest.mark.story
async def test_a_coupon_takes_nothing_off_what_was_given_back(stage: Stage) -> None:
    """A line is given back, then a coupon comes; owed 55.00 - 30.00 - 5.00 = 20.00."""
    invoice = await october(stage)
    position = next(at for at, line in enumerate(invoice.draft.lines, 1) if line.description == "Base")
    await stage.credit(invoice, **{f"line_{position}": None})
    stage.redeem(COUPON, "2026-10-20")
    note = await the_one(stage, "2026-11-05", "2026-10")
    # 20 % of 25.00; of the 30.00 nothing is left that a coupon could lower.
    assert str(note.total) == "-5.00"
    assert stage.total_of_documents() == Decimal("20.00")
    await nothing_new(stage)


@pytest.mark.story
async def test_late_usage_after_a_credit_note_after_late_usage(stage: Stage) -> None:
    """Usage rises, falls and rises again; owed 55 + 5 - 6 + 16 = 70.00."""
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
