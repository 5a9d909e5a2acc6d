"""Money thresholds: reached once per arming, whatever is replayed, by however many workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.adapters.clickhouse_costs import ClickHouseCosts
from alerts.adapters.postgres_spend import PostgresSpendStates
from alerts.domain.spend import ChargeCost, SpendKey, SpendState, add_up, judge_spend
from alerts.spend_consumer import run
from alerts.watch_spend import watch_spend
from core.alert_rules import AlertRule, AlertRules
from core.clock import ManualClock
from core.messages import RunningCost, encode_message
from core.period import month_key
from core.topics import USAGE_RATED
from rating.adapters.clickhouse import ClickHouseRating
from rating.ports import CostRow
from runtime.alert_rules import put_alert_rule
from runtime.postgres import Pool
from runtime.settings import Settings
from runtime.topic_consumer import create_producer

NOW = datetime(2026, 10, 20, 12, 0, tzinfo=UTC)
amounts = st.lists(st.integers(0, 20), min_size=1, max_size=30)

# The rule itself


@given(amounts)
def test_alerts_are_the_upward_crossings_and_each_has_its_own_arming(found: list[int]) -> None:
    state, armings = None, []
    for version, amount in enumerate(found):
        judged = judge_spend(state, Decimal(amount), version, Decimal(10))
        state = judged.state
        if judged.is_crossing:
            assert state is not None
            armings.append(state.arming)
    above = [False, *(amount >= 10 for amount in found)]
    assert len(armings) == sum(now and not before for before, now in pairwise(above))
    assert armings == list(range(len(armings)))


@given(amounts, st.data())
def test_judging_an_old_cost_again_changes_nothing(found: list[int], data: st.DataObject) -> None:
    state = None
    for version, amount in enumerate(found):
        state = judge_spend(state, Decimal(amount), version, Decimal(10)).state
    if state is None:
        return
    replayed = data.draw(st.integers(0, len(found) - 1))
    judged = judge_spend(state, Decimal(found[replayed]), replayed, Decimal(10))
    assert not judged.is_crossing
    if replayed < state.version:
        assert judged.state == state


def test_scopes_add_up_what_is_theirs() -> None:
    costs = [
        ChargeCost("base", "", Decimal(99), "USD", 1),
        ChargeCost("input", "llm", Decimal("1.25"), "USD", 1),
        ChargeCost("output", "llm", Decimal("2.5"), "USD", 1),
        ChargeCost("output", "llm", Decimal(70), "EUR", 1),
    ]
    expected = {"total": "102.75", "meter:llm": "3.75", "charge:base": "99", "charge:output": "2.5", "meter:none": "0"}
    assert {scope: str(add_up(SpendKey(scope, "USD", Decimal(1)), costs)) for scope in expected} == expected


# On PostgreSQL


class MemoryCosts:
    """Costs as the test says."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], list[ChargeCost]] = {}

    def put(self, tenant: str, amount: str, *, period: str = "2026-10", version: int | None = None) -> None:
        cost = ChargeCost("usage", "api_requests", Decimal(amount), "USD", version or time.monotonic_ns())
        self.found[(tenant, period)] = [cost]

    async def costs(self, months: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], Sequence[ChargeCost]]:
        return {month: self.found[month] for month in months if month in self.found}

    async def months_with_costs(self, periods: Collection[str]) -> Sequence[tuple[str, str]]:
        return [month for month in self.found if month[1] in periods]


class Desk:
    def __init__(self, pool: Pool) -> None:
        self.pool, self.costs, self.states = pool, MemoryCosts(), PostgresSpendStates(pool)
        self.tenant = f"tenant-{uuid4().hex[:12]}"
        self.rules = AlertRules.of([AlertRule("hundred", "money", Decimal(100), currency="USD")], ())

    async def watch(self, period: str = "2026-10") -> int:
        return await watch_spend(
            [(self.tenant, period)],
            rules=self.rules,
            costs=self.costs,
            states=self.states,
            channels=("slack", "email"),
            clock=ManualClock(NOW),
        )

    async def alerts(self) -> list[dict[str, Any]]:
        async with self.pool.connection() as connection:
            return await (
                await connection.execute(
                    "SELECT a.*, count(channel) AS channels FROM alerts a LEFT JOIN alert_deliveries USING (alert_id)"
                    " WHERE a.tenant_id = %s GROUP BY a.alert_id ORDER BY (a.payload ->> 'arming')::int",
                    (self.tenant,),
                )
            ).fetchall()


@pytest.fixture
async def desk(pool: Pool) -> Desk:
    return Desk(pool)


@pytest.mark.integration
async def test_a_threshold_is_told_once_and_again_only_after_a_correction_below_it(desk: Desk) -> None:
    story = [("99.99", 0), ("100", 1), ("140", 0), ("140", 0), ("99", 0), ("120", 1), ("50", 0), ("100.01", 1)]
    for amount, crossings in story:
        desk.costs.put(desk.tenant, amount)
        assert await desk.watch() == crossings, amount
        assert await desk.watch() == 0, amount
    found = await desk.alerts()
    assert [alert["payload"]["arming"] for alert in found] == [0, 1, 2]
    assert [alert["payload"]["amount"] for alert in found] == ["100", "120", "100.01"]
    assert {alert["channels"] for alert in found} == {2}
    assert found[0]["headline"] == f"{desk.tenant}'s running cost has reached 100.00 USD"


