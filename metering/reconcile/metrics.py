"""What Prometheus sees of reconciliation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal

from prometheus_client import Counter, Gauge

from metering.dead_letters.ports import CodeCount
from metering.reconcile.ports import StoredGap
from metering.reconcile.reconcile import Report

GAP = Gauge("meterbook_reconciliation_gap", "Open gaps added up without signs, in the meter's unit", ["check", "meter"])
GAP_EVENTS = Gauge("meterbook_reconciliation_gap_events", "Open gaps added up, in events", ["check", "meter"])
GAPS = Gauge("meterbook_reconciliation_gaps", "Gaps that are open", ["check"])
CHECKED = Counter("meterbook_reconciliation_checked_total", "Figures and journal entries that were compared")
UNSETTLED = Gauge("meterbook_reconciliation_unsettled", "Figures the last run left for later: they were moving")
LAST_SUCCESS = Gauge("meterbook_reconciliation_last_success_timestamp_seconds", "When a run last came to its end")
OPEN_LETTERS = Gauge("meterbook_dead_letters_open", "Dead letters nobody has dealt with", ["topic", "code"])
CHECKS = ("journal", "rollups", "samples", "quotas")
# Codes are ours and few; should a producer find a way to make more, they become one.
_CODES_MAX = 100

_gap_labels: set[tuple[str, str]] = set()
_letter_labels: set[tuple[str, str]] = set()


def observe_run(report: Report) -> None:
    """Show a finished run."""
    CHECKED.inc(report.summary.checked)
    UNSETTLED.set(report.summary.unsettled)
    LAST_SUCCESS.set(report.summary.finished_at.timestamp())
    _show_gaps(report.gaps)


def observe_letters(counts: Iterable[CodeCount]) -> None:
    """Show how many dead letters are open."""
    sums: dict[tuple[str, str], int] = defaultdict(int, dict.fromkeys(_letter_labels, 0))
    for count in counts:
        known = (count.topic, count.code) in sums or len(sums) < _CODES_MAX
        sums[count.topic, count.code if known else "other"] += count.open
    _letter_labels.update(sums)
    for labels, number in sums.items():
        OPEN_LETTERS.labels(*labels).set(number)


def _show_gaps(gaps: Iterable[StoredGap]) -> None:
    quantities: dict[tuple[str, str], Decimal] = defaultdict(Decimal, dict.fromkeys(_gap_labels, Decimal(0)))
    events: dict[tuple[str, str], int] = defaultdict(int, dict.fromkeys(_gap_labels, 0))
    numbers = dict.fromkeys(CHECKS, 0)
    for stored in gaps:
        subject = stored.gap.subject
        # A gap of values that makes no difference in events is still one.
        quantities[subject.check, subject.meter] += abs(stored.gap.quantity)
        events[subject.check, subject.meter] += abs(stored.gap.events)
        numbers[subject.check] += 1
    _gap_labels.update(quantities)
    for labels, quantity in quantities.items():
        GAP.labels(*labels).set(float(quantity))
        GAP_EVENTS.labels(*labels).set(events[labels])
    for check, number in numbers.items():
        GAPS.labels(check).set(number)
