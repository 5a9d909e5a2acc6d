"""The bad input set at the API: one typed refusal each, never a 500, never a trace in the broker."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conftest import Fakes
from tests.api.test_usage import BATCH_URL, CLOUD, CLOUD_BATCH, PLAIN, PLAIN_EVENT, URL, cloud_event

DEEP = 1_000


def with_data(text: str) -> bytes:
    """Return an event whose `requests` is this JSON text, as no encoder would write it."""
    return json.dumps(cloud_event(data={"requests": "@"})).replace('"@"', text).encode()


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "not json": (b"usage please", 400, "not_json"),
    "truncated": (json.dumps(cloud_event()).encode()[:-5], 400, "not_json"),
    "empty": (b"", 400, "empty"),
    "blank": (b" \n", 400, "empty"),
    "byte order mark": (b"\xef\xbb\xbf" + json.dumps(cloud_event()).encode(), 400, "not_json"),
    "utf-16": (json.dumps(cloud_event()).encode("utf-16"), 400, "not_json"),
    "invalid utf-8": (b'{"id": "\xff"}', 400, "not_json"),
    "lone surrogate": (json.dumps(cloud_event(id="\ud800")).encode(), 400, "not_json"),
    "null": (b"null", 400, "not_an_object"),
    "an array": (b"[]", 400, "not_an_object"),
    "a number": (b"5", 400, "not_an_object"),
    "too deep": (b'{"data":' + b"[" * DEEP + b"]" * DEEP + b"}", 400, "not_json"),
    "much too deep": (b"[" * 4_000, 400, "not_json"),
    "too large": (json.dumps(cloud_event(data={"requests": 1, "pad": "x" * 4_096})).encode(), 413, "too_large"),
    "NaN": (with_data("NaN"), 400, "not_json"),
    "Infinity": (with_data("Infinity"), 400, "not_json"),
    "NaN as text": (with_data('"NaN"'), 422, "invalid_quantity"),
    "Infinity as text": (with_data('"Infinity"'), 422, "quantity_out_of_range"),
    "1e400": (with_data("1e400"), 422, "quantity_out_of_range"),
    "1e400 as text": (with_data('"1e400"'), 422, "quantity_out_of_range"),
    "1e-30": (with_data("1e-30"), 422, "too_many_digits"),
    "beyond 2^63": (with_data("9223372036854775808"), 422, "quantity_out_of_range"),
    "beyond 2^64": (with_data("18446744073709551617"), 422, "quantity_out_of_range"),
    "comma": (with_data('"1,5"'), 422, "invalid_quantity"),
    "negative": (with_data("-1"), 422, "negative_quantity"),
    "negative text": (with_data('"-0.01"'), 422, "negative_quantity"),
    "boolean": (with_data("true"), 422, "invalid_quantity"),
    "null quantity": (with_data("null"), 422, "missing_quantity"),
    "object quantity": (with_data("{}"), 422, "invalid_quantity"),
    "other digits": (with_data('"١٢"'), 422, "invalid_quantity"),
    "no quantity": (json.dumps(cloud_event(data={"endpoint": "/"})).encode(), 422, "missing_quantity"),
    "data no object": (json.dumps(cloud_event(data=[1])).encode(), 422, "invalid_field"),
    "dimension no text": (with_data('1, "endpoint": {}'), 422, "invalid_dimension"),
    "no id": (json.dumps(cloud_event(id=...)).encode(), 422, "missing_field"),
    "null id": (json.dumps(cloud_event(id=None)).encode(), 422, "missing_field"),
    "empty id": (json.dumps(cloud_event(id="")).encode(), 422, "invalid_field"),
    "long id": (json.dumps(cloud_event(id="x" * 3_000)).encode(), 422, "invalid_field"),
    "number as id": (json.dumps(cloud_event(id=7)).encode(), 422, "invalid_field"),
    "line break in id": (json.dumps(cloud_event(id="a\r\nSet-Cookie: x")).encode(), 422, "invalid_field"),
    "NUL in id": (json.dumps(cloud_event(id="a\0b")).encode(), 422, "invalid_field"),
    "no source": (json.dumps(cloud_event(source=...)).encode(), 422, "missing_field"),
    "no time": (json.dumps(cloud_event(time=...)).encode(), 422, "missing_field"),
    "no specversion": (json.dumps(cloud_event(specversion=...)).encode(), 422, "missing_field"),
    "old specversion": (json.dumps(cloud_event(specversion="0.3")).encode(), 422, "unsupported_specversion"),
    "unknown meter": (json.dumps(cloud_event(type="nobody.counts")).encode(), 422, "unknown_meter"),
    "unknown tenant": (json.dumps(cloud_event(subject="stranger")).encode(), 422, "unknown_tenant"),
    "path as tenant": (json.dumps(cloud_event(subject="../acme")).encode(), 422, "unknown_tenant"),
    "sql as tenant": (json.dumps(cloud_event(subject="'; DROP TABLE invoices; --")).encode(), 422, "unknown_tenant"),
    "template as tenant": (json.dumps(cloud_event(subject="{{7*7}}")).encode(), 422, "unknown_tenant"),
    "time without zone": (json.dumps(cloud_event(time="2026-10-20T11:59:00")).encode(), 422, "time_without_zone"),
    "year 0001": (json.dumps(cloud_event(time="0001-01-01T00:00:00Z")).encode(), 422, "time_out_of_bounds"),
    "year 9999": (json.dumps(cloud_event(time="9999-12-31T23:59:59Z")).encode(), 422, "time_out_of_bounds"),
    "leap second": (json.dumps(cloud_event(time="2026-10-20T11:59:60Z")).encode(), 422, "invalid_time"),
    "no such day": (json.dumps(cloud_event(time="2026-02-29T00:00:00Z")).encode(), 422, "invalid_time"),
    "six minutes ahead": (json.dumps(cloud_event(time="2026-10-20T12:06:00Z")).encode(), 422, "future_time"),
    "last year": (json.dumps(cloud_event(time="2025-10-20T12:00:00Z")).encode(), 422, "too_old"),
}  # fmt: skip
REFUSED_PLAIN: dict[str, tuple[dict[str, Any], str, str]] = {
    "no tenant": ({"tenant_id": None}, "missing_field", "/tenant_id"),
    "number as tenant": ({"tenant_id": 7}, "invalid_field", "/tenant_id"),
    "unknown tenant": ({"tenant_id": "stranger"}, "unknown_tenant", "/tenant_id"),
    "no meter": ({"metric_type": None}, "missing_field", "/metric_type"),
    "unknown meter": ({"metric_type": "steps"}, "unknown_meter", "/metric_type"),
    "no time": ({"timestamp": None}, "missing_field", "/timestamp"),
    "unix time": ({"timestamp": 1_792_497_540}, "invalid_field", "/timestamp"),
    "time without zone": ({"timestamp": "2026-10-20T11:59:00"}, "time_without_zone", "/timestamp"),
    "no value": ({"value": None}, "missing_field", "/value"),
    "negative": ({"value": -1}, "negative_quantity", "/value"),
    "a word": ({"value": "many"}, "invalid_quantity", "/value"),
    "a list": ({"value": [1]}, "invalid_quantity", "/value"),
    "dimensions no object": ({"dimensions": [1]}, "invalid_field", "/dimensions"),
    "dimension no text": ({"dimensions": {"endpoint": [1]}}, "invalid_dimension", "/dimensions/endpoint"),
    "value among dimensions": ({"dimensions": {"requests": 5}}, "invalid_dimension", "/dimensions/requests"),
    "number as id": ({"id": 5}, "invalid_field", "/id"),
    "empty id": ({"id": ""}, "invalid_field", "/id"),
}


def assert_refused(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert problem["status"] == status
    assert problem["type"] == f"urn:meterbook:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == f"urn:uuid:{answer.headers['request-id']}"
    assert "Traceback" not in answer.text
    return problem


@pytest.mark.parametrize("name", REFUSED)
async def test_one_event_is_refused_with_its_code(name: str, client: httpx2.AsyncClient, fakes: Fakes) -> None:
    body, status, code = REFUSED[name]
    problem = assert_refused(await client.post(URL, content=body, headers=CLOUD), status, code)
    if status == 422:
        assert problem["errors"][0]["code"] == code
    assert fakes.publisher.records == []


@pytest.mark.parametrize("name", [name for name, (body, _, _) in REFUSED.items() if body.strip()[:1] == b"{"])
async def test_the_same_in_a_batch_harms_no_neighbour(name: str, client: httpx2.AsyncClient, fakes: Fakes) -> None:
    body, _, code = REFUSED[name]
    batch = b"[" + json.dumps(cloud_event(id="good")).encode() + b"," + body + b"]"
    answer = await client.post(BATCH_URL, content=batch, headers=CLOUD_BATCH)
    if answer.status_code == 400:
        # An element that breaks the array's own syntax: where the next one begins cannot be known.
        assert code == "not_json"
        assert_refused(answer, 400, "not_json")
        assert fakes.publisher.records == []
        return
    assert answer.status_code == 202
    good, bad = answer.json()["results"]
    assert (good["status"], bad["status"], bad["code"]) == ("accepted", "refused", code)
    [(_, value)] = fakes.publisher.records
    assert [event["id"] for event in json.loads(value)] == ["good"]


@pytest.mark.parametrize("name", REFUSED_PLAIN)
async def test_a_plain_event_is_refused_where_its_caller_wrote_it(
    name: str, client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    changes, code, pointer = REFUSED_PLAIN[name]
    problem = assert_refused(await client.post(URL, json={**PLAIN_EVENT, **changes}), 422, code)
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert fakes.publisher.records == []


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/xml"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": ""},
        {"content-type": "application/json; charset=utf-16"},
        {**CLOUD, "content-encoding": "br"},
    ],
)
async def test_another_media_type_or_encoding_is_refused(
    headers: dict[str, str], client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    for url in (URL, BATCH_URL):
        answer = await client.post(url, content=json.dumps(cloud_event()), headers=headers)
        assert_refused(answer, 415, "unsupported_media_type")
    assert fakes.publisher.records == []


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
async def test_a_bomb_is_unpacked_no_further_than_a_body_may_be(
    encoding: str, pack: Callable[[bytes], bytes], client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    bomb = pack(b" " * 10_000_000)
    assert len(bomb) < 16_384
    for url, media, body in ((URL, CLOUD, bomb), (BATCH_URL, CLOUD_BATCH, bomb)):
        answer = await client.post(url, content=body, headers={**media, "content-encoding": encoding})
        assert_refused(answer, 413, "too_large")
    assert fakes.publisher.records == []


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("body", [b"", b"usage please", gzip.compress(b"{}", mtime=0)[:-4], zstd.compress(b"{}")[:-2]])
async def test_a_body_that_is_not_packed_as_it_says_is_refused(
    body: bytes, encoding: str, client: httpx2.AsyncClient
) -> None:
    answer = await client.post(URL, content=body, headers={**CLOUD, "content-encoding": encoding})
    assert_refused(answer, 400, "invalid_encoding")


async def test_a_body_that_hides_its_length_is_cut_off(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    async def endless() -> Any:
        for _ in range(1_000):
            yield b" " * 10_000

    for url, media in ((URL, CLOUD), (BATCH_URL, CLOUD_BATCH), ("/api/v1/webhooks/stripe", {})):
        assert_refused(await client.post(url, content=endless(), headers=media), 413, "too_large")


@pytest.mark.parametrize("key", ["", " ", "x" * 201, "sch\xf6n"])
async def test_a_bad_idempotency_key_is_refused(key: str, client: httpx2.AsyncClient, fakes: Fakes) -> None:
    headers = [(b"idempotency-key", key.encode("latin-1"))]
    for url, body in ((URL, PLAIN_EVENT), (BATCH_URL, [PLAIN_EVENT])):
        assert_refused(await client.post(url, json=body, headers=headers), 422, "invalid_field")


@pytest.mark.parametrize(
    ("method", "url", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("DELETE", "/api/v1/usage", 405, "method_not_allowed"),
        ("GET", "/api/v1/usage/current", 422, "invalid_parameter"),
        ("GET", "/api/v1/usage/current?tenant_id=..%2Fx", 422, "invalid_parameter"),
        ("GET", "/api/v1/usage/current?tenant_id=a%00b", 422, "invalid_parameter"),
        ("GET", "/api/v1/usage/current?tenant_id=acme%0A", 422, "invalid_parameter"),
        ("GET", "/api/v1/usage/current?tenant_id=acme&period=2026-13", 422, "invalid_period"),
        ("GET", "/api/v1/usage/current?tenant_id=acme&meter=steps", 404, "not_found"),
        ("GET", "/api/v1/usage/current?tenant_id=acme&meter=%00", 404, "not_found"),
        ("GET", "/api/v1/usage/current?tenant_id=stranger", 404, "not_found"),
        ("GET", "/api/v1/invoices?limit=0", 422, "invalid_parameter"),
        ("GET", "/api/v1/invoices?limit=1e400", 422, "invalid_parameter"),
        ("GET", "/api/v1/invoices?status=stolen", 422, "invalid_parameter"),
        ("GET", "/api/v1/invoices?starting_after=%27%3B--", 422, "invalid_parameter"),
        ("GET", "/api/v1/invoices/inv_none", 404, "not_found"),
        ("GET", "/api/v1/invoices/%2E%2E%2F", 404, "not_found"),
        ("GET", "/api/v1/invoices/inv%00", 422, "invalid_parameter"),
    ],
)
async def test_bad_addresses_and_parameters_are_refused(
    method: str, url: str, status: int, code: str, client: httpx2.AsyncClient
) -> None:
    assert_refused(await client.request(method, url), status, code)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from([*cloud_event(), *PLAIN_EVENT]), json_values, max_size=4))
async def test_no_value_in_any_field_breaks_it(
    changes: dict[str, Any], client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    for event in ({**cloud_event(), **changes}, {**PLAIN_EVENT, **changes}):
        one = await client.post(URL, content=json.dumps(event), headers=PLAIN)
        assert one.status_code in (202, 400, 413, 422), one.text
        several = await client.post(BATCH_URL, content=json.dumps([event, cloud_event()]), headers=PLAIN)
        assert several.status_code in (202, 400, 413), several.text


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
async def test_no_bytes_break_it(body: bytes, client: httpx2.AsyncClient) -> None:
    for url in (URL, BATCH_URL):
        answer = await client.post(url, content=body, headers=PLAIN)
        assert 400 <= answer.status_code < 500
