"""Stories of invoices that are paid by bank transfer, or by PayPal, from usage to a ledger that balances."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.creditor_reference import creditor_reference
from core.errors import InvalidInputError
from invoicing.domain.tax.treatment import TaxBehavior
from payments.bank.confirm_match import AlreadyConfirmedError
from subscriptions.cancel_subscription import cancel_subscription
from tests.invoicing.scene import amounts, at
from tests.invoicing.tax.taxing import BERLIN, BERLIN_WITH_SHOP, SAN_FRANCISCO
from tests.stories.world import World, rates

pytestmark = [pytest.mark.integration, pytest.mark.story]


async def test_a_wire_paid_short_is_reminded_of_the_rest(world: World) -> None:
    """100.00 come by wire, a reminder asks for the rest, which comes too; owed 107.10, then 7.10."""
    world.sell_from(BERLIN)
    await world.tenant("acme", "large", pays=None)
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert str(invoice.total) == "107.10"  # 90.00 + 19 %
    world.travel("2026-11-10T09:00")
    (entry,) = await world.wire(("100.00", f"Invoice {invoice.number}"))
    await world.confirm(entry, invoice.number)
    with pytest.raises(AlreadyConfirmedError):
        await world.confirm(entry, invoice.number)
    assert await world.invoice(invoice.number) == ("finalized", "100.00", "7.10")
    await world.live_until("2026-11-20T10:00")
    assert await world.dunned(invoice.number) == ["11-14 upcoming-1", "11-18 reminder-1"]
    asked = await world.rows("SELECT DISTINCT payload ->> 'amount_open' AS amount FROM dunning_mails")
    assert [row["amount"] for row in asked] == ["7.10"]
    assert await world.invoice(invoice.number) == ("overdue", "100.00", "7.10")
    assert await world.wire(("7.10", f"Rest {creditor_reference(invoice.number)}")) == []
    await world.live_until("2026-12-20T10:00")
    assert await world.invoice(invoice.number) == ("paid", "107.10", "0.00")
    assert (await world.dunned(invoice.number))[2:] == []
    assert await world.ledger() == {"cash:wire": "107.10", "revenue": "-90.00", "tax_payable:DE": "-17.10"}
    await world.nothing_new()


async def test_a_wire_of_too_much_pays_for_the_next_month(world: World) -> None:
    """50.00 come by wire for October, 20.00 become credit; owed 30.00, then 10.00 for November."""
    await world.tenant("acme", "small", pays=None)
    october = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    world.travel("2026-11-05T09:00")
    (entry,) = await world.wire(("50.00", f"Invoice {october.number}"))
    await world.confirm(entry, october.number, rest="credit")
    assert await world.credit_left("acme") == "20.00"
    assert await world.ledger() == {"cash:wire": "50.00", "customer_credit": "-20.00", "revenue": "-30.00"}
    november = await world.bill_one("acme", "2026-11", "2026-12-02T09:00")
    assert str(november.amount_due) == "10.00"  # 30.00 - 20.00
    assert await world.wire(("10.00", november.number)) == []
    assert await world.invoice(november.number) == ("paid", "10.00", "0.00")
    assert await world.ledger() == {"cash:wire": "60.00", "revenue": "-60.00"}
    await world.nothing_new()


async def test_one_wire_for_two_months(world: World) -> None:
    """October and November are paid by one transfer that names both; owed 55.00 + 30.00 = 85.00."""
    await world.tenant("acme", "small", pays=None)
    world.used("acme", "api_requests", 350, "2026-10-10T10:00")
    october = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    november = await world.bill_one("acme", "2026-11", "2026-12-02T09:00")
    # 30.00 + 250 × 0.10 and 30.00
    assert await world.wire(("85.00", f"{october.number} {november.number}")) == []
    assert await world.invoice(october.number) == ("paid", "55.00", "0.00")
    assert await world.invoice(november.number) == ("paid", "30.00", "0.00")
    assert await world.ledger() == {"cash:wire": "85.00", "revenue": "-85.00"}
    await world.nothing_new()


async def test_a_wire_paid_twice_is_sent_back_once(world: World) -> None:
    """An invoice is paid twice, the second transfer is held and sent back; owed 30.00 once."""
    await world.tenant("acme", "small", pays=None)
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    world.travel("2026-11-05T09:00")
    (second,) = await world.wire(("30.00", invoice.number), ("30.00", f"again {invoice.number}"))
    with pytest.raises(InvalidInputError) as refused:
        await world.confirm(second, invoice.number)
    assert refused.value.faults[0].code == "nothing_open"
    await world.confirm(second, rest="held", tenant_id="acme")
    assert await world.ledger() == {"cash:wire": "60.00", "revenue": "-30.00", "unallocated": "-30.00"}
    world.travel("2026-11-07T09:00")
    (back,) = await world.wire(("-30.00", "given back"))
    await world.give_back(back, second)
    assert await world.ledger() == {"cash:wire": "30.00", "revenue": "-30.00"}
    await world.nothing_new()


async def test_a_wire_that_its_bank_takes_back_is_owed_again(world: World) -> None:
    """A transfer is taken back by its bank, becomes overdue and comes again; owed 30.00 once."""
    await world.tenant("acme", "small", pays=None)
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    world.travel("2026-11-05T09:00")
    await world.wire(("30.00", invoice.number))
    assert await world.invoice(invoice.number) == ("paid", "30.00", "0.00")
    (paid,) = await world.rows("SELECT entry_id FROM bank_entries")
    world.travel("2026-11-10T09:00")
    (back,) = await world.wire(("-30.00", f"RETURN {invoice.number}"), is_return=True)
    await world.give_back(back, paid["entry_id"])
    assert await world.ledger() == {"receivable": "30.00", "revenue": "-30.00"}
    await world.live_until("2026-11-19T10:00")
    assert await world.invoice(invoice.number) == ("overdue", "0.00", "30.00")
    assert await world.wire(("30.00", invoice.number)) == []
    await world.live_until("2026-12-10T10:00")
    assert await world.payments(invoice.number) == [
        "none failed 30.00", "wire succeeded 30.00", "wire succeeded 30.00",
    ]  # fmt: skip
    assert await world.ledger() == {"cash:wire": "30.00", "revenue": "-30.00"}
    await world.nothing_new()


async def test_written_off_and_paid_all_the_same(world: World) -> None:
    """An invoice is given up in December, and paid in May after all; owed 30.00, nothing lost."""
    await world.tenant("acme", "small", pays=None)
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    await world.live_until("2026-12-01T10:00")
    await world.write_off(invoice.number)
    assert await world.ledger() == {"bad_debt": "30.00", "revenue": "-30.00"}
    world.travel("2027-05-03T10:00")
    await world.upkeep()
    assert await world.wire(("30.00", f"Invoice {invoice.number}, sorry")) == []
    assert await world.ledger() == {"cash:wire": "30.00", "revenue": "-30.00"}
    await world.nothing_new()


async def test_a_french_business_accounts_for_the_tax_itself(world: World) -> None:
    """Small sold from Berlin to a business in France with a checked number; owed 30.00 without tax, by wire."""
    world.sell_from(BERLIN)
    await world.tenant("acme", "small", pays=None, country="FR", vat_number="FR40303265045")
    assert await world.bill("acme", "2026-10", "2026-11-02T09:00") == [], "an unchecked number waits for VIES"
    await world.vies_answers("acme", "FR40303265045")
    invoice = await world.bill_one("acme", "2026-10", "2026-11-03T09:00")
    assert (str(invoice.total), invoice.snapshot["taxes"][0]["category"]) == ("30.00", "AE")
    assert await world.wire(("30.00", invoice.number)) == []
    assert await world.ledger() == {"cash:wire": "30.00", "revenue": "-30.00"}
    await world.nothing_new()


async def test_an_enterprise_minimum_is_not_reached(world: World) -> None:
    """200.00 of CPU under a contract with a minimum of 5,000.00; owed 200.00 + 4,800.00 = 5,000.00 USD, by wire."""
    await world.tenant("acme", "enterprise", pays=None, currency="USD", country="US")
    world.used("acme", "cpu", 4_000, "2026-10-10T10:00")
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    # 4,000 × 0.05 = 200.00; 5,000.00 - 200.00 = 4,800.00
    assert amounts(invoice) == {"CPU": "200.00", "Top-up to the monthly minimum": "4800.00"}
    assert await world.wire(("5000.00", invoice.number), currency="USD") == []
    # Late usage is within the minimum: an invoice over nothing confirms it.
    world.used("acme", "cpu", 1_000, "2026-10-31T10:00")
    late = await world.bill_one("acme", "2026-10", "2026-11-06T09:00")
    assert amounts(late) == {"CPU": "50.00", "Top-up to the monthly minimum": "-50.00"}
    assert await world.ledger("USD") == {"cash:wire": "5000.00", "revenue": "-5000.00"}
    await world.nothing_new()


async def test_a_commitment_is_trued_up(world: World) -> None:
    """500.00 a month are committed, 300.00 used, then 700.00; owed 500.00 and 700.00."""
    await world.tenant("acme", "committed", pays=None)
    world.used("acme", "cpu", 6_000, "2026-10-10T10:00")
    world.used("acme", "cpu", 14_000, "2026-11-10T10:00")
    october = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    # 6,000 × 0.05 = 300.00; 500.00 - 300.00 = 200.00
    assert sorted(str(line.amount) for line in october.draft.lines) == ["200.00", "300.00"]
    november = await world.bill_one("acme", "2026-11", "2026-12-02T09:00")
    assert str(november.total) == "700.00"  # 14,000 × 0.05
    assert await world.wire(("500.00", october.number), ("700.00", november.number)) == []
    assert await world.ledger() == {"cash:wire": "1200.00", "revenue": "-1200.00"}
    await world.nothing_new()


async def test_an_airgapped_licence_and_the_renewal_of_its_support(world: World) -> None:
    """The licence with a year of support, and the support again a year later; owed 60,000.00 and 10,000.00."""
    world.travel("2026-10-05T09:00")
    await world.tenant("acme", "airgapped", pays=None, currency="USD", country="US")
    first = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert str(first.total) == "60000.00"  # 50,000 + 10,000
    assert await world.wire(("60000.00", first.number), currency="USD") == []
    assert await world.bill("acme", "2026-11", "2026-12-02T09:00") == []
    renewal = await world.bill_one("acme", "2027-10", "2027-11-02T09:00")
    assert (renewal.number, amounts(renewal)) == ("MB-2027-000001", {"Yearly support and updates": "10000.00"})
    assert await world.wire(("10000.00", renewal.number), currency="USD") == []
    assert await world.ledger("USD") == {"cash:wire": "70000.00", "revenue": "-70000.00"}
    await world.nothing_new()


async def test_a_consumer_in_finland_gets_everything_back_with_its_tax(world: World) -> None:
    """Small sold from Berlin with Finland's VAT; owed 37.65, credited and paid back in full."""
    world.sell_from(BERLIN_WITH_SHOP)
    await world.tenant("acme", "small", pays="pm_card_visa", country="FI", is_business=False)
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert str(invoice.total) == "37.65"  # 30.00 × 25.5 % = 7.65
    world.travel("2026-11-04T09:00")
    note = await world.credit(invoice.number)
    assert (str(note.total), str(note.tax)) == ("-37.65", "-7.65")
    await world.pay_out("acme", "37.65")
    await world.refund(invoice.number, None)
    assert await world.ledger() == {}
    await world.nothing_new()


