"""A Redis that restarts, is flushed or wiped, is full, or is slow. It is a view of the truth, never the truth."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from decimal import Decimal
from typing import Any

import httpx2
import redis

from tests.chaos import observed
from tests.chaos.row import Row, compare, differences
from tests.chaos.scenarios.registry import row
from tests.chaos.traffic import RUN
from tests.standins.slack_server import SlackStandIn

METER = "chaos_runs"


@row("F9", "Redis restarted, flushed, wiped: healed, never answering wrongly, alerts told once")
async def redis_loses_everything(row: Row) -> None:
    base = await row.api()
    slack = SlackStandIn()
    await slack.start()
    alerts = row.fleet.start("alerts", METERBOOK_SLACK_WEBHOOK_URL=slack.url)
    tenants = row.new_tenants(9)
    for tenant in tenants[:4]:
        row.world.limit(tenant, METER, 20)
    [probe] = row.new_tenants(1)
    traffic = row.traffic(tenants, corrections=0.0)
    row.world.limit(probe, METER, 1_000_000)
    await row.send([traffic.single(traffic.event(probe, kind=RUN)) for _ in range(50)])
    await row.caught_up()
    answers: Counter[Any] = Counter()
    asking = asyncio.create_task(_ask(base, probe, answers))
    for lose in [_flush, _restart, _wipe] * row.dose(1, 3):
        async with row.load(row.dose(700, 20_000), traffic=traffic):
            await asyncio.sleep(0.4)
            await asyncio.to_thread(lose, row)
            row.fault()
    await row.caught_up()
    # Nothing is written any more that could heal it by the way.
    _flush(row)
    row.fault()
    row.healed()
    await row.settle()
    row.must(not asking.done(), "asking for quotas came to an end")
    asking.cancel()
    wrong = {answer: times for answer, times in answers.items() if answer not in ((True,), (False, "50"), ("down",))}
    row.must(not wrong, f"the API said of a quota of 50: {wrong}")
    row.note(f"a quota was asked {sum(answers.values())} times meanwhile, {answers[(True,)]} answers said stale")
    await _alerts_once(row, slack, tenants[:4])
    row.fleet.terminate(alerts)
    await slack.stop()


async def _ask(base: str, tenant: str, answers: Counter[Any]) -> None:
    """Ask for a quota again and again: it may be stale and say so, or down, but not wrong."""
    async with httpx2.AsyncClient(timeout=5) as client:
        while True:
            try:
                url = f"{base}/api/v1/usage/current?tenant_id={tenant}&meter={METER}"
                response = await client.get(url)
                told = response.json()
                if response.status_code == 200:
                    answers[(True,) if told["stale"] else (False, told["used"])] += 1
                else:
                    answers[("down",) if response.status_code == 503 else (response.status_code,)] += 1
            except httpx2.HTTPError:
                answers[("down",)] += 1
            await asyncio.sleep(0.05)


async def _alerts_once(row: Row, slack: SlackStandIn, limited: list[str]) -> None:
    """Compare the messages with the thresholds that the oracle sees crossed."""
    periods = row.expected().periods
    wanted: Counter[tuple[str, int]] = Counter()
    month = f"{observed.now():%Y-%m}"
    for tenant in limited:
        used = periods.get((tenant, METER, month), (Decimal(), 0))[0]
        crossed = [percent for percent in (80, 100) if used * 100 >= 20 * percent]
        wanted.update((tenant, number) for number in range(len(crossed)))

    def told() -> Counter[tuple[str, int]]:
        # Whoever had crossed 100 % when the 80 % were told reads of both as exhausted; the alert's id tells them apart.
        ids = {tenant: set[str]() for tenant in limited}
        found: Counter[tuple[str, int]] = Counter()
        for message in slack.messages:
            text = str(message["payload"])
            alert_id = text.rpartition(" · ")[2].partition("'")[0]
            for tenant in limited:
                if f"\n{tenant}'" in text or f"\\n{tenant}'" in text:
                    again = alert_id in ids[tenant]
                    found[tenant, len(ids[tenant]) if not again else -1] += 1
                    ids[tenant].add(alert_id)
        return found

    async def all_told() -> bool:
        return sum(told().values()) >= sum(wanted.values())

    await row.wait_for(all_told, "every alert to be told", 30)
    row.verdict.wrong += differences("alerts", wanted, told())
    row.note(f"{len(wanted)} alerts were due, {len(slack.messages)} were told")


@row("F10", "Redis full (noeviction) and slow: ClickHouse goes on, Redis catches up")
async def redis_full_and_slow(row: Row) -> None:
    await row.api()
    traffic = row.traffic(corrections=0.02)
    seconds = row.dose(3, 30)
    normal = await _post_p99(row, traffic)
    with redis.Redis.from_url(row.world.urls.redis) as client:
        client.config_set("maxmemory", "1")
    row.fault()
    await _clickhouse_goes_on(row, traffic, seconds, "Redis was full")
    full = await _post_p99(row, traffic)
    with redis.Redis.from_url(row.world.urls.redis) as client:
        client.config_set("maxmemory", "0")
    row.world.proxies["redis"].set("delay", seconds=2.0)
    row.fault()
    await _clickhouse_goes_on(row, traffic, seconds, "Redis was slow")
    slow = await _post_p99(row, traffic)
    row.world.proxies["redis"].set("pass")
    row.healed()
    await row.settle()
    row.note(f"99 of 100 events were taken within {normal:.0f} ms before, {full:.0f} ms full, {slow:.0f} ms slow")


async def _clickhouse_goes_on(row: Row, traffic: Any, seconds: float, when: str) -> None:
    async with row.load(int(seconds * row.dose(200, 1_000)), traffic=traffic):
        await asyncio.sleep(seconds)
    await row.caught_up("meter", "warehouse")
    found = await asyncio.to_thread(compare, row.expected(), row.world, row.tenants, redis=False)
    row.must(not found.wrong, f"ClickHouse did not go on while {when}: {found.wrong}")


async def _post_p99(row: Row, traffic: Any) -> float:
    """Return the 99th percentile of single posts in milliseconds."""
    took = []
    for _ in range(row.dose(20, 200)):
        began = time.monotonic()
        await row.post([traffic.event(traffic.rng.choice(traffic.tenants))])
        took.append(time.monotonic() - began)
    return sorted(took)[int(len(took) * 0.99) - 1] * 1_000


def _flush(row: Row) -> None:
    with redis.Redis.from_url(row.world.urls.redis) as client:
        client.flushall()


def _restart(row: Row) -> None:
    row.world.engines["redis"].kill()
    row.world.engines["redis"].start()


def _wipe(row: Row) -> None:
    engine = row.world.engines["redis"]
    engine.kill()
    shutil.rmtree(engine.data)
    engine.start()
