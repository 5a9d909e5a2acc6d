"""What only the database can show: requests at once, rows that only grow, views of this moment."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from rating.domain.timeline import State
from runtime.settings import Settings
from subscriptions.cancel_subscription import cancel_subscription
from subscriptions.change_plan import change_plan
from subscriptions.change_quantity import change_quantity
from subscriptions.record_changes import Asked
from tests.subscriptions.lifecycle import ACME, BY, real_desk

pytestmark = pytest.mark.integration


async def test_of_two_at_once_that_price_a_meter_one_is_refused(settings: Settings) -> None:
    async with real_desk(settings, ACME) as desk:
        outcomes = await asyncio.gather(
            *(desk.subscribe(name) for name in ("calls", "more-calls", "calls", "more-calls")), return_exceptions=True
        )
        assert sorted(isinstance(one, str) for one in outcomes) == [False, False, False, True], outcomes
        assert len(await desk.everything()) == 1


async def test_of_one_request_sent_ten_times_at_once_one_is_done(settings: Settings) -> None:
    async with real_desk(settings, ACME) as desk:
        subscription = await desk.subscribe("team")
        keyed = Asked("ann", key="order-7")
        outcomes = await asyncio.gather(
            *(desk.do(change_quantity, subscription, Decimal(5), asked=keyed) for _ in range(10))
        )
        assert [one.is_new for one in outcomes].count(True) == 1
        assert len((await desk.everything())[0].changes) == 1


async def test_changes_are_only_ever_added(settings: Settings) -> None:
    async with real_desk(settings, ACME) as desk:
        subscription = await desk.subscribe("team")
        await desk.do(change_quantity, subscription, Decimal(5))
    with psycopg.connect(settings.postgres) as connection:
        for statement in ("UPDATE subscription_changes SET reason = 'x'", "DELETE FROM subscription_changes"):
            with pytest.raises(psycopg.errors.RaiseException), connection.transaction():
                connection.execute(statement.encode())


async def test_the_limits_and_plans_of_this_moment_are_those_of_its_phase(settings: Settings) -> None:
    async with real_desk(settings, ACME) as desk:
        now = datetime.now(UTC)
        desk.clock.travel_to(now - timedelta(days=20))
        subscription = await desk.subscribe("small", add_ons=[("support", Decimal(1))])
        later = await desk.subscribe("compute", started_at=now + timedelta(days=3))
        await desk.do(change_plan, subscription, "large", when=now - timedelta(days=10))
        await desk.do(change_plan, subscription, "small", when=now + timedelta(days=10))
        tenant = desk.tenant.tenant_id
        with psycopg.connect(settings.postgres, autocommit=True) as connection:

            def rows(query: str) -> list[Any]:
                return sorted(connection.execute(query.encode(), (tenant,)).fetchall())

            limits = "SELECT meter_id, limit_quantity::text FROM quota_limits WHERE tenant_id = %s"
            plans = "SELECT plan_id, plan_version, subscription_id FROM held_plans WHERE tenant_id = %s"
            assert rows(limits) == [("api_requests", "50000")]
            assert rows(plans) == [("large", 1, subscription), ("support", 1, subscription)]
            await desk.do(
                cancel_subscription,
                subscription,
                when=now - timedelta(days=1),
                asked=replace(BY, replace_scheduled=True),
            )
            assert rows(plans) == []
            assert rows(limits) == [("api_requests", "50000")]
            ends = "SELECT subscription_id, ended_at IS NULL FROM subscriptions WHERE tenant_id = %s"
            assert rows(ends) == sorted([(subscription, False), (later, True)])


async def test_a_subscription_from_before_there_were_changes_can_be_changed(settings: Settings) -> None:
    async with real_desk(settings, ACME) as desk:
        with psycopg.connect(settings.postgres) as connection:
            connection.execute(
                "INSERT INTO subscriptions (subscription_id, tenant_id, plan_id, plan_version, started_at)"
                " VALUES (%s, %s, 'small', 1, '2026-09-05')",
                (f"old-{desk.tenant.tenant_id}", desk.tenant.tenant_id),
            )
        [old] = await desk.everything()
        assert old.timeline().cycle.anchor == date(2026, 9, 1)
        await desk.do(change_plan, old.subscription_id, "large")
        assert [phase.held.state for phase in (await desk.timeline(old.subscription_id)).phases] == [State.ACTIVE] * 2