async def test_sales_tax_in_dollars_paid_by_card(world: World) -> None:
    """Lite sold from San Francisco to a business in California; owed 106.18."""
    world.sell_from(SAN_FRANCISCO)
    await world.tenant("acme", "lite", currency="USD", country="US", state="CA")
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert str(invoice.total) == "106.18"  # 99.00 × 7.25 % = 7.1775 -> 7.18
    assert world.charged == ["10618 usd"]
    assert await world.ledger("USD") == {"cash:stripe": "106.18", "revenue": "-99.00", "tax_payable:US-CA": "-7.18"}
    await world.nothing_new()


async def test_from_dollars_to_euros_with_the_month(world: World) -> None:
    """Acme pays in dollars until October, then in euros under another account; owed 34.10 USD, 30.00 EUR."""
    # An account's currency is for ever: what was in dollars stays so, late usage of October too.
    world.sell_from(BERLIN, exchange=rates("USD", "1.25"))
    await world.tenant("acme", "small_usd", currency="USD", country="JP")
    await world.change("acme", cancel_subscription, when=at("2026-11-01"))
    world.travel("2026-10-25T09:00")
    await world.tenant("acme-eur", country="JP")
    await world.subscribe("acme-eur", "small", started_at=at("2026-11-01"))
    dollars = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert str(dollars.total) == "33.00"
    world.used("acme", "api_requests", 110, "2026-10-31T10:00")
    late = await world.bill_one("acme", "2026-10", "2026-11-05T09:00")
    assert str(late.total) == "1.10"  # 10 × 0.11
    euros = await world.bill_one("acme-eur", "2026-11", "2026-12-02T09:00")
    assert str(euros.total) == "30.00"
    assert await world.bill("acme", "2026-11", "2026-12-02T09:00") == []
    assert world.charged == ["3300 usd", "110 usd", "3000 eur"]
    assert await world.ledger("USD") == {"cash:stripe": "34.10", "revenue": "-34.10"}
    assert await world.ledger("EUR") == {"cash:stripe": "30.00", "revenue": "-30.00"}
    await world.nothing_new()