@pytest.mark.integration
async def test_a_new_period_and_another_threshold_rearm(desk: Desk) -> None:
    desk.costs.put(desk.tenant, "150")
    desk.costs.put(desk.tenant, "150", period="2026-11")
    assert (await desk.watch(), await desk.watch("2026-11")) == (1, 1)
    desk.rules = AlertRules.of([AlertRule("higher", "money", Decimal(120), currency="USD")], ())
    assert await desk.watch() == 1
    desk.rules = AlertRules.of([AlertRule("hundred", "money", Decimal(100), currency="USD")], ())
    assert await desk.watch() == 0


@pytest.mark.integration
async def test_a_cost_read_before_a_newer_one_was_judged_changes_nothing(desk: Desk) -> None:
    desk.costs.put(desk.tenant, "150", version=20)
    assert await desk.watch() == 1
    desk.costs.put(desk.tenant, "10", version=10)
    assert await desk.watch() == 0
    desk.costs.put(desk.tenant, "150", version=30)
    assert await desk.watch() == 0
    assert len(await desk.alerts()) == 1


@pytest.mark.integration
async def test_many_workers_at_once_tell_once(desk: Desk) -> None:
    desk.costs.put(desk.tenant, "150")
    assert sum(await asyncio.gather(*(desk.watch() for _ in range(6)))) == 1
    assert len(await desk.alerts()) == 1


@pytest.mark.integration
async def test_a_crash_between_state_and_alert_leaves_neither(desk: Desk) -> None:
    key = SpendKey("total", "USD", Decimal(100))

    async def reach_and_die() -> None:
        async with desk.states.hold(desk.tenant, "2026-10") as held:
            await held.save(key, SpendState(True, 0, Decimal(150), 1), NOW)
            raise RuntimeError("the process is killed here")

    with pytest.raises(RuntimeError):
        await reach_and_die()
    assert await desk.states.read([(desk.tenant, "2026-10")]) == {}
    desk.costs.put(desk.tenant, "150")
    assert await desk.watch() == 1


# The worker, from Kafka and ClickHouse


@pytest.fixture
async def tenant(pool: Pool) -> AsyncIterator[str]:
    name = f"spender-{uuid4().hex[:12]}"
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
            " VALUES (%s, 'S', 's@s.invalid', 'US', 'USD', now())",
            (name,),
        )
        rule = AlertRule(f"fifty-{name}", "money", Decimal(50), tenant_id=name, currency="USD", channels=("slack",))
        await put_alert_rule(connection, rule, NOW)
    yield name
    async with pool.connection() as connection:
        await connection.execute("DELETE FROM alert_rules WHERE tenant_id = %s", (name,))


def cost_row(tenant: str, charge: str, amount: str, period: str) -> CostRow:
    now = datetime.now(UTC)
    version = int(now.timestamp() * 1_000)
    return CostRow(tenant, period, "plan", charge, "api_requests", Decimal(1), Decimal(amount), "USD", now, version)


@pytest.mark.integration
async def test_from_the_topic_to_an_alert_and_never_twice(settings: Settings, pool: Pool, tenant: str) -> None:
    period, rating, costs = month_key(datetime.now(UTC)), ClickHouseRating(settings), ClickHouseCosts(settings)
    producer = create_producer(settings)
    await producer.start()

    async def announce(*rows: CostRow) -> None:
        await rating.put(rows)
        for row in rows:
            message = RunningCost(
                tenant_id=row.tenant_id,
                plan_id=row.plan_id,
                charge_id=row.charge_id,
                meter=row.meter_id,
                period=row.period,
                quantity="1",
                amount=str(row.amount),
                currency="USD",
                version=row.version,
                rated_at="2026-10-20T12:00:00Z",
            )
            await producer.send_and_wait(USAGE_RATED.name, value=encode_message(message), key=tenant.encode())

    async def told(count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(40):
            while True:
                assert not worker.done()
                async with pool.connection() as connection:
                    rows = await (
                        await connection.execute("SELECT payload FROM alerts WHERE tenant_id = %s", (tenant,))
                    ).fetchall()
                if len(rows) >= count:
                    return [row["payload"] for row in rows]
                await asyncio.sleep(0.1)

    stop = asyncio.Event()
    worker = asyncio.create_task(run(settings, stop))
    try:
        await producer.send_and_wait(USAGE_RATED.name, value=b"no cost at all", key=tenant.encode())
        await announce(cost_row(tenant, "base", "30", period))
        await announce(cost_row(tenant, "usage", "15", period))
        assert await costs.months_with_costs([period, "1999-01"]) != []
        await announce(cost_row(tenant, "usage", "25", period))
        [payload] = await told(1)
        assert (payload["scope"], payload["threshold"], payload["amount"]) == ("total", "50", "55")
        await announce(cost_row(tenant, "usage", "10", period))
        await _until_known(pool, tenant, reached=False)
        await announce(cost_row(tenant, "usage", "28", period))
        assert sorted(payload["amount"] for payload in await told(2)) == ["55", "58"]
    finally:
        stop.set()
        await worker
        await producer.stop()
        await rating.close()
        await costs.close()
    async with pool.connection() as connection:
        rows = await (
            await connection.execute("SELECT DISTINCT channel FROM alert_deliveries WHERE tenant_id = %s", (tenant,))
        ).fetchall()
    assert [row["channel"] for row in rows] == ["slack"]


async def _until_known(pool: Pool, tenant: str, *, reached: bool) -> None:
    async with asyncio.timeout(40):
        while True:
            async with pool.connection() as connection:
                row = await (
                    await connection.execute("SELECT reached FROM spend_alert_states WHERE tenant_id = %s", (tenant,))
                ).fetchone()
            if row is not None and row["reached"] is reached:
                return
            await asyncio.sleep(0.1)
