"""Billing stories with tax: who sells to whom, what the invoice asks for, and what is given back. Sums in comments."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from core.errors import InvalidInputError
from invoicing.domain.exchange import NO_RATES, ExchangeRates
from invoicing.domain.invoice import Buyer, Invoice
from invoicing.domain.stored_invoice import StoredInvoice
from invoicing.domain.tax.seller_tax import SellerTax
from invoicing.domain.tax.tax_working import tax_findings
from invoicing.domain.tax.treatment import TaxBehavior
from invoicing.preview_invoice import preview_invoice
from tests.invoicing.scene import TERMS, Scene, at, contract_of
from tests.invoicing.story import settled
from tests.invoicing.tax.taxing import BERLIN, BERLIN_WITH_SHOP, SAN_FRANCISCO, tables
from tests.rating.plans import TIERS

RATES = ExchangeRates(
    "EUR",
    "ECB",
    (date(2026, 10, 30), date(2026, 11, 2)),
    {
        date(2026, 10, 30): {"USD": Decimal("1.2000"), "MXN": Decimal("21.5000")},
        date(2026, 11, 2): {"USD": Decimal("1.2500"), "MXN": Decimal("21.0000")},
    },
)


class TaxScene(Scene):
    """The seller's tax is what the story says; Acme is on the lite tier (99.00 a month) in US dollars."""

    def __init__(self, seller: SellerTax, *, exchange: ExchangeRates = RATES, **buyer: Any) -> None:
        super().__init__()
        self.terms = replace(TERMS, seller=replace(TERMS.seller, tax=seller), tables=tables(), exchange=exchange)
        self.on("lite")
        self.move(**buyer)

    def move(self, **facts: Any) -> None:
        """Let Acme have other particulars from now on."""
        self.books.state.buyers["acme"] = replace(self.buyer, **facts)

    @property
    def buyer(self) -> Buyer:
        return self.books.state.buyers["acme"]


def sums(invoice: Invoice) -> tuple[str, str, str]:
    return (f"{invoice.draft.subtotal:f}", f"{invoice.tax:f}", f"{invoice.total:f}")


def taxes(invoice: Invoice) -> list[tuple[str, str, str, str, str]]:
    shown = invoice.snapshot["taxes"]
    return [(tax["category"], tax["rate"], tax["place"], tax["base"], tax["tax"]) for tax in shown]


@pytest.mark.story
async def test_a_german_tenant_of_a_german_seller_pays_german_vat() -> None:
    """Sold in Germany; owed 109.00 + 19 % = 129.71."""
    scene = TaxScene(BERLIN, country="DE")
    scene.used("agent_executions", 120_000)  # 20,000 over 100,000 x 0.0005 = 10.00
    invoice = await scene.bill_one()
    # 99.00 + 10.00 = 109.00; x 19 % = 20.71
    assert sums(invoice) == ("109.00", "20.71", "129.71")
    assert taxes(invoice) == [("S", "19", "DE", "109.00", "20.71")]
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_the_tax_is_shown_in_the_sellers_currency_at_the_last_rate_published() -> None:
    """Billed in dollars by a seller in euros; owed 99.00 + 18.81, of tax 15.05 EUR."""
    scene = TaxScene(BERLIN, country="DE")
    scene.clock.travel_to(at("2026-11-03"))
    invoice = await scene.bill_one()
    # 99.00 x 19 % = 18.81 dollars; 1 EUR = 1.25 USD of Monday 2 November: 1 USD = 0.8 EUR, 15.048 -> 15.05
    assert invoice.snapshot["exchange_rate"] == {
        "currency": "EUR",
        "rate": "0.8",
        "published_on": "2026-11-02",
        "source": "ECB",
        "tax": "15.05",
    }
    assert invoice.exchange is not None
    assert (invoice.exchange.rate, invoice.exchange.tax) == (Decimal("0.8"), Decimal("15.05"))
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_on_a_weekend_the_rate_of_friday_counts() -> None:
    """Billed on a Sunday at Friday's rate; owed 117.81."""
    scene = TaxScene(BERLIN, country="DE")
    scene.clock.travel_to(at("2026-11-01"))  # a Sunday
    invoice = await scene.bill_one()
    assert invoice.snapshot["exchange_rate"]["published_on"] == "2026-10-30"
    await settled(scene, "2026-10")


