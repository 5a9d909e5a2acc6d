"""Stories of invoices that are paid by card, from usage to a ledger that balances."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from core.errors import InvalidInputError
from invoicing.issue_one_time import OneTimeItem
from subscriptions.cancel_subscription import cancel_subscription
from subscriptions.change_plan import change_plan
from tests.invoicing.scene import amounts, at
from tests.invoicing.tax.taxing import BERLIN
from tests.stories.world import World

pytestmark = [pytest.mark.integration, pytest.mark.story]


async def test_an_upgrade_in_the_middle_of_a_month_is_taxed_and_charged_once(world: World) -> None:
    """Small until 10 November, Large from the 11th, with German VAT; owed 101.15, charged once."""
    world.sell_from(BERLIN)
    await world.tenant("acme")
    world.travel("2026-11-01T09:00")
    await world.subscribe("acme", "small", started_at=at("2026-11-01"))
    world.travel("2026-11-11T09:30")
    await world.change("acme", change_plan, "large")
    world.used("acme", "api_requests", 150, "2026-11-11T08:00")
    world.used("acme", "api_requests", 1_200, "2026-11-20T10:00")
    invoice = await world.bill_one("acme", "2026-11", "2026-12-02T09:00")
    # 30 × 10/30 + 50 × 0.10 + 90 × 20/30 + 200 × 0.05 = 10 + 5 + 60 + 10; + 19 % = 16.15
    assert (str(invoice.draft.subtotal), str(invoice.tax), str(invoice.total)) == ("85.00", "16.15", "101.15")
    assert world.charged == ["10115 eur"]
    assert await world.invoice(invoice.number) == ("paid", "101.15", "0.00")
    assert await world.ledger() == {"cash:stripe": "101.15", "revenue": "-85.00", "tax_payable:DE": "-16.15"}
    await world.nothing_new()


async def test_a_downgrade_put_down_late_comes_off_the_next_invoice(world: World) -> None:
    """Large is paid for October, then Small from the 17th is put down in November; owed 90.00 and 0.97 more."""
    await world.tenant("acme", "large")
    first = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert await world.invoice(first.number) == ("paid", "90.00", "0.00")
    world.travel("2026-11-10T09:00")
    await world.change("acme", change_plan, "small", when=at("2026-10-17"))
    second = await world.bill_one("acme", "2026-11", "2026-12-02T09:00")
    # Back: 90 - 90 × 16/31 = 43.55. New: 30 × 15/31 = 14.52 of October and 30.00 of November. 44.52 - 43.55 = 0.97
    assert str(second.total) == "0.97"
    assert world.charged == ["9000 eur", "97 eur"]
    assert await world.ledger() == {"cash:stripe": "90.97", "revenue": "-90.97"}
    await world.nothing_new()


async def test_a_downgrade_ends_with_the_period_and_gives_nothing_back(world: World) -> None:
    """Large until the month's end, Small from the next; owed 90.00 and 30.00."""
    await world.tenant("acme", "large")
    world.travel("2026-10-15T09:00")
    await world.change("acme", change_plan, "small", when=at("2026-11-01"))
    assert str((await world.bill_one("acme", "2026-10", "2026-11-02T09:00")).total) == "90.00"
    assert str((await world.bill_one("acme", "2026-11", "2026-12-02T09:00")).total) == "30.00"
    assert world.charged == ["9000 eur", "3000 eur"]
    assert await world.ledger() == {"cash:stripe": "120.00", "revenue": "-120.00"}
    await world.nothing_new()


async def test_a_trial_becomes_paid(world: World) -> None:
    """Fourteen days of trial from 6 November, then 11 days of Small and 20 requests too many; owed 13.00."""
    await world.tenant("acme")
    world.travel("2026-11-06T09:00")
    await world.subscribe("acme", "small", started_at=at("2026-11-06"), trial_days=14)
    world.used("acme", "api_requests", 500, "2026-11-10T10:00")
    world.used("acme", "api_requests", 120, "2026-11-25T10:00")
    invoice = await world.bill_one("acme", "2026-11", "2026-12-02T09:00")
    # 30 × 11/30 = 11.00 from the 20th; 20 × 0.10 = 2.00; the trial's 500 requests cost nothing.
    assert str(invoice.total) == "13.00"
    assert world.charged == ["1300 eur"]
    assert await world.ledger() == {"cash:stripe": "13.00", "revenue": "-13.00"}
    await world.nothing_new()


