"""What a demo ends with: a table for people, a summary as JSON for programs."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from runtime.demo.oracle import expected_total
from runtime.demo.run_demo import Outcome

_STYLES = {"paid": "green", "finalized": "yellow"}


def print_report(outcome: Outcome, console: Console) -> None:
    """Print tenants and amounts, the checks, and where to look next."""
    console.print()
    console.print(_invoice_table(outcome))
    console.print()
    for check in outcome.checks:
        mark, style = ("✔", "green") if check.passed else ("✘", "bold red")
        console.print(f" [{style}]{mark}[/] {check.name}: [dim]{check.detail}[/]", highlight=False)
    console.print()
    seconds = outcome.seconds
    usage_s = max(seconds.get("usage", 0.0), 0.001)
    console.print(
        f" {outcome.plan.events_sent:,} events in {usage_s:.1f} s; engines {seconds.get('engines', 0):.1f} s,"
        f" invoices {seconds.get('invoices', 0):.1f} s, all in all {seconds['total']:.1f} s",
        style="dim",
        highlight=False,
    )
    console.print()
    console.print(" Where to look next", style="bold")
    home = outcome.home
    console.print(f"   invoices as PDF      {outcome.output / 'invoices'}", highlight=False)
    console.print(f"   logs                 {home / 'logs'}", highlight=False)
    console.print(f"   start it again       METERBOOK_HOME={home} .venv/bin/meterbook up", highlight=False)
    console.print(f"   list invoices        METERBOOK_HOME={home} .venv/bin/meterbook invoice list", highlight=False)
    console.print("   how it works         docs/architecture.md", highlight=False)


def summarize(outcome: Outcome) -> dict[str, Any]:
    """Return the summary for programs: per tenant, meter and hour what ClickHouse, Redis and the invoices say.

    Quantities and amounts are decimal strings; `invoiced` is what the invoice line's evidence says of the hour.
    """
    invoiced = _invoiced_by_hour(outcome)
    tenants: dict[str, Any] = {}
    for tenant in outcome.usage.tenants:
        name = tenant.tenant_id
        own = [i for i in outcome.invoices if i["tenant_id"] == name]
        meters: dict[str, Any] = {}
        keys = sorted(key for key in {*outcome.warehouse, *outcome.live, *invoiced} if key[0] == name)
        for _, meter, hour in keys:
            key = (name, meter, hour)
            meters.setdefault(meter, {"hours": {}})["hours"][hour] = {
                "clickhouse": _text(outcome.warehouse.get(key)),
                "redis": _text(outcome.live.get(key)),
                "invoiced": _text(invoiced.get(key)),
            }
        for meter, entry in meters.items():
            for source, totals in (("clickhouse", outcome.warehouse), ("redis", outcome.live), ("invoiced", invoiced)):
                own_totals = [q for (t, m, _), q in totals.items() if (t, m) == (name, meter)]
                entry[source] = _text(sum(own_totals, Decimal(0)))
        tenants[name] = {
            "plan": tenant.plan,
            "meters": meters,
            "invoices": [
                {
                    "number": i["number"],
                    "period_start": i["period_start"].isoformat(),
                    "total": str(i["total"]),
                    "currency": i["currency"],
                    "status": i["status"],
                    "pdf": i["location"],
                    "lines": [
                        {
                            "charge": line["charge_id"],
                            "dimensions": line["dimensions"],
                            "quantity": _text(line["quantity"]),
                            "amount": str(line["amount"]),
                        }
                        for line in i["lines"]
                    ],
                }
                for i in own
            ],
        }
    return {
        "events": {
            "sent": outcome.plan.events_sent,
            "distinct": len(outcome.usage.events),
            "duplicates": outcome.plan.duplicates,
            **{name: count for name, count in outcome.outcomes.items() if name != "duplicate"},
            "duplicates_dropped": outcome.outcomes.get("duplicate", 0),
        },
        "alerts": outcome.alerts,
        "tenants": tenants,
        "checks": [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in outcome.checks],
        "passed": all(check.passed for check in outcome.checks),
        "seconds": {name: round(value, 2) for name, value in outcome.seconds.items()},
    }


def _invoice_table(outcome: Outcome) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Invoices", title_style="bold", title_justify="left")
    for name, justify in (
        ("tenant", "left"),
        ("plan", "left"),
        ("events", "right"),
        ("invoice", "left"),
        ("lines", "right"),
        ("amount USD", "right"),
        ("expected", "right"),
        ("status", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    counts: dict[str, int] = {}
    for event in outcome.usage.events:
        counts[event.tenant] = counts.get(event.tenant, 0) + 1
    total = Decimal(0)
    for tenant in outcome.usage.tenants:
        own = [i for i in outcome.invoices if i["tenant_id"] == tenant.tenant_id]
        amount = sum((i["total"] for i in own), Decimal(0))
        total += amount
        expected = sum((expected_total(tenant, truth) for truth in outcome.truths_by_month.values()), Decimal(0))
        status = ", ".join(sorted({i["status"] for i in own})) or "none"
        table.add_row(
            tenant.tenant_id,
            tenant.plan,
            f"{counts.get(tenant.tenant_id, 0):,}",
            ", ".join(i["number"] for i in own),
            str(sum(len(i["lines"]) for i in own)),
            f"{amount:,.2f}",
            f"[{'green' if amount == expected else 'bold red'}]{expected:,.2f}[/]",
            f"[{_STYLES.get(status, 'red')}]{status}[/]",
        )
    table.add_section()
    table.add_row("", "", f"{len(outcome.usage.events):,}", "", "", f"[bold]{total:,.2f}[/]", "", "")
    return table


def _invoiced_by_hour(outcome: Outcome) -> dict[tuple[str, str, str], Decimal]:
    found: dict[tuple[str, str, str], Decimal] = {}
    for invoice in outcome.invoices:
        # The included and the overage part of a charge are two lines with the same usage behind them.
        behind = {(line["charge_id"], json.dumps(line["dimensions"])): line for line in invoice["lines"]}
        for line in behind.values():
            for hour, quantity, _ in line["evidence"].get("hours", []):
                key = (invoice["tenant_id"], line["meter_id"], hour)
                found[key] = found.get(key, Decimal(0)) + Decimal(quantity)
    return found


def _text(quantity: Decimal | None) -> str:
    return "0" if not quantity else f"{quantity.normalize():f}"