async def test_without_a_rate_nothing_is_invoiced_and_the_account_says_why() -> None:
    scene = TaxScene(BERLIN, country="DE", exchange=NO_RATES)
    assert await scene.bill() == []
    assert scene.parked is not None
    assert "unknown_exchange_rate" in scene.parked
    assert scene.books.state.invoices == []
    assert scene.books.state.series == {}


@pytest.mark.story
async def test_reverse_charge_needs_no_exchange_rate_because_no_tax_is_charged() -> None:
    """Sold to a French business with a valid number; owed 99.00 without tax."""
    scene = TaxScene(BERLIN, country="FR", vat_number="FR40303265045", vat_valid=True, exchange=NO_RATES)
    invoice = await scene.bill_one()
    assert sums(invoice) == ("99.00", "0.00", "99.00")
    (shown,) = invoice.snapshot["taxes"]
    assert (shown["category"], shown["reason_code"], shown["note_code"]) == ("AE", "VATEX-EU-AE", "reverse_charge")
    assert invoice.snapshot["seller"]["vat_number"] == "DE136695976"
    assert invoice.snapshot["bill_to"]["vat_number"] == "FR40303265045"
    assert invoice.snapshot["exchange_rate"] is None
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_an_unchecked_number_parks_the_account_until_vies_has_answered() -> None:
    """Parked until VIES has answered; owed 99.00 without tax."""
    scene = TaxScene(BERLIN_WITH_SHOP, country="FR", vat_number="FR40303265045")
    assert await scene.bill() == []
    assert scene.parked is not None
    assert "unchecked_vat_number" in scene.parked
    scene.move(vat_valid=True, parked_reason=None)
    assert taxes(await scene.bill_one()) == [("AE", "0", "FR", "99.00", "0.00")]
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_a_consumer_pays_the_vat_of_its_own_country() -> None:
    """Sold to a consumer in Finland; owed 99.00 + 25.5 % = 124.25."""
    scene = TaxScene(BERLIN_WITH_SHOP, country="FI", is_business=False)
    # 99.00 x 25.5 % = 25.245 -> 25.25
    assert sums(await scene.bill_one()) == ("99.00", "25.25", "124.25")
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_an_unknown_place_parks_the_account_with_its_reason() -> None:
    """Parked until the state is known; owed 99.00 + 7.25 % = 106.18."""
    scene = TaxScene(SAN_FRANCISCO, country="US")
    assert await scene.bill() == []
    assert scene.parked is not None
    assert "state: a tenant in the US needs its state" in scene.parked
    scene.move(state="CA", parked_reason=None)
    # 99.00 x 7.25 % = 7.1775 -> 7.18
    assert sums(await scene.bill_one()) == ("99.00", "7.18", "106.18")
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_prices_with_tax_keep_the_total_and_show_the_net() -> None:
    """Prices with tax in them; owed 83.19 + 15.81 = 99.00."""
    scene = TaxScene(replace(BERLIN, prices=TaxBehavior.INCLUSIVE), country="DE")
    invoice = await scene.bill_one()
    # 99.00 with 19 % in it: 99 x 19 / 119 = 15.8067 -> 15.81; 99.00 - 15.81 = 83.19
    assert sums(invoice) == ("83.19", "15.81", "99.00")
    (line,) = invoice.snapshot["groups"][0]["lines"]
    assert (line["amount"], line["net"], line["tax_amount"]) == ("99.00", "83.19", "15.81")
    assert invoice.snapshot["tax_behavior"] == "inclusive"
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_credits_pay_for_the_tax_too() -> None:
    """100.00 of credit on a taxed invoice; owed 117.81 - 100.00 = 17.81."""
    scene = TaxScene(BERLIN, country="DE")
    await scene.grant("100.00", "2026-10-01")
    invoice = await scene.bill_one()
    # 99.00 + 18.81 = 117.81, of which 100.00 is drawn
    assert (f"{invoice.credits_applied:f}", f"{invoice.amount_due:f}") == ("100.00", "17.81")
    await settled(scene, "2026-10")


@pytest.mark.story
async def test_late_usage_is_taxed_at_the_rate_of_its_own_month() -> None:
    """Late usage of a month with a lower rate; owed 114.84, then 11.60 and 117.81."""
    # Germany: 16 % until 31 December 2020, 19 % from 1 January 2021.
    scene = TaxScene(replace(BERLIN, currency="USD"), country="DE")
    scene.tenant("acme", contract_of(TIERS["lite"], subscription_id="sub_acme", started="2020-12-01"))
    scene.move(country="DE")
    scene.clock.travel_to(at("2021-01-02"))
    first = await scene.bill_one(period="2020-12")
    assert taxes(first) == [("S", "16", "DE", "99.00", "15.84")]
    scene.used("agent_executions", 120_000, "2020-12-31T23:00")
    scene.clock.travel_to(at("2021-01-20"))
    late = await scene.bill_one(period="2020-12")
    # 20,000 x 0.0005 = 10.00 x 16 %
    assert taxes(late) == [("S", "16", "DE", "10.00", "1.60")]
    scene.clock.travel_to(at("2021-02-02"))
    assert taxes(await scene.bill_one(period="2021-01")) == [("S", "19", "DE", "99.00", "18.81")]
    await settled(scene, "2020-12", "2021-01")


