"""A real LLM trace from Kafka to paid invoices, the meter worker killed three times on the way: exact to the token.

What must come out was computed apart (`shared/data/expected`), the invoices' sums by hand.
"""

from __future__ import annotations

import asyncio
import json
import random
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from runtime import stack
from runtime.clickhouse import connect_clickhouse
from runtime.demo.azure_trace import read_azure_trace
from runtime.demo.feeders import FeedProgress
from runtime.demo.fleet import Fleet
from runtime.demo.observe import read_metric
from runtime.demo.report import summarize
from runtime.demo.run_demo import Demo, DemoOptions
from runtime.settings import load_settings
from tests.shared_data import SHARED_DATA

SEED = 7
KILLS = 3
METERS = {"llm_input_tokens": "input_tokens", "llm_output_tokens": "output_tokens"}

# Shared tier, tokens without a model: 0.002 per 1,000 input, 0.004 per 1,000 output, each line rounded half up.
INVOICED = {
    "t0": "5.45",  # 2,657,791 x 0.000002 = 5.315582 -> 5.32; 32,461 x 0.000004 = 0.129844 -> 0.13
    "t1": "5.32",  # 2,587,661 x 0.000002 = 5.175322 -> 5.18; 34,367 x 0.000004 = 0.137468 -> 0.14
    "t2": "5.25",  # 2,555,351 x 0.000002 = 5.110702 -> 5.11; 34,327 x 0.000004 = 0.137308 -> 0.14
    "t3": "5.31",  # 2,585,062 x 0.000002 = 5.170124 -> 5.17; 36,179 x 0.000004 = 0.144716 -> 0.14
    "t4": "5.33",  # 2,593,291 x 0.000002 = 5.186582 -> 5.19; 35,551 x 0.000004 = 0.142204 -> 0.14
    "t5": "5.25",  # 2,557,364 x 0.000002 = 5.114728 -> 5.11; 36,169 x 0.000004 = 0.144676 -> 0.14
    "t6": "5.20",  # 2,523,454 x 0.000002 = 5.046908 -> 5.05; 36,842 x 0.000004 = 0.147368 -> 0.15
}


async def kill_meter_three_times(fleet: Fleet, progress: FeedProgress) -> None:
    """kill -9 the meter worker at three random moments of its counting, and start it anew each time."""
    rng = random.Random(SEED)
    for kill in range(KILLS):
        while not await counted_by(fleet.members["meter"].metrics_port):
            await asyncio.sleep(0.05)
        await asyncio.sleep(rng.random())
        assert not progress.finished, f"all was sent before kill {kill + 1}: feed more slowly"
        fleet.kill("meter")
        await asyncio.sleep(0.2)
        fleet.start("meter", "worker", "meter")


async def counted_by(port: int) -> float:
    """Return how many events the worker behind this metrics port has accepted."""
    return (await read_metric(port, "meterbook_events_total", "outcome")).get("accepted", 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run the trace once, under fire, and leave the engines up for questions."""
    folder = tmp_path_factory.mktemp("trace")
    print(f"seed {SEED}")
    options = DemoOptions(
        home=folder / "home",
        output=folder / "output",
        seed=SEED,
        duplicates_percent=5,
        api_events=500,
        events_per_second=250,
        keep=True,
        extra_environment={"METERBOOK_EVENT_MAX_AGE_DAYS": "20000"},
        fault=kill_meter_three_times,
    )
    usage = read_azure_trace(SHARED_DATA / "llm/azure_llm_2023_code.csv.gz")
    try:
        outcome = asyncio.run(Demo(usage, options, Console(width=120)).run())
        yield outcome, load_settings(home=options.home)
    finally:
        stack.down(options.home)


@pytest.fixture(scope="module")
def expected():
    return json.loads((SHARED_DATA / "expected/azure_llm_2023_code.json").read_text())


@pytest.mark.e2e
@pytest.mark.shared_data
@pytest.mark.timeout(400)
class TestTraceUnderFire:
    def test_every_check_of_the_run_itself_passed(self, run):
        outcome, _ = run
        assert {check.name: check.detail for check in outcome.checks if not check.passed} == {}
        assert len(outcome.checks) >= 9

    def test_the_worker_was_really_killed_and_came_back(self, run):
        outcome, _ = run
        log = (outcome.home / "logs/meter.log").read_text()
        assert log.count('"worker.starting"') == KILLS + 1
        assert log.count('"partition.taken_over"') >= KILLS + 4

    def test_clickhouse_and_redis_hold_each_tenants_hours_to_the_token(self, run, expected):
        outcome, _ = run
        truth = {
            (tenant, meter, hour[:13]): Decimal(totals[column])
            for tenant, hours in expected["by_tenant_hour"].items()
            for hour, totals in hours.items()
            for meter, column in METERS.items()
        }
        assert outcome.warehouse == truth
        assert dict(outcome.live) == truth

    def test_clickhouse_holds_each_minute_to_the_token(self, run, expected):
        _, settings = run
        client = connect_clickhouse(settings)
        rows = client.query(
            "SELECT formatDateTime(window_start, '%Y-%m-%dT%H:%i:00Z') AS minute, meter, sum(quantity), sum(events)"
            " FROM usage_rollups FINAL GROUP BY minute, meter"
        ).result_rows
        found = {(minute, meter): (quantity, events) for minute, meter, quantity, events in rows}
        truth = {
            (minute, meter): (Decimal(totals[column]), totals["events"])
            for minute, totals in expected["by_minute"].items()
            for meter, column in METERS.items()
        }
        assert found == truth

    def test_no_event_was_lost_or_doubled(self, run, expected):
        outcome, settings = run
        client = connect_clickhouse(settings)
        ids = [row[0] for row in client.query("SELECT id FROM usage_events FINAL ORDER BY id").result_rows]
        assert ids == [f"azcode-{row:06}" for row in range(expected["totals"]["events"])]
        assert outcome.plan.duplicates == expected["totals"]["events"] * 5 // 100

    def test_invoices_equal_the_sums_worked_out_by_hand(self, run):
        outcome, _ = run
        assert {i["tenant_id"]: str(i["total"]) for i in outcome.invoices} == INVOICED
        assert all(i["status"] == "paid" for i in outcome.invoices)

    def test_the_summary_for_programs_agrees_with_the_expected_totals(self, run, expected):
        outcome, _ = run
        summary = summarize(outcome)
        assert summary["passed"] is True
        for tenant, totals in expected["by_tenant"].items():
            for meter, column in METERS.items():
                found = summary["tenants"][tenant]["meters"][meter]
                assert found["clickhouse"] == found["redis"] == found["invoiced"] == str(totals[column])
                assert all(h["clickhouse"] == h["redis"] == h["invoiced"] for h in found["hours"].values())

    def test_each_invoice_is_a_pdf_on_disk(self, run):
        outcome, _ = run
        for invoice in outcome.invoices:
            assert Path(invoice["location"]).read_bytes().startswith(b"%PDF-")
