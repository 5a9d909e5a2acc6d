"""`meterbook reconcile` as it is called: what is refused before anything is looked at, and what is printed."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from core.errors import InvalidInputError
from core.meters import Meter, Registry
from metering.reconcile.command import Reconciler, create_command
from metering.reconcile.documents import print_report, report_document
from metering.reconcile.domain.gap import Gap, Subject
from metering.reconcile.ports import Outcomes, RunSummary, StoredGap
from metering.reconcile.reconcile import Report
from metering.reconcile.repair_gaps import Repair
from runtime.settings import Settings
from tests.metering.reconcile.memory import side

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
REGISTRY = Registry.of(["acme"], [Meter("m", "u", "t", "sum", "q")])


@asynccontextmanager
async def open_nothing(settings: Settings) -> AsyncIterator[Reconciler]:
    """A reconciler without views: whatever gets so far as to look fails."""
    yield Reconciler(cast(Any, None), REGISTRY, cast(Any, None))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--full", "--from", "2026-11-01"], "ambiguous_choice"),
        (["--from", "yesterday"], "invalid_time"),
        (["--from", "2026-11-02", "--to", "2026-11-02"], "invalid_period"),
        (["--tenant", "nobody", "--full"], "unknown_tenant"),
        (["--meter", "nothing", "--full"], "unknown_meter"),
    ],
)
def test_a_wrong_call_is_refused(arguments: list[str], code: str) -> None:
    app = typer.Typer()
    app.command()(create_command(open_nothing))
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, InvalidInputError)
    assert code in str(done.exception)


def report() -> tuple[Report, list[Repair]]:
    subject = Subject("rollups", "acme", "m", ("e\x1bu",), "2026-11-20T11", 3)
    gap = StoredGap(Gap(subject, side("1.500000000000", 4), side("1", 3)), NOW, NOW, None, "")
    summary = RunSummary("r", "all tenants", NOW, NOW + timedelta(seconds=1), 1_234, 1, 1)
    return Report(summary, {3: Outcomes(12, 7, 2, 1, 1)}, [gap]), [Repair(gap, "written again", is_gone=False)]


def test_both_sides_and_the_gap_are_shown() -> None:
    console = Console(file=io.StringIO(), width=200)
    print_report(*report(), console)
    shown = cast(io.StringIO, console.file).getvalue()
    for text in ("1.5", "-0.5", "4 / 3", "still there", "written again", "1 gap in 1,234", "1 moving"):
        assert text in shown
    assert "\x1b" not in shown, "nothing in a name speaks to the terminal"
    assert shown.splitlines()[3].split() == ["3", "12", "7", "2", "1", "1", "-1"]


def test_programs_get_quantities_as_decimal_texts() -> None:
    document = json.loads(json.dumps(report_document(*report())))
    (gap,) = document["gaps"]
    assert (gap["expected"], gap["gap"]) == ({"quantity": "1.5", "events": 4}, {"quantity": "-0.5", "events": -1})
    assert document["partitions"][0]["gap"] == -1
    assert (document["repairs"][0]["is_gone"], document["unsettled"]) == (False, 1)
