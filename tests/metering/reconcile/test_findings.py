"""What is known so far, in PostgreSQL; and what Prometheus is shown of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY as METRICS

from core.errors import UnavailableError
from metering.dead_letters.ports import CodeCount
from metering.reconcile.adapters.postgres_findings import PostgresFindings
from metering.reconcile.domain.gap import Cell, Gap, Subject
from metering.reconcile.metrics import observe_letters, observe_run
from metering.reconcile.ports import Outcomes, RunSummary, StoredGap, TrailMark
from metering.reconcile.reconcile import Report
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings
from tests.metering.reconcile.memory import side

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
async def findings(settings: Settings) -> AsyncIterator[PostgresFindings]:
    async with create_pool(settings, max_size=1) as pool:
        async with pool.connection() as connection:
            for table in ("progress", "pending", "gaps", "runs"):
                await connection.execute(f"DELETE FROM reconciliation_{table}".encode())
        yield PostgresFindings(pool)


def gap(found: str = "2.5", meter: str = "m") -> Gap:
    subject = Subject("rollups", "acme", meter, ("eu", "it's"), "2026-11-20T11", 3)
    return Gap(subject, side("1.000000000001", 4), side(found, 5))


@pytest.mark.integration
async def test_going_on_adds_up_and_remembers_what_was_touched(findings: PostgresFindings) -> None:
    cell = Cell("acme", int(NOW.timestamp()) - 3_600)
    await findings.advance(TrailMark(1, 5, 99), Outcomes(10, 6, 2, 1, 1), {cell: 4}, [], NOW)
    await findings.advance(TrailMark(1, 9, 120), Outcomes(1, 1), {cell: 8}, [gap()], NOW + timedelta(seconds=30))
    assert await findings.marks() == {1: TrailMark(1, 9, 120)}
    assert await findings.outcomes() == {1: Outcomes(11, 7, 2, 1, 1)}
    assert [stored.gap for stored in await findings.open_gaps()] == [gap()]

    async def due(seconds: float, quiet: float, longest: float) -> list[Any]:
        return await findings.due(NOW + timedelta(seconds=seconds), quiet, longest, 10)

    assert await due(40, 20, 60) == [], "touched ten seconds ago"
    assert [one.cell for one in await due(50, 20, 60)] == [cell]
    (long_moving,) = await due(60, 1_000, 60)
    # Left for later, it waits its time again.
    await findings.settle([], [long_moving], NOW + timedelta(seconds=60))
    assert await due(70, 1_000, 60) == []
    # Touched after it was handed out, it stays.
    await findings.advance(TrailMark(1, 9, 120), Outcomes(), {cell: 9}, [], NOW + timedelta(seconds=80))
    await findings.settle([long_moving], [], NOW + timedelta(seconds=90))
    (moved,) = await due(200, 20, 60)
    await findings.settle([moved], [], NOW + timedelta(seconds=200))
    assert await due(10_000, 0, 0) == []


@pytest.mark.integration
async def test_a_gap_is_one_until_it_is_gone_and_a_new_one_when_it_comes_back(findings: PostgresFindings) -> None:
    later = NOW + timedelta(minutes=1)
    await findings.record([gap(), gap(meter="n")], NOW)
    await findings.record([gap("2.75")], later)
    await findings.note_repair([gap().subject.gap_id], "done")
    first, other = await findings.open_gaps()
    assert first == StoredGap(gap("2.75"), NOW, later, None, "done")
    assert other.gap == gap(meter="n")
    await findings.close([gap().subject.gap_id], later)
    assert [stored.gap.subject.meter for stored in await findings.open_gaps()] == ["n"]
    await findings.record([gap()], later)
    assert (await findings.open_gaps())[0] == StoredGap(gap(), later, later, None, "")


@pytest.mark.integration
async def test_runs_are_kept_for_thirty_days(findings: PostgresFindings, settings: Settings) -> None:
    for days in (0, 29, 31):
        at = NOW + timedelta(days=days)
        await findings.add_run(RunSummary(str(uuid4()), "lately", at, at, 1, 2, 3))
    async with findings._pool.connection() as connection:
        rows = await (await connection.execute("SELECT finished_at FROM reconciliation_runs ORDER BY 1")).fetchall()
    assert [row["finished_at"] for row in rows] == [NOW + timedelta(days=29), NOW + timedelta(days=31)]


async def test_a_store_that_is_away_is_an_outage(tmp_path: Any) -> None:
    pool = create_pool(load_settings(home=tmp_path, postgres_url="postgresql://a@127.0.0.1:1/b"), max_size=1)
    await pool.open(wait=False)
    try:
        with pytest.raises(UnavailableError):
            await PostgresFindings(pool, wait_seconds=0.2).marks()
    finally:
        await pool.close()


def metric(name: str, **labels: str) -> float | None:
    return METRICS.get_sample_value(f"meterbook_{name}", labels)


def test_gaps_are_shown_until_they_are_gone():
    summary = RunSummary("r", "lately", NOW, NOW, 7, 2, 2)
    gaps = [StoredGap(one, NOW, NOW, None, "") for one in (gap("0.5"), gap("3"))]
    observe_run(Report(summary, {}, gaps))
    expected = float(Decimal("0.500000000001") + Decimal("1.999999999999"))
    assert metric("reconciliation_gap", check="rollups", meter="m") == pytest.approx(expected)
    assert metric("reconciliation_gap_events", check="rollups", meter="m") == 2
    assert metric("reconciliation_gaps", check="rollups") == 2
    assert metric("reconciliation_last_success_timestamp_seconds") == NOW.timestamp()
    assert metric("reconciliation_unsettled") == 2
    observe_run(Report(summary, {}, []))
    assert metric("reconciliation_gap", check="rollups", meter="m") == 0
    assert metric("reconciliation_gaps", check="rollups") == 0
    assert metric("reconciliation_gaps", check="quotas") == 0


def test_open_letters_are_shown_by_code_until_there_are_none():
    observe_letters([CodeCount("usage.rejected", "unknown_meter", 9, 4)])
    assert metric("dead_letters_open", topic="usage.rejected", code="unknown_meter") == 4
    observe_letters([])
    assert metric("dead_letters_open", topic="usage.rejected", code="unknown_meter") == 0
    observe_letters([CodeCount("usage.rejected", f"code-{number}", 1, 1) for number in range(200)])
    assert metric("dead_letters_open", topic="usage.rejected", code="other") == 101
