"""Lives of subscriptions with the sums they come to, period by period; the working stands beside each figure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from core.period import Period
from rating.domain.cycle import Interval
from rating.domain.plan import Plan
from rating.domain.proration import Convention
from rating.domain.timeline import Timeline
from rating.rate_timeline import UsageOfHolding, holdings_of, rate_holding
from subscriptions.cancel_subscription import cancel_subscription
from subscriptions.change_add_ons import add_add_on, remove_add_on
from subscriptions.change_plan import change_plan
from subscriptions.change_quantity import change_quantity
from subscriptions.create_subscription import ANCHOR_AT_START
from subscriptions.domain.proposals import Moment
from subscriptions.domain.tenant import Tenant
from subscriptions.pause_subscription import pause_subscription
from subscriptions.reactivate_subscription import reactivate_subscription
from subscriptions.read_plans import read_plans
from tests.subscriptions.lifecycle import ACME, Desk, flat, memory_desk, plan

END = Moment.PERIOD_END


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class Ledger:
    """Bills one subscription, period by period."""

    def __init__(self, desk: Desk, subscription_id: str) -> None:
        self.desk, self.subscription_id = desk, subscription_id

    async def bill(self, day: str) -> dict[str, str]:
        """Return what the period that holds a day comes to, by plan."""
        timeline = await self.desk.timeline(self.subscription_id)
        return await self._bill(timeline, timeline.cycle.period_at(at(day)))

    async def starts(self, day: str, count: int) -> list[str]:
        timeline, instant, found = await self.desk.timeline(self.subscription_id), at(day), []
        for _ in range(count):
            period = timeline.cycle.period_at(instant)
            found.append(f"{period.start:%Y-%m-%dT%H:%M}")
            instant = period.end
        return found

    async def _bill(self, timeline: Timeline, period: Period) -> dict[str, str]:
        async with self.desk.store() as store:
            plans = await read_plans([timeline], store)

        def plan_of(plan_id: str, version: int, overrides: Any) -> Plan:
            return plans(plan_id, version, overrides)

        found: dict[str, Decimal] = {}
        for holding in holdings_of(timeline, period, plan_of):
            for line in rate_holding(holding, UsageOfHolding()).lines:
                name = holding.reference.plan_id
                found[name] = found.get(name, Decimal(0)) + line.rated.amount
        return {name: str(amount) for name, amount in found.items() if amount}


async def signed_up(plan_id: str, started_at: str, tenant: Tenant = ACME, **wanted: Any) -> Ledger:
    desk = await memory_desk(tenant)
    desk.clock.travel_to(started_at)
    return Ledger(desk, await desk.subscribe(plan_id, started_at=at(started_at), **wanted))


async def test_a_mid_month_upgrade() -> None:
    acme = await signed_up("small", "2026-03-01")
    acme.desk.clock.travel_to("2026-03-11T09:15")
    await acme.desk.do(change_plan, acme.subscription_id, "large")
    # Ten days of 31 small, the other 21 large: 30 x 10/31 = 9.677..., 93 x 21/31 = 63.
    assert await acme.bill("2026-03-15") == {"small": "9.68", "large": "63.00"}
    assert await acme.bill("2026-04-15") == {"large": "93.00"}


async def test_an_upgrade_and_back_on_one_day_costs_nothing() -> None:
    acme = await signed_up("small", "2026-03-01")
    acme.desk.clock.travel_to("2026-03-11T09:15")
    await acme.desk.do(change_plan, acme.subscription_id, "large")
    acme.desk.clock.travel_to("2026-03-11T18:00")
    await acme.desk.do(change_plan, acme.subscription_id, "small")
    # By days the 11th belongs to what is held at its end: 30 x (10 + 21)/31.
    assert await acme.bill("2026-03-15") == {"small": "30.00"}


async def test_a_downgrade_at_the_periods_end() -> None:
    acme = await signed_up("large", "2026-03-01")
    acme.desk.clock.travel_to("2026-03-11T09:15")
    await acme.desk.do(change_plan, acme.subscription_id, "small", when=END)
    assert await acme.bill("2026-03-15") == {"large": "93.00"}
    assert await acme.bill("2026-04-15") == {"small": "30.00"}


async def test_a_pause_over_the_end_of_a_year() -> None:
    acme = await signed_up("small", "2026-10-01")
    acme.desk.clock.travel_to("2026-12-22")
    await acme.desk.do(pause_subscription, acme.subscription_id, until=at("2027-01-11"))
    assert await acme.bill("2026-11-15") == {"small": "30.00"}
    # 21 days of December before the pause: 30 x 21/31 = 20.322...
    assert await acme.bill("2026-12-15") == {"small": "20.32"}
    # 21 days of January after it.
    assert await acme.bill("2027-01-15") == {"small": "20.32"}
    assert await acme.bill("2027-02-15") == {"small": "30.00"}


async def test_a_month_that_is_paused_from_end_to_end_costs_nothing() -> None:
    acme = await signed_up("small", "2026-10-01")
    await acme.desk.do(pause_subscription, acme.subscription_id, when=at("2026-11-15"), until=at("2027-02-15"))
    assert await acme.bill("2026-12-15") == {}


async def test_a_year_from_a_leap_day() -> None:
    desk = await memory_desk(ACME)
    await desk.sell(plan("yearly", flat("366", recurring={"interval": "year"}, bill="in_arrears")))
    desk.clock.travel_to("2024-02-29")
    year = Ledger(
        desk,
        await desk.subscribe("yearly", started_at=at("2024-02-29"), interval=Interval.YEAR, anchor=ANCHOR_AT_START),
    )
    assert await year.starts("2024-03-01", 5) == [
        "2024-02-29T00:00", "2025-02-28T00:00", "2026-02-28T00:00", "2027-02-28T00:00", "2028-02-29T00:00",
    ]  # fmt: skip
    assert await year.bill("2024-06-01") == {"yearly": "366.00"}
    # From 29 February 2024 to 28 February 2025 are 365 days; 146 of them until 24 July: 366 x 146/365 = 146.40.
    desk.clock.travel_to("2024-07-24")
    await desk.do(cancel_subscription, year.subscription_id)
    assert await year.bill("2024-06-01") == {"yearly": "146.40"}


async def test_a_month_from_the_31st() -> None:
    acme = await signed_up("small", "2026-01-31", anchor=ANCHOR_AT_START)
    assert await acme.starts("2026-01-31", 4) == [
        "2026-01-31T00:00", "2026-02-28T00:00", "2026-03-31T00:00", "2026-04-30T00:00",
    ]  # fmt: skip
    acme.desk.clock.travel_to("2026-03-14")
    await acme.desk.do(change_plan, acme.subscription_id, "large")
    # The period from 28 February to 31 March has 31 days, 14 of them before the change: 30 x 14/31, 93 x 17/31.
    assert await acme.bill("2026-03-01") == {"small": "13.55", "large": "51.00"}


@pytest.mark.parametrize(
    ("convention", "small", "large"),
    [
        # Berlin's March 2026 has 31 days, 28 of them before the 29th, on which the clocks go forward.
        (Convention.DAYS, "27.10", "9.00"),
        # It has 743 hours; until 10:00 UTC (12:00) on the 29th 683 are over: 30 x 683/743, 93 x 60/743.
        (Convention.SECONDS, "27.58", "7.51"),
        # 28 of 30 days: 30 x 28/30, 93 x 2/30.
        (Convention.THIRTY_DAY_MONTH, "28.00", "6.20"),
        # Whoever holds the period's start pays.
        (Convention.NONE, "30.00", None),
    ],
)
async def test_an_upgrade_on_the_day_the_clocks_go_forward(
    convention: Convention, small: str, large: str | None
) -> None:
    berlin = replace(ACME, time_zone="Europe/Berlin")
    acme = await signed_up("small", "2026-02-28T23:00", berlin, convention=convention)
    # 1 March begins in Berlin at 23:00 UTC on 28 February, 1 April at 22:00 UTC on 31 March.
    assert await acme.starts("2026-03-05", 2) == ["2026-02-28T23:00", "2026-03-31T22:00"]
    acme.desk.clock.travel_to("2026-03-29T10:00")
    await acme.desk.do(change_plan, acme.subscription_id, "large")
    billed = await acme.bill("2026-03-15")
    assert billed == {"small": small} | ({"large": large} if large else {})


async def test_seats_up_and_down() -> None:
    acme = await signed_up("team", "2026-04-01", quantity=Decimal(5))
    acme.desk.clock.travel_to("2026-04-11")
    await acme.desk.do(change_quantity, acme.subscription_id, Decimal(8))
    acme.desk.clock.travel_to("2026-04-21")
    await acme.desk.do(change_quantity, acme.subscription_id, Decimal(3))
    # Ten days each at 12 a seat: 60 x 10/30 = 20, 96 x 10/30 = 32, 36 x 10/30 = 12.
    assert await acme.bill("2026-04-15") == {"team": "64.00"}
    assert await acme.bill("2026-05-15") == {"team": "36.00"}


async def test_a_trial_becomes_a_paid_subscription() -> None:
    acme = await signed_up("small", "2026-04-10T14:20", trial_days=14)
    # The trial is over with the 23rd; the 24th to the 30th are paid: 30 x 7/30.
    assert await acme.bill("2026-04-15") == {"small": "7.00"}
    assert await acme.bill("2026-05-15") == {"small": "30.00"}


async def test_a_trial_that_is_left_costs_nothing() -> None:
    acme = await signed_up("small", "2026-04-10T14:20", trial_days=14)
    await acme.desk.do(cancel_subscription, acme.subscription_id, when=END)
    assert await acme.bill("2026-04-15") == {}
    assert await acme.bill("2026-05-15") == {}


async def test_who_comes_back_pays_for_what_lies_between_end_and_return_nothing() -> None:
    acme = await signed_up("small", "2026-04-01")
    acme.desk.clock.travel_to("2026-04-11")
    await acme.desk.do(cancel_subscription, acme.subscription_id)
    # 30 x 10/30.
    assert await acme.bill("2026-04-15") == {"small": "10.00"}
    acme.desk.clock.travel_to("2026-04-25")
    await acme.desk.do(reactivate_subscription, acme.subscription_id)
    # And the six days from the 25th to the 30th: 30 x 16/30.
    assert await acme.bill("2026-04-15") == {"small": "16.00"}


async def test_an_end_taken_back_in_time_leaves_the_bill_as_it_was() -> None:
    acme = await signed_up("small", "2026-04-01")
    await acme.desk.do(cancel_subscription, acme.subscription_id, when=END)
    assert await acme.bill("2026-05-15") == {}
    acme.desk.clock.travel_to("2026-04-29")
    await acme.desk.do(reactivate_subscription, acme.subscription_id)
    assert await acme.bill("2026-05-15") == {"small": "30.00"}


async def test_an_add_on_for_half_a_month() -> None:
    acme = await signed_up("small", "2026-04-01")
    acme.desk.clock.travel_to("2026-04-06")
    await acme.desk.do(add_add_on, acme.subscription_id, "support", quantity=Decimal(2))
    acme.desk.clock.travel_to("2026-04-21")
    await acme.desk.do(remove_add_on, acme.subscription_id, "support")
    # A flat price twice for 15 of 30 days: 15.50 x 2 x 15/30.
    assert await acme.bill("2026-04-15") == {"small": "30.00", "support": "15.50"}


async def test_a_quarter_by_thirty_day_months() -> None:
    desk = await memory_desk(ACME)
    await desk.sell(plan("quarterly", flat("90", recurring={"interval": "quarter"}, bill="in_arrears")))
    desk.clock.travel_to("2026-01-31")
    quarter = Ledger(
        desk,
        await desk.subscribe(
            "quarterly", started_at=at("2026-01-31"), interval=Interval.QUARTER, anchor=date(2026, 1, 31),
            convention=Convention.THIRTY_DAY_MONTH,
        ),
    )  # fmt: skip
    desk.clock.travel_to("2026-03-15")
    await desk.do(cancel_subscription, quarter.subscription_id)
    # From 31 January: one month to 28 February and 15 days to 15 March, 45 of 90: one a day.
    assert await quarter.bill("2026-02-01") == {"quarterly": "45.00"}