async def test_late_usage_after_the_invoice_is_invoiced_and_charged_for_itself(world: World) -> None:
    """October is paid with 55.00, then 50 more requests of October come in; owed 5.00 more."""
    await world.tenant("acme", "small")
    world.used("acme", "api_requests", 350, "2026-10-10T10:00")
    first = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert str(first.total) == "55.00"  # 30.00 + 250 × 0.10
    world.used("acme", "api_requests", 50, "2026-10-31T10:00")
    late = await world.bill_one("acme", "2026-10", "2026-11-05T09:00")
    assert amounts(late) == {"Requests — beyond 100": "5.00"}  # 300 × 0.10 - 25.00
    assert late.draft.lines[0].corrects_invoice == first.draft.invoice_id
    assert world.charged == ["5500 eur", "500 eur"]
    assert await world.ledger() == {"cash:stripe": "60.00", "revenue": "-60.00"}
    await world.nothing_new()


async def test_usage_voided_after_the_payment_pays_for_the_next_month(world: World) -> None:
    """55.00 were paid for October, of which 150 requests never were; owed 15.00 for November instead of 30.00."""
    await world.tenant("acme", "small")
    world.used("acme", "api_requests", 350, "2026-10-10T10:00")
    first = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    world.take_out("acme", "api_requests")
    world.used("acme", "api_requests", 200, "2026-10-10T10:00")
    note = await world.bill_one("acme", "2026-10", "2026-11-05T09:00")
    assert (note.number, str(note.total)) == ("MB-CN-2026-000001", "-15.00")  # (100 - 250) × 0.10
    assert await world.invoice(first.number) == ("paid", "55.00", "0.00")
    assert await world.credit_left("acme") == "15.00"
    november = await world.bill_one("acme", "2026-11", "2026-12-02T09:00")
    assert (str(november.total), str(november.amount_due)) == ("30.00", "15.00")  # 30.00 - 15.00 of credit
    assert world.charged == ["5500 eur", "1500 eur"]
    # 55.00 - 15.00 + 30.00 were earned, and as much came in.
    assert await world.ledger() == {"cash:stripe": "70.00", "revenue": "-70.00"}
    await world.nothing_new()


async def test_half_of_a_payment_is_refunded_and_no_more_than_was_paid(world: World) -> None:
    """107.10 were paid; 53.55 go back to the card, and not a cent beyond what was paid; owed nothing more."""
    world.sell_from(BERLIN)
    await world.tenant("acme")
    await world.subscribe("acme", "large", started_at=at("2026-10-01"))
    world.used("acme", "api_requests", 900, "2026-10-10T10:00")
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert str(invoice.total) == "107.10"  # 90.00 + 19 %
    world.travel("2026-11-04T09:00")
    assert (await world.refund(invoice.number, "53.55")).status == "succeeded"  # 107.10 / 2
    assert (await world.refund(invoice.number, "53.55")).status == "succeeded", "the same request, the same refund"
    with pytest.raises(InvalidInputError) as refused:
        await world.refund(invoice.number, "53.56", key="second")
    assert refused.value.faults[0].code == "exceeds_payment"
    assert await world.invoice(invoice.number) == ("paid", "107.10", "0.00")
    # Given back without a credit note: what was billed stays billed.
    assert await world.ledger() == {
        "cash:stripe": "53.55", "refunds": "53.55", "revenue": "-90.00", "tax_payable:DE": "-17.10",
    }  # fmt: skip
    await world.nothing_new()


async def test_what_a_credit_note_gave_as_credit_is_paid_out_instead(world: World) -> None:
    """30.00 were paid; 10.00 are credited by hand, and the credit is refunded to the card; owed nothing more."""
    await world.tenant("acme", "small")
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    world.travel("2026-11-04T09:00")
    note = await world.credit(invoice.number, "10.00")
    assert (str(note.total), await world.credit_left("acme")) == ("-10.00", "10.00")
    await world.pay_out("acme", "10.00")
    assert (await world.refund(invoice.number, "10.00")).status == "succeeded"
    assert await world.credit_left("acme") == "0.00"
    # 30.00 - 10.00 was earned, 30.00 - 10.00 is here, and nothing waits to be given back.
    assert await world.ledger() == {"cash:stripe": "20.00", "revenue": "-20.00"}
    await world.nothing_new()


