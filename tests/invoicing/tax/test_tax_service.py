"""An outside tax service: it says how lines are taxed, amounts stay ours, and an outage is no rate of nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from core.errors import InvalidInputError, UnavailableError
from invoicing.adapters.tax_service import HttpTaxService
from invoicing.domain.tax.treatment import TaxBehavior
from invoicing.tax_ports import TaxParty, TaxQuestion
from tests.invoicing.tax.taxing import SAN_FRANCISCO
from tests.invoicing.tax.test_tax_stories import TaxScene, sums, taxes
from tests.standins.tax_service import TaxServiceStandIn

CHICAGO = TaxParty("acme", "US", "IL", "60601", "", "", True, "")
QUESTIONS = [TaxQuestion("0", Decimal("99.00"), date(2026, 10, 31))]


@pytest.fixture
async def server() -> AsyncIterator[TaxServiceStandIn]:
    server = TaxServiceStandIn()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def service(server: TaxServiceStandIn) -> AsyncIterator[HttpTaxService]:
    service = HttpTaxService(server.url, server.token, timeout_seconds=0.5)
    yield service
    await service.close()


async def test_an_invoice_is_taxed_as_the_service_says_and_added_up_by_us(
    server: TaxServiceStandIn, service: HttpTaxService
) -> None:
    scene = TaxScene(SAN_FRANCISCO, country="US", state="NY", postal_code="10001")
    scene.terms = replace(scene.terms, tax_service=service)
    scene.used("agent_executions", 120_000)
    invoice = await scene.bill_one()
    # 109.00 x 8.875 % = 9.67375 -> 9.67
    assert sums(invoice) == ("109.00", "9.67", "118.67")
    assert taxes(invoice) == [("S", "8.875", "US-NY", "109.00", "9.67")]
    assert server.asked[0]["party"]["postal_code"] == "10001"
    assert {line["on"] for line in server.asked[0]["lines"]} == {"2026-10-31"}
    assert await scene.bill() == []


async def test_prices_with_tax_stay_the_sellers_setting(service: HttpTaxService) -> None:
    scene = TaxScene(replace(SAN_FRANCISCO, prices=TaxBehavior.INCLUSIVE), country="US", postal_code="60601")
    scene.terms = replace(scene.terms, tax_service=service)
    # 99.00 with 10.25 % in it: 99 x 10.25 / 110.25 = 9.2041 -> 9.20
    assert sums(await scene.bill_one()) == ("89.80", "9.20", "99.00")


async def test_an_exempt_tenant_is_told_as_such(service: HttpTaxService) -> None:
    (treatment,) = await service.treatments(replace(CHICAGO, exempt="Resale"), QUESTIONS, "USD")
    assert (treatment.category.value, treatment.rate, treatment.note) == ("E", 0, "Resale")


@pytest.mark.parametrize("kind", ["server_error", "not_json", "cut_before", "hang_after"])
async def test_an_outage_issues_nothing_and_parks_nobody(
    server: TaxServiceStandIn, service: HttpTaxService, kind: str
) -> None:
    scene = TaxScene(SAN_FRANCISCO, country="US", postal_code="60601")
    scene.terms = replace(scene.terms, tax_service=service)
    server.faults.add({"kind": kind})
    with pytest.raises(UnavailableError):
        await scene.bill()
    assert scene.parked is None
    assert scene.books.state.series == {}
    assert sums(await scene.bill_one()) == ("99.00", "10.15", "109.15")  # 99.00 x 10.25 % = 10.1475


async def test_a_place_the_service_refuses_parks_the_account(service: HttpTaxService) -> None:
    scene = TaxScene(SAN_FRANCISCO, country="US", postal_code="99999")
    scene.terms = replace(scene.terms, tax_service=service)
    assert await scene.bill() == []
    assert scene.parked is not None
    assert "unknown_place" in scene.parked


@pytest.mark.parametrize("kind", ["unfit_rate", "missing_line"])
async def test_an_answer_that_does_not_fit_is_refused(
    server: TaxServiceStandIn, service: HttpTaxService, kind: str
) -> None:
    server.faults.add({"kind": kind})
    with pytest.raises(InvalidInputError) as refused:
        await service.treatments(CHICAGO, QUESTIONS, "USD")
    assert refused.value.faults[0].code == "unfit_answer"


async def test_a_wrong_token_is_an_outage(server: TaxServiceStandIn) -> None:
    service = HttpTaxService(server.url, "other")
    with pytest.raises(UnavailableError):
        await service.treatments(CHICAGO, QUESTIONS, "USD")
    await service.close()
