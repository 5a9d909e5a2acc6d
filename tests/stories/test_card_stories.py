"""Stories of invoices that are paid by card, from usage to a ledger that balances."""

from __future__ import annotations

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
    assert await world.ledger() == {"cash:stripe": "101.15", "revenue": "-85", "tax_payable:DE": "-16.15"}
    await world.nothing_new()
