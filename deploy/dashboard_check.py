"""Runs every query of every dashboard on a real ClickHouse, without Grafana: `python -m deploy.dashboard_check`.

Each query must answer with the columns its kind of panel draws, and with at least one row. Every query runs twice:
with all values of the variables, and with a single value of each, which must also be valid but may find nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from core.errors import MeterbookError
from deploy.grafana_sql import ALL, QueryContext, UnknownMacroError, expand
from runtime.clickhouse import connect_clickhouse
from runtime.settings import load_settings

DASHBOARDS = Path(__file__).parent / "grafana" / "dashboards"
PLUGIN = "grafana-clickhouse-datasource"
# Grafana draws about as many points as the panel has pixels.
_POINTS = 500
# How the plugin names the two forms of an answer, and which a kind of panel can draw.
_SERIES, _TABLE = (0, "timeseries"), (1, "table")
FORMATS = {
    "timeseries": (_SERIES,),
    "stat": (_SERIES, _TABLE),
    "table": (_TABLE,),
    "barchart": (_TABLE,),
}
NO_ROWS = "no rows"
_NUMBER = re.compile(r"U?Int\d+|Float\d+|Decimal\(.*")
_TIME = re.compile(r"DateTime(64)?\b.*|Date(32)?")


@dataclass(frozen=True, slots=True)
class PanelResult:
    """What one query of a panel answered: its SQL as sent, columns by name, rows, and every fault found."""

    dashboard: str
    panel: str
    kind: str
    sql: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    faults: tuple[str, ...]

    @property
    def place(self) -> str:
        """Where the query is, for people."""
        return f"{self.dashboard} / {self.panel}"


@dataclass(frozen=True, slots=True)
class _Answer:
    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def check_dashboards(
    client: Any, *, time_from: datetime, time_to: datetime, folder: Path = DASHBOARDS
) -> list[PanelResult]:
    """Run all queries of the dashboards in `folder` through a clickhouse-connect `client` and judge the answers.

    The shown time is from `time_from` to `time_to`, both with a zone. Nothing is raised for a bad panel: its result
    has `faults`. A connection that fails is raised as the client's error.
    """
    client.command("SELECT 1")
    results: list[PanelResult] = []
    for path in sorted(folder.glob("*.json")):
        dashboard = json.loads(path.read_text())
        results += _Check(client, dashboard["title"], time_from, time_to).run(dashboard)
    return results


def panels_of(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield every panel that draws something, also those folded into a row."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", [])
        else:
            yield panel


@dataclass(frozen=True, slots=True)
class _Check:
    """One dashboard on one server and shown time."""

    client: Any
    title: str
    first: datetime
    last: datetime

    def run(self, dashboard: Mapping[str, Any]) -> Iterator[PanelResult]:
        """Check the variables, which the panels need, then the panels."""
        everything: dict[str, Sequence[str]] = {}
        single: dict[str, Sequence[str]] = {}
        for variable in dashboard["templating"]["list"]:
            name = variable["name"]
            if variable["type"] != "query":
                everything[name] = single[name] = (str(variable["current"]["value"]),)
                continue
            result = self._query(f"variable {name}", "variable", variable["query"], single, 1)
            yield result
            single[name] = (str(result.rows[0][0]) if result.rows else "",)
            everything[name] = (ALL,) if variable["includeAll"] else single[name]
        for panel in panels_of(dashboard):
            for target in panel["targets"]:
                if target["datasource"]["type"] != PLUGIN:
                    continue
                whole = self._panel(panel, target, everything)
                yield whole
                narrowed = self._panel(panel, target, single)
                # A single tenant may have nothing to show; any other fault counts.
                if narrowed.faults != (NO_ROWS,):
                    yield narrowed

    def _panel(
        self, panel: Mapping[str, Any], target: Mapping[str, Any], variables: Mapping[str, Sequence[str]]
    ) -> PanelResult:
        result = self._query(panel["title"], panel["type"], target["rawSql"], variables, interval_of(panel))
        faults = list(result.faults)
        formats = FORMATS.get(panel["type"], ())
        if (target["format"], target["queryType"]) not in formats:
            faults.append(f"a {panel['type']} panel needs its query as {' or '.join(map(str, formats)) or 'nothing'}")
        if result.columns:
            faults += _missing_columns(panel, result.columns)
        return replace(result, faults=tuple(faults))

    def _query(
        self, name: str, kind: str, raw: str, variables: Mapping[str, Sequence[str]], interval_min_s: int
    ) -> PanelResult:
        interval_s = max(interval_min_s, int((self.last - self.first).total_seconds()) // _POINTS)
        try:
            sql = expand(raw, QueryContext(self.first, self.last, interval_s, variables))
            found = self.client.query(sql)
        except (UnknownMacroError, ClickHouseError) as error:
            return PanelResult(self.title, name, kind, raw, (), (), (str(error),))
        types = tuple(_plain_type(column.name) for column in found.column_types)
        answer = _Answer(tuple(found.column_names), types, tuple(tuple(row) for row in found.result_rows))
        return PanelResult(self.title, name, kind, sql, answer.columns, answer.rows, tuple(_judge(kind, answer)))


def interval_of(panel: Mapping[str, Any]) -> int:
    """Return the panel's shortest interval of a point in seconds ("1m" is 60)."""
    text = str(panel.get("interval", "1s"))
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3_600}[text[-1]]