async def test_paid_by_paypal_after_the_link_was_left_alone_once(world: World) -> None:
    """The payer does not approve in time; dunning sends the next link, which is approved; owed 30.00, taken once."""
    await world.tenant("acme", "small", pays="paypal")
    assert world.paypal is not None
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert await world.payments(invoice.number) == ["paypal requires_action 30.00"]
    await world.live_until("2026-11-06T10:00")
    assert await world.payments(invoice.number) == ["paypal canceled 30.00", "paypal requires_action 30.00"]
    await world.upkeep()
    (*_, payment) = await world.rows("SELECT payment_id FROM payments ORDER BY attempt")
    await world.paypal.approve(payment["payment_id"])
    await world.turn()
    await world.upkeep()
    assert await world.invoice(invoice.number) == ("paid", "30.00", "0.00")
    assert [one["amount"] for one in world.paypal.standin.account.ledger()] == ["30.00"]
    assert await world.ledger() == {"cash:paypal": "30.00", "revenue": "-30.00"}
    await world.nothing_new()


async def test_half_of_a_paypal_payment_is_refunded(world: World) -> None:
    """35.70 are approved and captured, 17.85 go back; owed nothing more."""
    world.sell_from(BERLIN)
    await world.tenant("acme", "small", pays="paypal")
    assert world.paypal is not None
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    await world.upkeep()
    (payment,) = await world.rows("SELECT payment_id FROM payments")
    await world.paypal.approve(payment["payment_id"])
    await world.turn()
    await world.upkeep()
    assert await world.invoice(invoice.number) == ("paid", "35.70", "0.00")  # 30.00 + 19 %
    assert (await world.refund(invoice.number, "17.85")).status == "succeeded"  # 35.70 / 2
    assert await world.ledger() == {
        "cash:paypal": "17.85", "refunds": "17.85", "revenue": "-30.00", "tax_payable:DE": "-5.70",
    }  # fmt: skip
    await world.nothing_new()


async def test_prices_with_tax_in_them_are_what_is_charged(world: World) -> None:
    """Small at 30.00 with German VAT in it; owed 30.00, of which 4.79 is tax."""
    world.sell_from(replace(BERLIN, prices=TaxBehavior.INCLUSIVE))
    await world.tenant("acme", "small")
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert (str(invoice.total), str(invoice.tax)) == ("30.00", "4.79")  # 30 × 19/119 = 4.7899...
    assert world.charged == ["3000 eur"]
    assert await world.ledger() == {"cash:stripe": "30.00", "revenue": "-25.21", "tax_payable:DE": "-4.79"}
    await world.nothing_new()
