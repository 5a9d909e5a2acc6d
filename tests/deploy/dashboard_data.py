"""Usage, revenue and progress of four tenants over six hours, small enough to add up by hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from runtime.clickhouse import INSERT_SETTINGS

HOURS = 6
TENANTS = ("acme", "globex", "initech", "umbrella")
ROLLUP_COLUMNS = (
    "tenant", "meter", "dimensions", "window_start", "source_partition", "segment", "quantity", "events", "version",
)  # fmt: skip
RATED_COLUMNS = (
    "tenant", "period", "state", "reference", "plan", "charge", "meter", "quantity", "amount", "currency", "rated_at",
    "version",
)  # fmt: skip
PROGRESS_COLUMNS = (
    "at", "stage", "source_partition", "next_offset", "end_offset", "events", "duplicates", "rejected", "freshness_ms",
)  # fmt: skip
# Tenant, plan, charge, meter, running amount.
RUNNING = (
    ("acme", "shared", "input-tokens", "llm_input_tokens", "12.60"),
    ("acme", "shared", "executions", "agent_executions", "0.12"),
    ("globex", "lite", "input-tokens", "llm_input_tokens", "25.20"),
    ("initech", "shared", "input-tokens", "llm_input_tokens", "37.80"),
    ("initech", "shared", "executions", "agent_executions", "0.36"),
)
# Tenant, plan, charge, meter, invoiced amount. Umbrella pays in EUR.
INVOICED = (
    ("acme", "shared", "input-tokens", "llm_input_tokens", "12.60", "USD"),
    ("acme", "shared", "executions", "agent_executions", "0.12", "USD"),
    ("globex", "lite", "base", "", "99.00", "USD"),
    ("globex", "lite", "input-tokens", "llm_input_tokens", "25.20", "USD"),
    ("umbrella", "enterprise", "base", "", "5000.00", "EUR"),
)


@dataclass(frozen=True, slots=True)
class ShownTime:
    """The hours the data lies in, all in one month, and that month."""

    first: datetime
    last: datetime

    @property
    def period(self) -> str:
        """`YYYY-MM`."""
        return f"{self.first:%Y-%m}"


def shown_time(now: datetime) -> ShownTime:
    """Return the last full hours before `now`, or before the month began if they would lie in two months."""
    last = now.replace(minute=0, second=0, microsecond=0)
    if (last - timedelta(hours=HOURS)).month != last.month:
        last = last.replace(day=1, hour=0)
    return ShownTime(last - timedelta(hours=HOURS), last - timedelta(seconds=1))


def dashboard_data(client: Any, now: datetime | None = None) -> ShownTime:
    """Insert the rows and return where they lie. The progress table forgets after 30 days, so `now` is today."""
    shown = shown_time(now or datetime.now(UTC))
    for table, rows, columns in (
        ("usage_rollups", _rollups(shown), ROLLUP_COLUMNS),
        ("rated_usage", _rated(shown), RATED_COLUMNS),
        ("pipeline_progress", _progress(shown), PROGRESS_COLUMNS),
    ):
        client.insert(table, rows, column_names=columns, settings=INSERT_SETTINGS)
    return shown


def _rollups(shown: ShownTime) -> list[list[Any]]:
    """Per hour h (from 1) and tenant t (from 1): 100·h·t gpt4 and 50·h·t claude tokens; 20·t executions."""
    rows: list[list[Any]] = []
    for hour in range(HOURS):
        start = shown.first + timedelta(hours=hour, minutes=7)
        for number, tenant in enumerate(TENANTS, 1):
            for model, tokens in (("gpt4", 100), ("claude", 50)):
                quantity = Decimal(tokens * (hour + 1) * number)
                key = [tenant, "llm_input_tokens", {"model": model}, start, number % 2, 1]
                # The window as it was a moment before: replaced by the higher version.
                rows += [[*key, quantity - 1, 1, 10 + hour], [*key, quantity, 2, 20 + hour]]
            for segment in (1, 2):
                key = [tenant, "agent_executions", {}, start, number % 2, segment]
                rows.append([*key, Decimal(10 * number), 10 * number, 20 + hour])
    return rows


def _rated(shown: ShownTime) -> list[list[Any]]:
    when = shown.last - timedelta(minutes=30)
    # How it stood an hour before, and was replaced: counted beside the newer row it would show.
    before = ("globex", "lite", "input-tokens", "llm_input_tokens", "99")
    rows = [_running(shown.period, row, when, 2) for row in RUNNING]
    rows.append(_running(shown.period, before, when - timedelta(hours=1), 1))
    for tenant, plan, charge, meter, amount, currency in INVOICED:
        key = [tenant, shown.period, "invoiced", f"inv-{tenant}", plan, charge, meter]
        rows.append([*key, Decimal(1), Decimal(amount), currency, when, 1])
    return rows


def _running(period: str, row: tuple[str, str, str, str, str], when: datetime, version: int) -> list[Any]:
    tenant, plan, charge, meter, amount = row
    key = [tenant, period, "running", "", plan, charge, meter]
    return [*key, Decimal(1), Decimal(amount), "USD", when, version]


def _progress(shown: ShownTime) -> list[list[Any]]:
    """Every ten minutes on two partitions: 300 counted, 15 duplicates, 3 refused; at the end 40 and 2 wait."""
    rows: list[list[Any]] = []
    for step in range(HOURS * 6):
        for partition in (0, 1):
            done = (step + 1) * 318
            waiting = (40, 2)[partition] if step == HOURS * 6 - 1 else 500
            at = shown.first + timedelta(minutes=10 * step, seconds=partition)
            rows.append([at, "warehouse", partition, done, done + waiting, 300, 15, 3, 800 + 100 * partition])
    return rows
