"""Stories of drafts, one-time items, shared documents and taxed credit notes, each ending with "nothing new"."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from core.errors import InvalidInputError
from invoicing.domain.invoice import Origin
from invoicing.issue_one_time import OneTimeItem
from invoicing.open_invoice import InvoiceStateError, KeyUsedError
from tests.invoicing.life.stage import Stage, nothing_new, october, used_in_october
from tests.invoicing.scene import amounts, at, subscribed_to
from tests.invoicing.story import COUPON, CPU, SMALL, base, plan, the_one
from tests.invoicing.tax.taxing import BERLIN, tables
from tests.invoicing.tax.test_tax_stories import RATES


@pytest.mark.story
async def test_usage_that_comes_in_the_grace_is_on_the_invoice(stage: Stage) -> None:
    """Two days of grace in which usage comes; owed 30 + 31 = 61.00 on one invoice."""
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


@pytest.mark.story
async def test_a_draft_of_which_nothing_is_owed_any_more_goes(stage: Stage) -> None:
    """A draft's usage is voided in its grace; owed nothing, and no number is used."""
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


@pytest.mark.story
async def test_what_is_billed_in_advance_waits_for_its_grace_too(stage: Stage) -> None:
    """A fee ahead of a period from the 15th, after a day of grace; owed 30.00."""
    stage.terms = stage.terms.__class__(stage.terms.seller, 15, grace_hours=24)
    stage.subscribe(plan("ahead", base("30", bill="in_advance")), started="2026-10-15", anchored=True)
    assert await stage.bill_at("2026-11-01", "2026-10") == []
    stage.clock.travel_to("2026-11-02")
    (invoice,) = (await stage.finalize()).issued
    assert str(invoice.draft.period) == "2026-10-15T00:00:00Z/2026-11-15T00:00:00Z"
    assert amounts(invoice) == {"Base": "30.00"}
    await nothing_new(stage, "2026-10")


@pytest.mark.story
async def test_a_one_time_fee(stage: Stage) -> None:
    """A set-up fee with consulting, of which a part is given back; owed 400.00 - 100.01 + 30.00 for October."""
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


@pytest.mark.story
async def test_taxed_items_are_given_back_with_the_tax_that_was_charged(stage: Stage) -> None:
    """An invoice with German VAT is given back in three parts; owed 65.57 - 65.57 = 0.00."""
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


@pytest.mark.story
async def test_a_taxed_correction_and_a_reissue_leave_the_tax_of_what_is_left(stage: Stage) -> None:
    """A taxed invoice is corrected and issued anew; owed 65.57 - 0.12 = 65.45."""
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


@pytest.mark.story
async def test_two_subscriptions_on_one_invoice(stage: Stage) -> None:
    """Two plans on one invoice, a part voided, issued anew; owed 47.00 - 5.00, and 1.00 late."""
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


@pytest.mark.story
async def test_a_consolidated_draft_is_made_anew_whole(stage: Stage) -> None:
    """A draft of two plans is asked for twice; owed 37.00."""
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


@pytest.mark.story
async def test_a_coupon_that_comes_later_gives_no_more_tax_back_than_was_charged(stage: Stage) -> None:
    """Credited by hand twice, then a coupon; owed 35.70 - 21.59 - 12.39 - 1.72 = 0.00."""
    seller = replace(stage.terms.seller, tax=replace(BERLIN, currency="USD"))
    stage.terms = replace(stage.terms, seller=seller, tables=tables())
    stage.subscribe(plan("flat", base("30")))
    invoice = await the_one(stage, "2026-11-03", "2026-10")
    assert str(invoice.total) == "35.70"  # 30.00 + 5.70
    await stage.credit(invoice, "21.59")
    await stage.credit(invoice, "12.39")
    stage.redeem(COUPON, "2026-10-20")
    note = await the_one(stage, "2026-11-04", "2026-10")
    # 1.45 and 0.27 of tax are left, though 19 % of 1.45 would be 0.28.
    assert (str(note.draft.subtotal), str(note.tax), str(note.total)) == ("-1.45", "-0.27", "-1.72")
    assert stage.total_of_documents() == 0
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
