"""Questions about usage over HTTP, on fakes: what is asked is passed on whole, and a CSV is safe to open."""

from __future__ import annotations

import csv
import io
from typing import Any

import httpx2
import pytest

from core.errors import Fault, InvalidInputError, NotFoundError, UnavailableError
from core.meters import Registry
from tests.api.conftest import METERS, Fakes
from tests.api.test_bad_input import assert_refused

USAGE = "/api/v1/usage/acme"
SUMMARY = "/api/v1/usage/summary"
PAGE: dict[str, Any] = {
    "group_by": ["model"],
    "data": [
        {"start": "a", "end": "b", "dimensions": {"model": "=cmd|' /C calc'!A0"}, "quantity": "1.5", "events": 3},
        {"start": "a", "end": "b", "dimensions": {"model": 'größer, "x"'}, "quantity": "0", "events": 1},
    ],
    "next_cursor": "abc",
}


async def test_all_that_is_asked_is_passed_on(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.usage.answer = PAGE
    asked = {
        "meter": "llm_input_tokens", "window": "day", "from": "2026-10-01", "to": "2026-11-01", "group_by": ["model"],
        "filter": ["model:a", "model:b:c"], "limit": "7", "cursor": "xyz",
    }  # fmt: skip
    answer = await client.get(USAGE, params=asked)
    assert (answer.status_code, answer.json()) == (200, PAGE)
    assert fakes.usage.asked == [
        {
            "tenant": "acme", "meter": "llm_input_tokens", "window": "day", "start": "2026-10-01", "end": "2026-11-01",
            "group_by": ["model"], "filters": ["model:a", "model:b:c"], "limit": 7, "cursor": "xyz",
        }
    ]  # fmt: skip


async def test_little_need_be_asked(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    await client.get(USAGE, params={"meter": "api_requests"})
    await client.get(USAGE, params={"meter": "api_requests"})
    expected = {
        "tenant": "acme", "meter": "api_requests", "window": "total", "start": None, "end": None, "group_by": [],
        "filters": [], "limit": 1_000, "cursor": None,
    }  # fmt: skip
    assert fakes.usage.asked == [expected, expected]


@pytest.mark.parametrize(
    ("params", "accept"),
    [
        ({"format": "csv"}, "*/*"),
        ({}, "text/csv"),
        ({}, "text/csv;q=0.9, */*;q=0.1"),
        ({"format": "csv"}, "application/json"),
    ],
)
async def test_csv_comes_when_asked_for_and_no_cell_is_a_formula(
    client: httpx2.AsyncClient, fakes: Fakes, params: dict[str, str], accept: str
) -> None:
    fakes.usage.answer = PAGE
    answer = await client.get(USAGE, params={"meter": "llm_input_tokens", **params}, headers={"Accept": accept})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["content-disposition"] == 'attachment; filename="usage-acme-llm_input_tokens.csv"'
    assert answer.headers["next-cursor"] == "abc"
    assert list(csv.reader(io.StringIO(answer.text))) == [
        ["start", "end", "model", "quantity", "events"],
        ["a", "b", "'=cmd|' /C calc'!A0", "1.5", "3"],
        ["a", "b", 'größer, "x"', "0", "1"],
    ]


@pytest.mark.parametrize(
    ("params", "accept"),
    [({"format": "json"}, "text/csv"), ({}, "application/json, text/csv"), ({}, "*/*"), ({}, "")],
)
async def test_json_comes_otherwise(
    client: httpx2.AsyncClient, fakes: Fakes, params: dict[str, str], accept: str
) -> None:
    fakes.usage.answer = PAGE
    answer = await client.get(USAGE, params={"meter": "api_requests", **params}, headers={"Accept": accept})
    assert answer.json() == PAGE


async def test_a_summary_is_of_all_meters(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    row = {"meter": "api_requests", "unit": "request", "aggregation": "sum", "quantity": "5", "events": 2}
    fakes.usage.answer = {"period": "2026-10", "data": [row]}
    answer = await client.get(SUMMARY, params={"tenant_id": "acme", "period": "2026-10"})
    assert answer.json() == fakes.usage.answer
    assert fakes.usage.asked == [{"tenant": "acme", "period": "2026-10"}]
    answer = await client.get(SUMMARY, params={"tenant_id": "acme", "format": "csv"})
    assert answer.text == "meter,aggregation,unit,quantity,events\r\napi_requests,sum,request,5,2\r\n"


async def test_a_tenant_or_meter_that_is_new_is_looked_for_once_more(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.registry.later = Registry.of(["acme", "newco"], METERS)
    await client.get("/api/v1/usage/newco", params={"meter": "api_requests"})
    assert fakes.registry.looks == 1
    await client.get(USAGE, params={"meter": "api_requests"})
    assert fakes.registry.looks == 1


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({}, "/query/meter"),
        ({"meter": "m", "window": "week"}, "/query/window"),
        ({"meter": "m", "limit": "0"}, "/query/limit"),
        ({"meter": "m", "limit": "10001"}, "/query/limit"),
        ({"meter": "m", "format": "xml"}, "/query/format"),
        ({"meter": "m", "from": "x" * 65}, "/query/from"),
        ({"meter": "m", "group_by": ["a"] * 21}, "/query/group_by"),
    ],
)
async def test_wrong_parameters_are_named(client: httpx2.AsyncClient, params: Any, pointer: str) -> None:
    answer = await client.get(USAGE, params=params)
    assert_refused(answer, 422, "invalid_parameter")
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_refusals_and_outages_have_their_status(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    params = {"meter": "api_requests"}
    fakes.usage.failure = NotFoundError("no meter")
    assert_refused(await client.get(USAGE, params=params), 404, "not_found")
    fakes.usage.failure = InvalidInputError([Fault("too_many_windows", "more than 10000", "window")])
    assert_refused(await client.get(USAGE, params=params), 422, "too_many_windows")
    fakes.usage.failure = UnavailableError("usage cannot be read now")
    assert_refused(await client.get(USAGE, params=params), 503, "unavailable")
