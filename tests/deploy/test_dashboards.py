"""Every query of every dashboard on the real schema in the real engine, and what the figures add up to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest

from deploy.dashboard_check import DASHBOARDS, PanelResult, check_dashboards, main, panels_of
from deploy.grafana_sql import used_variables
from runtime.clickhouse import connect_clickhouse, connection_arguments
from runtime.migrations import read_schema, split_statements
from runtime.settings import Settings
from runtime.stack import StackState
from tests.deploy.dashboard_data import INVOICED, RUNNING, TENANTS, ShownTime, dashboard_data, shown_time

DATABASE = "dashboard_check"
OVERVIEW = DASHBOARDS / "overview.json"


@pytest.fixture(scope="module")
def client(stack: StackState) -> Iterator[Any]:
    settings = Settings(home=stack.home)
    admin = connect_clickhouse(settings)
    admin.command(f"CREATE DATABASE {DATABASE}")
    client = clickhouse_connect.get_client(**{**connection_arguments(settings), "database": DATABASE})
    for statement in split_statements(read_schema("clickhouse")):
        client.command(statement)
    yield client
    client.close()
    admin.command(f"DROP DATABASE {DATABASE}")
    admin.close()


@pytest.fixture(scope="module")
def shown(client: Any) -> ShownTime:
    return dashboard_data(client)


@pytest.fixture(scope="module")
def results(client: Any, shown: ShownTime) -> list[PanelResult]:
    return check_dashboards(client, time_from=shown.first, time_to=shown.last)


def whole(results: list[PanelResult], title: str) -> PanelResult:
    """The panel with all tenants shown, which comes before the narrowed one."""
    return next(result for result in results if result.panel == title)


def column(result: PanelResult, name: str) -> list[Any]:
    index = result.columns.index(name)
    return [row[index] for row in result.rows]


@pytest.mark.integration
def test_every_query_draws_its_panel(results):
    assert {result.place: result.faults for result in results if result.faults} == {}
    dashboards = [json.loads(path.read_text()) for path in DASHBOARDS.glob("*.json")]
    # Panels over Prometheus are held against the code's metrics in test_prometheus.py.
    panels = [
        panel["title"]
        for dashboard in dashboards
        for panel in panels_of(dashboard)
        if panel["datasource"]["type"] != "prometheus"
    ]
    assert {result.panel for result in results if result.kind != "variable"} == set(panels)
    assert len(panels) >= 20


@pytest.mark.integration
def test_the_usage_figures_add_up(results):
    # 6 hours of 6 reports on 2 partitions: 72 reports of 300 counted, 15 duplicates, 3 refused.
    assert sum(column(whole(results, "Events counted"), "Counted")) == 72 * 300
    assert sum(column(whole(results, "Duplicates left out"), "Duplicates")) == 72 * 15
    assert sum(column(whole(results, "Events refused"), "Refused")) == 72 * 3
    assert whole(results, "Waiting records").rows == ((40 + 2,),)
    assert whole(results, "Freshness").rows == ((900,),)
    assert whole(results, "Tenants with usage").rows == ((4,),)
    meters = {row[0]: row[1:] for row in whole(results, "Usage by meter").rows}
    # Tokens: (100 + 50) · (1+2+3+4+5+6) · (1+2+3+4); replaced rows would add to it. Executions: 20 · 6 · 10.
    assert meters == {"agent_executions": (1_200, 1_200.0, 4), "llm_input_tokens": (96, 31_500.0, 4)}


@pytest.mark.integration
def test_the_chosen_meter_is_split_by_tenant_and_dimension(results):
    # The meter with most events is chosen first: executions, which have no dimensions.
    by_tenant = whole(results, "${meter} by tenant")
    assert {tenant: sum(row[2] for row in by_tenant.rows if row[1] == tenant) for tenant in TENANTS} == {
        "acme": 120.0, "globex": 240.0, "initech": 360.0, "umbrella": 480.0,
    }  # fmt: skip
    assert whole(results, "${meter} by dimension").rows == (("all", 1_200.0),)


@pytest.mark.integration
def test_revenue_is_invoiced_plus_what_is_not_invoiced_yet_in_one_currency(results):
    invoiced = sum(Decimal(amount) for *_, amount, currency in INVOICED if currency == "USD")
    waiting = sum(Decimal(amount) for tenant, *_, amount in RUNNING if tenant == "initech")
    running = sum(Decimal(amount) for *_, amount in RUNNING)
    assert (invoiced, waiting, running) == (Decimal("136.92"), Decimal("38.16"), Decimal("76.08"))

    def money(title: str, name: str) -> Decimal:
        return round(sum((Decimal(str(value)) for value in column(whole(results, title), name)), Decimal(0)), 2)

    assert money("Invoiced for ${period}, ${currency}", "Invoiced") == invoiced
    assert money("Live usage cost of ${period}, ${currency}", "Running") == running
    assert money("Expected for ${period}, ${currency}", "Expected") == invoiced + waiting
    assert whole(results, "Tenants not invoiced for ${period}").rows == ((1,),)
    for title in ("Revenue by plan", "Revenue by charge"):
        assert money(title, "Invoiced") == invoiced
        assert money(title, "Not invoiced yet") == waiting
    # An allocation over days keeps the sum.
    assert money("Live usage cost by day of use", "Usage cost") == running
    assert money("Invoiced by day", "billed") == invoiced


@pytest.mark.integration
def test_the_top_tenants_show_what_was_invoiced_or_else_what_runs(results):
    assert [(row[0], row[1], row[2], row[5]) for row in whole(results, "Top tenants").rows] == [
        ("globex", "lite", 264, 124.2),
        ("initech", "shared", 384, 38.16),
        ("acme", "shared", 144, 12.72),
    ]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"rawSql": "SELECT nothing AS time FROM usage_rollups"}, "nothing"),
        ({"rawSql": "SELECT window_start AS time, 1 AS n FROM usage_rollups WHERE 0"}, "no rows"),
        ({"rawSql": "SELECT window_start AS time, 1 AS n FROM usage_rollups ORDER BY time DESC"}, "do not ascend"),
        ({"rawSql": "SELECT window_start AS time, events FROM usage_rollups ORDER BY time"}, "two rows for one time"),
        ({"rawSql": "SELECT window_start, events FROM usage_rollups"}, "called time"),
        ({"rawSql": "SELECT toDate('2026-01-01') AS time, 'a' AS a"}, "no column"),
        ({"rawSql": "SELECT now() AS time, 0 / 0 AS share"}, "not a number"),
        ({"rawSql": "SELECT $__timeGroup(at, '1m') AS time, 1 AS n FROM pipeline_progress"}, "no macro $__timeGroup"),
        ({"rawSql": "SELECT now() AS time, ${colour} AS n"}, "no variable colour"),
        ({"format": 1, "queryType": "table"}, "needs its query as"),
    ],
)
def test_a_panel_that_would_stay_empty_or_fail_is_found(client, shown, tmp_path, change, fault):
    dashboard = json.loads(OVERVIEW.read_text())
    panel = next(panel for panel in panels_of(dashboard) if panel["title"] == "Events per second")
    panel["targets"][0].update(change)
    dashboard["panels"] = [panel]
    (tmp_path / "broken.json").write_text(json.dumps(dashboard))
    broken = [
        result
        for result in check_dashboards(client, time_from=shown.first, time_to=shown.last, folder=tmp_path)
        if result.faults
    ]
    assert {result.panel for result in broken} == {"Events per second"}
    assert fault in " ".join(broken[0].faults)


@pytest.mark.integration
def test_settings_that_name_a_missing_column_are_found(client, shown, tmp_path):
    dashboard = json.loads(OVERVIEW.read_text())
    panel = next(panel for panel in panels_of(dashboard) if panel["title"] == "Revenue by plan")
    panel["options"]["xField"] = "tier"
    panel["fieldConfig"]["overrides"][0]["matcher"]["options"] = "Billed"
    dashboard["panels"] = [panel]
    (tmp_path / "broken.json").write_text(json.dumps(dashboard))
    results = check_dashboards(client, time_from=shown.first, time_to=shown.last, folder=tmp_path)
    assert [fault.split(",")[0] for fault in whole(results, "Revenue by plan").faults] == [
        "the panel's settings name a column Billed",
        "the panel's settings name a column tier",
    ]


@pytest.mark.integration
def test_the_command_tells_good_panels_from_bad(client, stack, shown, monkeypatch, capsys):
    url = f"{stack.urls['clickhouse'].rpartition('/')[0]}/{DATABASE}"
    monkeypatch.setenv("METERBOOK_CLICKHOUSE_URL", url)
    hours = (datetime.now(UTC) - shown.first).total_seconds() // 3_600 + 1
    assert main(["--hours", str(int(hours))]) == 0
    assert "BAD" not in capsys.readouterr().out
    monkeypatch.setenv("METERBOOK_CLICKHOUSE_URL", "http://127.0.0.1:1/none")
    assert main([]) == 1
    assert "error:" in capsys.readouterr().err


def test_the_data_lies_in_one_month_on_every_day():
    for now in (datetime(2026, 10, 31, 23, 59, tzinfo=UTC), datetime(2026, 11, 1, 3, tzinfo=UTC)):
        shown = shown_time(now)
        assert shown.first.month == shown.last.month == 10
        assert shown.last < now


@pytest.mark.parametrize("path", sorted(DASHBOARDS.glob("*.json")), ids=lambda path: path.stem)
def test_a_dashboard_is_laid_out_and_explained(path: Path):
    dashboard = json.loads(path.read_text())
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies over {taken[x, y]}"
                assert x < 24
                taken[x, y] = panel["title"]
        assert used_variables(panel["title"]) <= known
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels_of(dashboard):
        assert len(panel["description"]) > 20, f"{panel['title']} says nothing about itself"
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    assert dashboard["editable"] is False
    assert dashboard["uid"]
