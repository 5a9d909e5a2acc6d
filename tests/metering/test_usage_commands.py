"""The command and the API on the real engines: the same question gives the same answer, refusals tell why."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest
from typer.testing import CliRunner, Result

from api.application import create_app
from core.errors import ConflictError, InvalidInputError, NotFoundError
from metering.commands import app
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse
from runtime.processes.api import open_dependencies
from runtime.settings import Settings
from streams.domain.warehouse_rows import COLUMNS

pytestmark = pytest.mark.integration


@dataclass
class Place:
    settings: Settings
    tenant: str
    meter: str
    level: str

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    def insert(self, table: str, *rows: list[Any]) -> None:
        client = connect_clickhouse(self.settings)
        client.insert(table, list(rows), column_names=COLUMNS[table], settings=INSERT_SETTINGS)
        client.close()


@pytest.fixture(scope="module")
def place(settings: Settings) -> Place:
    """A tenant in Berlin with usage on the day the clocks go back."""
    name = uuid4().hex[:8]
    place = Place(settings, f"usage-{name}", f"tokens-{name}", f"stored-{name}")
    with psycopg.connect(settings.postgres, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO tenants (tenant_id, name, email, country, currency, time_zone, billing_anchor_day, created_at)"
            " VALUES (%s, 'U', 'u@example.com', 'DE', 'EUR', 'Europe/Berlin', 15, now())",
            (place.tenant,),
        )
        connection.execute(
            "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, dimensions, weight_per,"
            " created_at) VALUES (%s, 'token', %s, 'sum', 'n', '{model}', NULL, now()),"
            " (%s, 'GB-month', 'disk', 'time_weighted', 'gb', '{}', 'month', now())",
            (place.meter, f"kind-{name}", place.level),
        )

    def rollup(text: str, model: str, quantity: str, segment: int) -> list[Any]:
        start = datetime.fromisoformat(text).replace(tzinfo=UTC)
        return [place.tenant, place.meter, {"model": model}, start, 0, segment, Decimal(quantity), 1, 1]

    place.insert(
        "usage_rollups",
        rollup("2026-10-24T21:59", "=1+1", "1", 0),
        rollup("2026-10-24T22:00", "=1+1", "2.5", 0),
        rollup("2026-10-25T22:59", "gpt4", "4", 0),
        rollup("2026-10-25T22:59", "gpt4", "4", 7),
        rollup("2026-10-25T23:00", "gpt4", "8", 0),
    )
    long_ago = datetime(2025, 1, 1, tzinfo=UTC)
    place.insert("usage_samples", [place.tenant, place.level, {}, long_ago, 0, 1, 0, Decimal(10), "", 0, 1])
    return place


@pytest.fixture(autouse=True)
def _environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERBOOK_HOME", str(place.settings.home))


ASKED = ("--window", "day", "--from", "2026-10-24", "--to", "2026-10-27", "--group-by", "model")
ROWS = [
    ("2026-10-23T22:00:00Z", "2026-10-24T22:00:00Z", "=1+1", "1", 1),
    ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", "=1+1", "2.5", 1),
    ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", "gpt4", "8", 2),
    ("2026-10-25T23:00:00Z", "2026-10-26T23:00:00Z", "gpt4", "8", 1),
]  # 24, 25 and 24 hours long


def rows_of(page: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (row["start"], row["end"], row["dimensions"]["model"], row["quantity"], row["events"]) for row in page["data"]
    ]


def test_days_are_the_tenants_own(place: Place) -> None:
    found = place.run("usage", "query", place.tenant, "--meter", place.meter, *ASKED, "--json")
    assert found.exit_code == 0, found.output
    page = json.loads(found.stdout)
    assert rows_of(page) == ROWS
    assert (page["time_zone"], page["unit"], page["next_cursor"]) == ("Europe/Berlin", "token", None)


def test_pages_follow_each_other_and_a_csv_runs_nothing(place: Place) -> None:
    rows: list[list[str]] = []
    cursor: list[str] = []
    while True:
        asked = ("--meter", place.meter, *ASKED, "--limit", "3", *cursor)
        found = place.run("usage", "query", place.tenant, *asked, "--csv")
        rows += list(csv.reader(io.StringIO(found.stdout)))[1:]
        if "--cursor" not in found.stderr:
            break
        cursor = found.stderr.strip().removeprefix("more: ").split()
    assert rows == [[*row[:2], "'=1+1" if row[2] == "=1+1" else row[2], row[3], str(row[4])] for row in ROWS]


def test_a_table_for_people_has_it_too(place: Place) -> None:
    found = place.run("usage", "query", place.tenant, "--meter", place.meter, *ASKED, "--filter", "model:gpt4")
    assert "Europe/Berlin" in found.stdout
    assert found.stdout.count("gpt4") == 2
    assert "=1+1" not in found.stdout
    assert "19.5" in place.run("usage", "summary", place.tenant, "--period", "2026-10-15").stdout


def test_a_billing_period_is_summed_up_by_its_first_day(place: Place) -> None:
    found = json.loads(place.run("usage", "summary", place.tenant, "--period", "2026-10-15", "--json").stdout)
    assert (found["start"], found["end"]) == ("2026-10-14T22:00:00Z", "2026-11-14T23:00:00Z")
    totals = {row["meter"]: row["quantity"] for row in found["data"]}
    assert totals[place.meter] == "19.5"  # 1 + 2.5 + 8 + 8
    found = json.loads(place.run("usage", "summary", place.tenant, "--period", "2026-09-15", "--json").stdout)
    assert found["data"] == [
        {"meter": place.level, "unit": "GB-month", "aggregation": "time_weighted", "quantity": "10", "events": 0}
    ]


def test_refusals_tell_all_faults(place: Place) -> None:
    found = place.run("usage", "query", place.tenant, "--meter", place.meter, "--window", "week", "--group-by", "x")
    assert isinstance(found.exception, InvalidInputError)
    assert [fault.code for fault in found.exception.faults] == ["unknown_window", "unknown_dimension"]
    assert isinstance(place.run("usage", "summary", "nobody").exception, NotFoundError)


async def test_the_api_answers_alike(place: Place) -> None:
    async with open_dependencies(place.settings) as dependencies:
        transport = httpx2.ASGITransport(app=create_app(dependencies))
        async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid") as client:
            url = f"/api/v1/usage/{place.tenant}"
            asked = {"meter": place.meter, "window": "day", "from": "2026-10-24", "to": "2026-10-27"}
            answer = await client.get(url, params={**asked, "group_by": "model", "limit": "2"})
            rows = rows_of(answer.json())
            cursor = answer.json()["next_cursor"]
            answer = await client.get(url, params={**asked, "group_by": "model", "cursor": cursor})
            assert rows + rows_of(answer.json()) == ROWS
            minutes = {**asked, "window": "minute", "from": "2026-10-01", "to": "2026-10-31"}
            answer = await client.get(url, params=minutes)
            assert (answer.status_code, answer.json()["code"]) == (422, "too_many_windows")
            # As many windows as may be asked for, in one request.
            minutes = {**asked, "window": "minute", "from": "2026-10-20T00:00:00Z", "to": "2026-10-26T22:40:00Z"}
            answer = await client.get(url, params=minutes)
            assert [row["quantity"] for row in answer.json()["data"]] == ["1", "2.5", "8", "8"]
            answer = await client.get("/api/v1/usage/summary", params={"tenant_id": place.tenant, "period": "2026-10"})
            assert place.meter in {row["meter"] for row in answer.json()["data"]}


def test_meters_are_listed_and_one_that_was_there_all_along_has_nothing_to_fill(place: Place) -> None:
    listed = json.loads(place.run("meters", "list", "--json").stdout)["data"]
    assert next(row for row in listed if row["meter"] == place.level)["weight_per"] == "month"
    assert place.level in place.run("meters", "list").stdout
    found = place.run("meters", "backfill", place.meter)
    assert (found.exit_code, found.stdout) == (0, "nothing to fill: the meter is counted from the beginning\n")
    assert json.loads(place.run("meters", "backfill", place.meter, "--json").stdout)["data"] == []
    assert isinstance(place.run("meters", "backfill", "nothing").exception, NotFoundError)
    kind = f"kind-{place.meter.removeprefix('tokens-')}"
    now = datetime.now(UTC)
    place.insert("usage_events", [place.tenant, "s", "e", kind, "", now, '{"n": 1}', now, 0, 3, 0, 1])
    assert isinstance(place.run("meters", "backfill", place.meter).exception, ConflictError)
