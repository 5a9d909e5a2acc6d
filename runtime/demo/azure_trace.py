"""Replays a real LLM trace in the CSV format of Azure's public dataset: TIMESTAMP, ContextTokens, GeneratedTokens.

The trace names no tenant: row n goes to tenant `t<n mod 7>` as event `azcode-<n, 6 digits>`, its time read as UTC.
"""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime
from pathlib import Path

from core.errors import Fault, InvalidInputError
from runtime.demo.usage import DemoEvent, DemoTenant, Usage

TENANT_COUNT = 7
_COLUMNS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
_FAULTS_SHOWN = 20


def read_azure_trace(path: Path) -> Usage:
    """Read a trace, gzipped or not; raises `InvalidInputError` with line and reason of every fault (20 at most)."""
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            rows = csv.DictReader(file)
            if rows.fieldnames != _COLUMNS:
                raise InvalidInputError(
                    [Fault("invalid_trace", f"expected the columns {', '.join(_COLUMNS)}", f"{path}:1")]
                )
            events, faults = _read_rows(rows, path)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError([Fault("unreadable_trace", str(error), str(path))]) from None
    if not events and not faults:
        faults = [Fault("invalid_trace", "the trace has no rows", str(path))]
    if faults:
        raise InvalidInputError(faults[:_FAULTS_SHOWN])
    months = sorted({event.occurred_at.strftime("%Y-%m") for event in events})
    tenants = [
        DemoTenant(
            f"t{number}", f"Trace tenant {number}", "shared", f"t{number}@trace.example", address="Trace Street 1"
        )
        for number in range(TENANT_COUNT)
    ]
    first = min(event.occurred_at for event in events).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Usage(tenants, events, months, (), first)


def _read_rows(rows: csv.DictReader[str], path: Path) -> tuple[list[DemoEvent], list[Fault]]:
    events, faults = [], []
    for number, row in enumerate(rows):
        where = f"{path}:{number + 2}"
        text = (row["TIMESTAMP"] or "").replace(" ", "T")
        tokens = {"input_tokens": row["ContextTokens"], "output_tokens": row["GeneratedTokens"]}
        if not all(value and value.isascii() and value.isdigit() for value in tokens.values()):
            faults.append(Fault("invalid_trace", f"token counts must be whole numbers: {tokens}", where))
            continue
        try:
            # datetime holds microseconds; the text keeps the trace's 100 ns digits for the event itself.
            occurred_at = datetime.fromisoformat(text[:26]).replace(tzinfo=UTC)
        except ValueError:
            faults.append(Fault("invalid_trace", f"no timestamp: {text!r}", where))
            continue
        events.append(
            DemoEvent(
                f"t{number % TENANT_COUNT}",
                f"azcode-{number:06}",
                "azure/llm-trace",
                "llm.completion",
                occurred_at,
                tokens,
                {},
                time_text=text + "Z",
            )
        )
    return events, faults