async def test_a_chargeback_that_is_lost(world: World) -> None:
    """30.00 were paid, and the payer's bank took them back for good; owed nothing more, 30.00 lost."""
    await world.tenant("acme", "small")
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    world.travel("2026-11-20T09:00")
    await world.dispute(invoice.number)
    assert await world.ledger() == {"disputed": "30.00", "revenue": "-30.00"}
    with pytest.raises(InvalidInputError) as refused:
        await world.refund(invoice.number, "1.00")
    assert refused.value.faults[0].code == "disputed"
    world.travel("2026-12-20T10:00")
    await world.dispute(invoice.number, ending="lost")
    assert await world.ledger() == {"bad_debt": "30.00", "revenue": "-30.00"}
    assert await world.invoice(invoice.number) == ("paid", "30.00", "0.00"), "nobody is charged again for it"
    assert await world.dunned(invoice.number) == []
    await world.nothing_new()


async def test_a_chargeback_that_is_won(world: World) -> None:
    """30.00 were paid, disputed and came back; owed nothing more."""
    await world.tenant("acme", "small")
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    world.travel("2026-11-20T09:00")
    await world.dispute(invoice.number)
    world.travel("2026-12-20T10:00")
    await world.dispute(invoice.number, ending="won")
    assert await world.told("payment.disputed") == ["opened", "won"]
    assert await world.ledger() == {"cash:stripe": "30.00", "revenue": "-30.00"}
    await world.nothing_new()


async def test_three_d_secure_abandoned_and_passed_when_asked_again(world: World) -> None:
    """The payer leaves the bank's page, is asked again three days later and pays; owed 30.00, taken once."""
    await world.tenant("acme", "small", pays="pm_card_authenticationRequired")
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    await world.upkeep()
    assert await world.payments(invoice.number) == ["stripe requires_action 30.00"]
    await world.live_until("2026-11-06T10:00")
    assert await world.payments(invoice.number) == ["stripe canceled 30.00"]
    await world.live_until("2026-11-09T10:00")
    assert await world.payments(invoice.number) == ["stripe canceled 30.00", "stripe requires_action 30.00"]
    assert len(world.links) == 2
    await world.authenticate(invoice.number)
    await world.live_until("2026-12-05T10:00")
    assert await world.invoice(invoice.number) == ("paid", "30.00", "0.00")
    assert world.charged == ["3000 eur"]
    assert await world.ledger() == {"cash:stripe": "30.00", "revenue": "-30.00"}
    await world.nothing_new()


async def test_declined_until_the_account_is_suspended_and_paid_with_another_card(world: World) -> None:
    """Four declines, four mails, a suspension, then another card; owed 30.00, taken once."""
    await world.tenant("acme", "small", pays="pm_card_chargeCustomerFail")
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    await world.live_until("2026-12-10T10:00")
    assert await world.payments(invoice.number) == ["stripe failed 30.00"] * 4
    assert await world.dunned(invoice.number) == [
        "11-02 payment_failed-1", "11-05 retry-1 failed", "11-09 retry-2 failed", "11-16 retry-3 failed",
        "11-18 reminder-1", "11-25 reminder-2", "12-02 final_notice-1", "12-09 suspension-1",
    ]  # fmt: skip
    assert await world.invoice(invoice.number) == ("overdue", "0.00", "30.00")
    assert await world.ledger() == {"receivable": "30.00", "revenue": "-30.00"}
    await world.pays_by("acme", "pm_card_visa")
    await world.live_until("2026-12-12T10:00")
    assert await world.invoice(invoice.number) == ("paid", "30.00", "0.00")
    assert await world.told("account.standing") == ["account.suspended", "account.restored"]
    assert world.charged == ["3000 eur"]
    assert await world.ledger() == {"cash:stripe": "30.00", "revenue": "-30.00"}
    await world.nothing_new()


async def test_an_invoice_that_could_not_be_charged_is_voided_and_billed_anew(world: World) -> None:
    """The card is declined, the invoice voided and billed anew; owed 30.00, on the second one."""
    await world.tenant("acme", "small", pays="pm_card_chargeCustomerFail")
    first = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    await world.void(first.number)
    assert await world.ledger() == {}
    world.change_card("pm_card_visa")
    second = await world.bill_one("acme", "2026-10", "2026-11-03T09:00")
    assert (second.number, str(second.total)) == ("MB-2026-000002", "30.00")
    assert await world.payments(first.number) == ["stripe failed 30.00"]
    assert await world.payments(second.number) == ["stripe succeeded 30.00"]
    assert await world.invoice(first.number) == ("void", "0.00", "30.00")
    assert await world.ledger() == {"cash:stripe": "30.00", "revenue": "-30.00"}
    await world.nothing_new()