@pytest.mark.story
async def test_what_is_taken_back_keeps_the_treatment_it_was_billed_with() -> None:
    """Moved to Germany, then less usage; owed 136.80 - 12.55, with Finland's tax."""
    scene = TaxScene(BERLIN_WITH_SHOP, country="FI", is_business=False)
    scene.used("agent_executions", 120_000)
    first = await scene.bill_one()
    # 109.00 x 25.5 % = 27.795 -> 27.80
    assert sums(first) == ("109.00", "27.80", "136.80")
    # It moves to Germany, and its usage turns out to be less: Finland's tax is given back, not Germany's.
    scene.move(country="DE")
    scene.usage.hours["acme"].clear()
    scene.used("agent_executions", 100_000)
    scene.clock.travel_to(at("2026-11-05"))
    (note,) = await scene.bill()
    # Left: 99.00 x 25.5 % = 25.245 -> 25.25; 27.80 - 25.25 = 2.55 goes back.
    assert sums(note) == ("-10.00", "-2.55", "-12.55")
    assert taxes(note) == [("S", "25.5", "FI", "-10.00", "-2.55")]
    assert note.snapshot["kind"] == "credit_note"
    await settled(scene, "2026-10")


@pytest.mark.parametrize(
    ("buyer", "tax"),
    [
        ({"country": "DE"}, "18.81"),
        ({"country": "FR", "vat_number": "FR40303265045", "vat_valid": True}, "0.00"),
        ({"country": "JP"}, "0.00"),
    ],
)
async def test_a_preview_shows_the_tax_of_the_invoice_that_follows(buyer: dict[str, Any], tax: str) -> None:
    scene = TaxScene(BERLIN, **buyer)
    when = at("2026-10-20")
    shown = await preview_invoice("acme", when, books=scene.books, usage=scene.usage, rules=scene.terms.tax_rules)
    invoice = await scene.bill_one()
    assert (f"{shown.tax:f}", shown.total, shown.amount_due) == (tax, invoice.total, invoice.amount_due)
    assert [group.treatment.as_document() for group in shown.taxes] == [
        line.treatment.as_document() for line in invoice.draft.lines if line.treatment
    ]


async def test_a_preview_says_why_tax_cannot_be_determined() -> None:
    scene = TaxScene(SAN_FRANCISCO, country="US")
    with pytest.raises(InvalidInputError) as refused:
        await preview_invoice(
            "acme", at("2026-10-20"), books=scene.books, usage=scene.usage, rules=scene.terms.tax_rules
        )
    assert [(fault.code, fault.path) for fault in refused.value.faults] == [("unknown_state", "state")]


async def test_an_explanation_works_the_tax_out_again_and_sees_a_share_that_was_changed() -> None:
    scene = TaxScene(BERLIN, country="DE")
    scene.used("agent_executions", 120_000)
    invoice = await scene.bill_one()
    stored = StoredInvoice(
        invoice.draft.invoice_id, invoice.number, "acme", "sub_acme", invoice.draft.period, 1, invoice.status,
        "USD", invoice.draft.subtotal, invoice.issued_at, invoice.snapshot, invoice.snapshot_sha256,
        tuple(enumerate(invoice.draft.lines, 1)),
    )  # fmt: skip
    line = invoice.draft.lines[0]
    found = list(tax_findings(stored, line))
    assert [(code, holds) for code, holds, _ in found] == [("tax_share", True), ("taxes_add_up", True)]
    # 99.00 x 19 % = 18.81
    assert found[0][2] == "19 % in DE of 99.00 USD: 18.81"
    changed = structs.replace(line, tax_amount=Decimal("18.80"))
    altered = replace(stored, lines=((1, changed), *stored.lines[1:]))
    assert [(code, holds) for code, holds, _ in tax_findings(altered, changed)] == [
        ("tax_share", False),
        ("taxes_add_up", False),
    ]
