"""Quota limits over time: they follow the phases of all of a tenant's subscriptions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from subscriptions.cancel_subscription import cancel_subscription
from subscriptions.change_plan import change_plan
from subscriptions.domain.proposals import Moment
from tests.subscriptions.lifecycle import ACME, Desk, memory_desk

END = Moment.PERIOD_END


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
async def memory() -> Desk:
    return await memory_desk(ACME)


async def test_limits_follow_the_phases_and_outlive_the_end(memory: Desk) -> None:
    subscription = await memory.subscribe("small")
    memory.clock.travel_to("2026-10-11")
    await memory.do(change_plan, subscription, "large")
    await memory.do(change_plan, subscription, "small", when=END)
    await memory.do(cancel_subscription, subscription, when=at("2026-12-01"))
    async with memory.store() as store:
        found = store.limits[memory.tenant.tenant_id]
    assert [(str(one.limit.limit), one.limit.hard, one.start, one.end) for one in found] == [
        ("1000", True, None, at("2026-10-11")),
        ("50000", False, at("2026-10-11"), at("2026-11-01")),
        ("1000", True, at("2026-11-01"), None),
    ]


async def test_of_several_limits_the_greatest_counts(memory: Desk) -> None:
    await memory.subscribe("small")
    await memory.subscribe("large", started_at=at("2026-11-01"))
    async with memory.store() as store:
        found = store.limits[memory.tenant.tenant_id]
    assert [(str(one.limit.limit), one.start) for one in found] == [("1000", None), ("50000", at("2026-11-01"))]