def _judge(kind: str, answer: _Answer) -> Iterator[str]:
    """Yield what keeps a panel of this kind from drawing the answer."""
    numbers = [index for index, name in enumerate(answer.types) if _NUMBER.fullmatch(name)]
    if not answer.rows:
        # The client does not tell the columns of an empty answer.
        yield NO_ROWS
        return
    if any(isinstance(value, float) and not math.isfinite(value) for row in answer.rows for value in row):
        yield "a value is not a number"
    if kind == "variable":
        if answer.types != ("String",):
            yield f"a variable needs one column of text, not {answer.types}"
        return
    if kind != "table" and not numbers:
        yield f"nothing to draw: no column of {answer.types} is a number"
    if kind == "timeseries" or (kind == "stat" and answer.columns[0] == "time"):
        yield from _judge_series(answer, numbers)
    elif kind == "stat" and len(answer.rows) > 1:
        yield f"one value is shown, {len(answer.rows)} rows came"
    elif kind == "barchart" and answer.types[0] != "String":
        yield f"bars are named by the first column, which is {answer.types[0]}"


def _judge_series(answer: _Answer, numbers: Sequence[int]) -> Iterator[str]:
    if answer.columns[0] != "time" or not _TIME.fullmatch(answer.types[0]):
        yield f"the first column must be a time called time, not {answer.columns[0]} {answer.types[0]}"
        return
    labels = [index for index, name in enumerate(answer.types) if index and name == "String"]
    if len(labels) + len(numbers) + 1 != len(answer.columns):
        yield f"columns other than time, text and numbers: {answer.types}"
    times = [row[0] for row in answer.rows]
    if times != sorted(times):
        yield "times do not ascend, so Grafana refuses to make series of them"
    points = {(row[0], *(row[index] for index in labels)) for row in answer.rows}
    if len(points) != len(answer.rows):
        yield "two rows for one time and series"


def _missing_columns(panel: Mapping[str, Any], columns: Sequence[str]) -> Iterator[str]:
    """Yield the columns that the panel's settings name and the query does not have."""
    settings = panel["fieldConfig"]
    named = {o["matcher"]["options"] for o in settings["overrides"] if o["matcher"]["id"] == "byName"}
    named |= set(re.findall(r"__field\.labels\.(\w+)", settings["defaults"].get("displayName", "")))
    named |= {panel["options"]["xField"]} if "xField" in panel["options"] else set()
    named |= {column["displayName"] for column in panel["options"].get("sortBy", [])}
    for name in sorted(named - set(columns)):
        yield f"the panel's settings name a column {name}, the query has {', '.join(columns)}"


def _plain_type(name: str) -> str:
    while match := re.fullmatch(r"(?:Nullable|LowCardinality)\((.*)\)", name):
        name = match[1]
    return name


def main(arguments: Sequence[str] | None = None) -> int:
    """Check all dashboards on the settings' ClickHouse; returns the exit code, 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m deploy.dashboard_check", description=__doc__)
    parser.add_argument("--hours", type=int, default=24, help="shown time, back from now (24)")
    chosen = parser.parse_args(arguments)
    now = datetime.now(UTC)
    try:
        client = connect_clickhouse(load_settings())
        results = check_dashboards(client, time_from=now - timedelta(hours=chosen.hours), time_to=now)
    except (MeterbookError, ClickHouseError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for result in results:
        sys.stdout.write(f"{'ok ' if not result.faults else 'BAD'} {len(result.rows):6} rows  {result.place}\n")
        for fault in result.faults:
            sys.stdout.write(f"    {fault}\n")
    return 1 if any(result.faults for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
