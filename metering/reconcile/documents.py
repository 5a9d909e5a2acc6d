"""A reconciliation as a JSON document and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.period import format_instant
from metering.dead_letters.tables import plain
from metering.reconcile.ports import StoredGap
from metering.reconcile.reconcile import Report
from metering.reconcile.repair_gaps import Repair


def report_document(report: Report, repairs: Sequence[Repair]) -> dict[str, Any]:
    """Return a run as a document; quantities are decimal strings."""
    summary = report.summary
    return {
        "run_id": summary.run_id,
        "scope": summary.scope,
        "started_at": format_instant(summary.started_at),
        "finished_at": format_instant(summary.finished_at),
        "checked": summary.checked,
        "unsettled": summary.unsettled,
        "partitions": [
            {
                "partition": partition,
                "received": sums.received,
                "accepted": sums.accepted,
                "duplicates": sums.duplicates,
                "rejected": sums.rejected,
                "misplaced": sums.misplaced,
                "gap": sums.told - sums.received,
            }
            for partition, sums in sorted(report.outcomes.items())
        ],
        "gaps": [_gap(stored) for stored in report.gaps],
        "repairs": [{**_gap(repair.gap), "repair": repair.what, "is_gone": repair.is_gone} for repair in repairs],
    }


def print_report(report: Report, repairs: Sequence[Repair], console: Console) -> None:
    """Print the journal's sums, then gaps with both sides, then what was done about them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("partition", "received", "accepted", "duplicates", "rejected", "misplaced", "gap"):
        table.add_column(name, justify="right")
    for partition, sums in sorted(report.outcomes.items()):
        row = (sums.received, sums.accepted, sums.duplicates, sums.rejected, sums.misplaced)
        table.add_row(str(partition), *(f"{number:,}" for number in row), f"{sums.told - sums.received:+,}")
    console.print(table)
    gaps = [repair.gap for repair in repairs] or report.gaps
    if gaps:
        console.print(_gap_table(gaps))
    for repair in repairs:
        state = "gone" if repair.is_gone else "still there"
        subject = repair.gap.gap.subject
        console.print(
            Text(f"{state}: {subject.check} {subject.tenant} {subject.meter} {subject.span}: {repair.what}"),
            style="green" if repair.is_gone else "bold red",
            soft_wrap=True,
        )
    summary = report.summary
    moving = f", {summary.unsettled:,} moving and left for later" if summary.unsettled else ""
    found = f"{len(report.gaps):,} gap{'' if len(report.gaps) == 1 else 's'}" if report.gaps else "no gap"
    console.print(f"{found} in {summary.checked:,} comparisons{moving} ({summary.scope})", highlight=False)


def _gap_table(gaps: Sequence[StoredGap]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("check", "tenant", "meter", "dimensions", "span", "expected", "found", "gap", "events"):
        table.add_column(name, justify="right" if name in ("expected", "found", "gap", "events") else "left")
    for stored in gaps:
        gap = stored.gap
        cells = (
            gap.subject.check,
            gap.subject.tenant,
            gap.subject.meter,
            " ".join(gap.subject.dimensions),
            gap.subject.span if gap.subject.check != "journal" else f"{gap.subject.partition}: {gap.subject.span}",
            f"{gap.expected.quantity.normalize():f}",
            f"{gap.found.quantity.normalize():f}",
            f"{gap.quantity.normalize():+f}",
            f"{gap.expected.events} / {gap.found.events}",
        )
        table.add_row(*(Text(plain(cell)) for cell in cells))
    return table


def _gap(stored: StoredGap) -> dict[str, Any]:
    gap, subject = stored.gap, stored.gap.subject
    return {
        "gap_id": subject.gap_id,
        "check": subject.check,
        "tenant_id": subject.tenant,
        "meter": subject.meter,
        "dimensions": list(subject.dimensions),
        "span": subject.span,
        "partition": subject.partition,
        "expected": {"quantity": f"{gap.expected.quantity.normalize():f}", "events": gap.expected.events},
        "found": {"quantity": f"{gap.found.quantity.normalize():f}", "events": gap.found.events},
        "gap": {"quantity": f"{gap.quantity.normalize():f}", "events": gap.events},
        "found_at": format_instant(stored.found_at),
        "seen_at": format_instant(stored.seen_at),
    }
