"""Stories of calendars, coupons and credits, from usage to a ledger that balances."""

from __future__ import annotations

from decimal import Decimal

import pytest

from rating.domain.proration import Convention
from subscriptions.change_plan import change_plan
from subscriptions.change_quantity import change_quantity
from subscriptions.create_subscription import ANCHOR_AT_START
from subscriptions.pause_subscription import pause_subscription
from tests.invoicing.scene import amounts, at, local
from tests.invoicing.tax.taxing import BERLIN
from tests.stories.world import World

pytestmark = [pytest.mark.integration, pytest.mark.story]


async def test_a_pause_over_the_years_end(world: World) -> None:
    """Small from December, paused from the 21st to 11 January; owed 19.35 and 20.32, under next year's numbers."""
    world.travel("2026-12-01T09:00")
    await world.tenant("acme")
    await world.subscribe("acme", "small", started_at=at("2026-12-01"))
    world.travel("2026-12-21T10:00")
    await world.change("acme", pause_subscription, until=at("2027-01-11T10:00"))
    december = await world.bill_one("acme", "2026-12", "2027-01-02T09:00")
    january = await world.bill_one("acme", "2027-01", "2027-02-02T09:00")
    # 30 × 20/31 = 19.354... and 30 × 21/31 = 20.322...
    assert (str(december.total), str(january.total)) == ("19.35", "20.32")
    assert [december.number, january.number] == ["MB-2027-000001", "MB-2027-000002"]
    assert world.charged == ["1935 eur", "2032 eur"]
    assert await world.ledger() == {"cash:stripe": "39.67", "revenue": "-39.67"}
    await world.nothing_new()


async def test_periods_from_the_31st_over_a_leap_day(world: World) -> None:
    """Small from 31 January 2028, so its second period begins on 29 February; owed 30.00 for each period."""
    world.travel("2028-01-31T09:00")
    await world.tenant("acme")
    await world.subscribe("acme", "small", started_at=at("2028-01-31"), anchor=ANCHOR_AT_START)
    world.used("acme", "api_requests", 110, "2028-02-28T23:59")  # the first period's
    world.used("acme", "api_requests", 120, "2028-02-29T00:00")  # the second one's
    first = await world.bill_one("acme", "2028-02", "2028-03-02T09:00")
    second = await world.bill_one("acme", "2028-03", "2028-04-02T09:00")
    assert str(first.draft.period) == "2028-01-31T00:00:00Z/2028-02-29T00:00:00Z"
    # 30.00 + 10 × 0.10, and 30.00 + 20 × 0.10
    assert (str(first.total), str(second.total)) == ("31.00", "32.00")
    assert world.charged == ["3100 eur", "3200 eur"]
    assert await world.ledger() == {"cash:stripe": "63.00", "revenue": "-63.00"}
    await world.nothing_new()


async def test_the_day_the_clocks_go_back_has_25_hours(world: World) -> None:
    """Small until 26 October in Berlin, then Large, measured in seconds; owed 24.20 + 5.00 + 17.40 + 5.00 = 51.60."""
    await world.tenant("acme", time_zone="Europe/Berlin")
    await world.subscribe(
        "acme", "small", started_at=local("2026-10-01", "Europe/Berlin"), convention=Convention.SECONDS
    )
    world.travel("2026-10-25T23:00")  # midnight in Berlin
    await world.change("acme", change_plan, "large")
    world.used("acme", "api_requests", 150, "2026-10-25T22:59")  # still Small's
    world.used("acme", "api_requests", 1_100, "2026-10-25T23:00")
    world.used("acme", "api_requests", 7_000, "2026-10-31T23:00")  # November in Berlin
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    # October has 745 hours there, 601 of them Small's: 30 × 601/745 = 24.201..., 90 × 144/745 = 17.395...;
    # 50 × 0.10 = 5.00; 100 × 0.05 = 5.00
    assert sorted(str(line.amount) for line in invoice.draft.lines if line.amount) == ["17.40", "24.20", "5.00", "5.00"]
    assert world.charged == ["5160 eur"]
    assert await world.ledger() == {"cash:stripe": "51.60", "revenue": "-51.60"}
    await world.nothing_new()