async def test_a_paid_invoice_is_issued_again_without_a_second_charge(world: World) -> None:
    """35.70 were paid on an invoice with a wrong address; owed 35.70, which the credit note paid."""
    world.sell_from(BERLIN)
    await world.tenant("acme", "small")
    first = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert str(first.total) == "35.70"  # 30.00 + 19 %
    world.travel("2026-11-04T09:00")
    note, anew = await world.reissue(first.number)
    assert (str(note.total), str(anew.total), str(anew.amount_due)) == ("-35.70", "35.70", "0.00")
    assert world.charged == ["3570 eur"]
    assert await world.ledger() == {"cash:stripe": "35.70", "revenue": "-30.00", "tax_payable:DE": "-5.70"}
    await world.nothing_new()


async def test_a_set_up_fee_is_charged_at_once_and_the_month_for_itself(world: World) -> None:
    """A one-time item of 2.5 hours at 120.00, asked for twice; owed 300.00 at once and 30.00 for October."""
    await world.tenant("acme", "small")
    fee = await world.one_time("acme", OneTimeItem("Set-up", Decimal("120"), Decimal("2.5"), "hour"))
    again = await world.one_time("acme", OneTimeItem("Set-up", Decimal("120"), Decimal("2.5"), "hour"))
    assert (str(fee.total), again.invoice_id) == ("300.00", fee.invoice_id)  # 2.5 × 120.00
    assert str((await world.bill_one("acme", "2026-10", "2026-11-02T09:00")).total) == "30.00"
    assert world.charged == ["30000 eur", "3000 eur"]
    assert await world.ledger() == {"cash:stripe": "330.00", "revenue": "-330.00"}
    await world.nothing_new()


async def test_a_draft_waits_for_late_usage_and_is_charged_when_its_grace_is_over(world: World) -> None:
    """Two days of grace, in which 50 requests come in; owed 60.00, in one invoice."""
    world.terms = replace(world.terms, grace_hours=48)
    await world.tenant("acme", "small")
    world.used("acme", "api_requests", 350, "2026-10-10T10:00")
    assert await world.bill("acme", "2026-10", "2026-11-01T09:00") == []
    assert world.charged == []
    world.used("acme", "api_requests", 50, "2026-10-31T23:00")
    await world.live_until("2026-11-04T10:00")
    # 30.00 + 300 × 0.10
    assert world.charged == ["6000 eur"]
    assert await world.invoice("MB-2026-000001") == ("paid", "60.00", "0.00")
    assert await world.ledger() == {"cash:stripe": "60.00", "revenue": "-60.00"}
    await world.nothing_new()


async def test_yen_have_no_cents(world: World) -> None:
    """A plan in yen with 3 CPU hours at 7.5; owed 1,223, charged as 1223."""
    await world.tenant("acme", "tokyo", currency="JPY", country="JP")
    world.used("acme", "cpu", 3, "2026-10-10T10:00")
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert str(invoice.total) == "1223"  # 1,200 + 3 × 7.5 = 22.5, half up
    assert world.charged == ["1223 jpy"]
    assert await world.ledger("JPY") == {"cash:stripe": "1223.00", "revenue": "-1223.00"}
    await world.nothing_new()


async def test_a_month_billed_ahead_and_cancelled_becomes_credit(world: World) -> None:
    """Billed ahead for November, cancelled before it began; owed 60.00 for October, 60.00 come back as credit."""
    await world.tenant("acme", "ahead")
    first = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert str(first.total) == "120.00"  # October, which nothing had billed ahead, and November
    await world.change("acme", cancel_subscription, when=at("2026-11-01"))
    note = await world.bill_one("acme", "2026-10", "2026-11-03T09:00")
    assert str(note.total) == "-60.00"
    assert await world.credit_left("acme") == "60.00"
    assert await world.ledger() == {"cash:stripe": "120.00", "customer_credit": "-60.00", "revenue": "-60.00"}
    await world.nothing_new()
