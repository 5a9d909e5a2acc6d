"""`meterbook demo` as a user runs it: a process, its summary, its files; then questions to what it left behind."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from pypdf import PdfReader

from deploy.dashboard_check import check_dashboards
from runtime import stack
from runtime.clickhouse import connect_clickhouse
from runtime.settings import load_settings

TIERS = {"zero", "zero_pay_per_execution", "shared", "lite", "enterprise", "airgapped"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Run the demo once, leave its engines up, end them afterwards."""
    folder = tmp_path_factory.mktemp("demo")
    home, output = folder / "home", folder / "output"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("METERBOOK_")}
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "runtime", "demo", "--json", "--keep", "--home", home, "--output", output],
            capture_output=True,
            text=True,
            env=environment,
            timeout=280,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr[-4_000:]
        yield json.loads(ran.stdout), ran.stderr, load_settings(home=home)
    finally:
        stack.down(home)


@pytest.mark.e2e
@pytest.mark.timeout(400)
class TestDemo:
    def test_all_its_checks_passed(self, demo):
        summary, _, _ = demo
        assert [check for check in summary["checks"] if not check["passed"]] == []
        assert len(summary["checks"]) >= 11
        assert summary["passed"] is True

    def test_it_is_as_large_as_promised(self, demo):
        summary, _, _ = demo
        events = summary["events"]
        assert events["distinct"] >= 200_000
        assert events["duplicates_dropped"] == events["duplicates"] > 5_000
        assert events["rejected"] == 10
        assert events["accepted"] == events["distinct"]

    def test_tenants_of_all_five_tiers_are_billed(self, demo):
        summary, _, _ = demo
        assert {tenant["plan"] for tenant in summary["tenants"].values()} == TIERS
        totals = {name: Decimal(t["invoices"][0]["total"]) for name, t in summary["tenants"].items()}
        assert totals["sprout"] == 0  # zero: nothing to pay
        assert totals["drift"] == Decimal("5000.00")  # enterprise: topped up to the contract's minimum
        assert totals["fortress"] == Decimal("60000.00")  # airgapped: 50,000 licence + 10,000 support
        assert all(t["invoices"][0]["status"] == "paid" for t in summary["tenants"].values())

    def test_an_80_and_a_100_percent_alert_came(self, demo):
        summary, _, _ = demo
        assert any("80 %" in alert for alert in summary["alerts"])
        assert any("used up" in alert for alert in summary["alerts"])

    def test_summary_agrees_per_tenant_meter_and_hour(self, demo):
        summary, _, _ = demo
        hours = [
            hour
            for tenant in summary["tenants"].values()
            for meter in tenant["meters"].values()
            for hour in meter["hours"].values()
        ]
        assert len(hours) > 1_000
        assert all(hour["clickhouse"] == hour["redis"] for hour in hours)
        assert all(hour["invoiced"] == hour["redis"] for hour in hours)

    def test_pdfs_show_what_was_billed(self, demo):
        summary, _, _ = demo
        for name, tenant in summary["tenants"].items():
            [invoice] = tenant["invoices"]
            text = "\n".join(
                page.extract_text() for page in PdfReader(io.BytesIO(Path(invoice["pdf"]).read_bytes())).pages
            )
            assert invoice["number"] in text, name
            assert f"{Decimal(invoice['total']):,.2f}" in text, name

    def test_the_table_for_people_is_on_standard_error(self, demo):
        _, shown, _ = demo
        assert "Where to look next" in shown
        assert "68,452.69" in shown  # the seed's total, as the oracle works it out too

    def test_every_dashboard_query_answers_with_the_demos_data(self, demo):
        _, _, settings = demo
        client = connect_clickhouse(settings)
        rows = client.query("SELECT min(window_start), now() FROM usage_rollups").result_rows
        results = check_dashboards(client, time_from=rows[0][0], time_to=rows[0][1])
        assert len(results) >= 8
        assert {result.place: result.faults for result in results if result.faults} == {}