async def test_a_coupon_ends_after_two_months(world: World) -> None:
    """20 % off for October and November; owed 28.56, 28.56 and, without it, 35.70."""
    world.sell_from(BERLIN)
    await world.tenant("acme", "small")
    await world.offer("welcome", "acme", percent_off="20", duration="repeating", duration_in_periods=2)
    totals = [
        str((await world.bill_one("acme", month, now)).total)
        for month, now in (
            ("2026-10", "2026-11-02T09:00"), ("2026-11", "2026-12-02T09:00"), ("2026-12", "2027-01-02T09:00"),
        )
    ]  # fmt: skip
    # (30.00 - 6.00) × 1.19 = 28.56, twice; 30.00 × 1.19 = 35.70
    assert totals == ["28.56", "28.56", "35.70"]
    assert world.charged == ["2856 eur", "2856 eur", "3570 eur"]
    # 24.00 + 24.00 + 30.00 = 78.00; 4.56 + 4.56 + 5.70 = 14.82
    assert await world.ledger() == {"cash:stripe": "92.82", "revenue": "-78.00", "tax_payable:DE": "-14.82"}
    await world.nothing_new()


async def test_a_credit_expires_between_two_invoices(world: World) -> None:
    """50.00 of paid credit pay October's 30.00, and 20.00 expire on 20 November; owed 30.00 for November."""
    await world.tenant("acme", "small")
    await world.grant("acme", "50", expires_at="2026-11-20T00:00:00Z")
    october = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert (str(october.amount_due), world.charged) == ("0.00", [])
    assert await world.invoice(october.number) == ("paid", "0.00", "0.00")
    await world.live_until("2026-11-21T10:00")
    assert await world.credit_left("acme") == "0.00"
    november = await world.bill_one("acme", "2026-11", "2026-12-02T09:00")
    assert str(november.amount_due) == "30.00"
    assert world.charged == ["3000 eur"]
    # 50.00 were paid for the credit and 30.00 by card: 60.00 were earned by invoices, 20.00 because nobody used them.
    assert await world.ledger() == {
        "breakage": "-20.00", "cash:prepaid": "50.00", "cash:stripe": "30.00", "revenue": "-60.00",
    }  # fmt: skip
    await world.nothing_new()


async def test_a_promotion_pays_for_tax_too_and_comes_back_with_a_void(world: World) -> None:
    """40.00 given away pay the 35.70 of an invoice that is voided and billed anew; owed 0.00, 4.30 are left."""
    world.sell_from(BERLIN)
    await world.tenant("acme", "small")
    await world.grant("acme", "40", kind="promotional")
    first = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert (str(first.total), str(first.amount_due)) == ("35.70", "0.00")
    await world.void(first.number)
    assert await world.credit_left("acme") == "40.00"
    again = await world.bill_one("acme", "2026-10", "2026-11-03T09:00")
    assert (again.number, str(again.amount_due), await world.credit_left("acme")) == ("MB-2026-000002", "0.00", "4.30")
    assert world.charged == []
    assert await world.ledger() == {
        "customer_credit": "-4.30", "promotions": "40.00", "revenue": "-30.00", "tax_payable:DE": "-5.70",
    }  # fmt: skip
    await world.nothing_new()


async def test_seats_come_and_go(world: World) -> None:
    """Five seats at 49.00, three more from the 11th to the 21st; owed 294.00."""
    await world.tenant("acme")
    world.travel("2026-11-01T09:00")
    await world.subscribe("acme", "team", started_at=at("2026-11-01"), quantity=Decimal(5))
    for day, seats in ((11, 8), (21, 5)):
        world.travel(f"2026-11-{day}T12:00")
        await world.change("acme", change_quantity, Decimal(seats))
    invoice = await world.bill_one("acme", "2026-11", "2026-12-02T09:00")
    # 5 × 49 × 20/30 = 163.33, 8 × 49 × 10/30 = 130.67
    assert sorted(amounts(invoice).values()) == ["130.67", "163.33"]
    assert world.charged == ["29400 eur"]
    assert await world.ledger() == {"cash:stripe": "294.00", "revenue": "-294.00"}
    await world.nothing_new()


async def test_two_subscriptions_on_one_invoice(world: World) -> None:
    """Small and Team, billed together; owed 30.00 and 2 × 49.00 on one invoice, charged once."""
    await world.tenant("acme")
    await world.rows("UPDATE tenants SET consolidated_invoices = true RETURNING 1")
    await world.subscribe("acme", "small", started_at=at("2026-10-01"))
    await world.subscribe("acme", "team", started_at=at("2026-10-01"), quantity=Decimal(2))
    invoice = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    assert str(invoice.total) == "128.00"  # 30.00 + 98.00
    assert world.charged == ["12800 eur"]
    assert await world.ledger() == {"cash:stripe": "128.00", "revenue": "-128.00"}
    await world.nothing_new()
