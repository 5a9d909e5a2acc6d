"""Input forms over HTTP: what a caller is told they became, binary mode, packed bodies, and what the broker gets."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx2
import jsonschema
import msgspec
import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.application import create_app
from api.ports import NotConfirmedError
from api.routes import usage_docs
from catalogues.load_catalogue import load_catalogue, shipped_files
from core.meters import Registry
from core.usage_event import IngestLimits, UsageEvent, parse_event
from tests.api.conftest import NOW, Fakes
from tests.api.test_bad_input import assert_refused, json_values
from tests.api.test_usage import BATCH_URL, CLOUD, CLOUD_BATCH, PLAIN, PLAIN_EVENT, URL, cloud_event

SHIPPED = Registry.of(["acme", "globex"], load_catalogue(shipped_files()).meters)
BUNDLE: dict[str, Any] = {
    "tenant_id": "acme",
    "timestamp": "2026-10-20T11:59:00Z",
    "cpu_seconds": 812.25,
    "executions": 12,
}
SERVICE: dict[str, Any] = {
    "tenant_id": "acme",
    "service": "analytics",
    "usage_type": "query",
    "quantity": 3,
    "timestamp": 1792497540.25,
}
PERIOD: dict[str, Any] = {
    "tenant_id": "globex",
    "resource_type": "memory",
    "quantity": "1.5",
    "unit": "GB-hour",
    "period_start": "2026-10-20T10:00:00Z",
    "period_end": "2026-10-20T11:00:00Z",
    "source": "monitor-1",
}
CE = {
    "ce-specversion": "1.0",
    "ce-id": "b1",
    "ce-source": "gateway%20north",
    "ce-type": "api.request",
    "ce-subject": "acme",
    "ce-time": "2026-10-20T11:59:00Z",
}


@pytest.fixture(autouse=True)
def shipped_meters(fakes: Fakes) -> None:
    fakes.registry.known = SHIPPED


def measured(value: bytes) -> list[Any]:
    judged = parse_event(value, SHIPPED, IngestLimits(), int(NOW.timestamp()) * 1_000_000)
    assert isinstance(judged, UsageEvent), judged
    return judged.measures


async def test_a_bundle_is_one_record_of_several_events_and_the_answer_shows_them(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    answer = await client.post(URL, json=BUNDLE, headers={"idempotency-key": "node-7"})
    assert answer.status_code == 202
    [(tenant, value)] = fakes.publisher.records
    events = json.loads(value)
    assert answer.json() == {"id": "node-7", "status": "accepted", "form": "bundle", "events": events}
    assert [(tenant, event["id"]) for event in events] == [
        ("acme", "node-7:cpu_seconds"),
        ("acme", "node-7:executions"),
    ]
    again = await client.post(URL, json=BUNDLE, headers={"idempotency-key": "node-7"})
    assert again.json() == answer.json()


@pytest.mark.parametrize(
    ("form", "name", "expected"),
    [
        (SERVICE, "service", [("service_usage", ("analytics", "query"), 3_000_000_000_000)]),
        (PERIOD, "period", [("memory", (), 1_500_000_000_000)]),
        (PLAIN_EVENT, "plain", [("api_requests", ("/v1/search", "GET"), 2_500_000_000_000)]),
    ],
)
async def test_a_form_of_one_event_is_that_event(
    form: dict[str, Any], name: str, expected: list[Any], client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    answer = (await client.post(URL, json={**form, "id": "x1"})).json()
    [(_, value)] = fakes.publisher.records
    assert (answer["id"], answer["form"], answer["events"]) == ("x1", name, [json.loads(value)])
    assert measured(value) == expected


@pytest.mark.parametrize("url", ["/api/v1/usage/report", "/api/v1/uso"])
async def test_the_earlier_services_paths_take_the_same(url: str, client: httpx2.AsyncClient, fakes: Fakes) -> None:
    for event in (cloud_event(), SERVICE):
        assert (await client.post(url, json=event)).status_code == 202
    assert len(fakes.publisher.records) == 2


async def test_a_batch_mixes_all_forms_one_record_per_tenant(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    batch = [BUNDLE, cloud_event(), PERIOD, {**SERVICE, "usage_type": "upload", "quantity": -1}, PLAIN_EVENT]
    answer = await client.post(BATCH_URL, json=batch, headers={"idempotency-key": "k"})
    results = answer.json()["results"]
    assert [(r["id"], r["status"], r.get("form"), len(r.get("events", []))) for r in results] == [
        ("k-0", "accepted", "bundle", 2),
        ("e1", "accepted", None, 0),
        ("k-2", "accepted", "period", 1),
        (None, "refused", None, 0),
        ("k-4", "accepted", "plain", 1),
    ]
    assert [(error["code"], error["pointer"]) for error in results[3]["errors"]] == [
        ("unknown_usage_type", "/3/usage_type"),
        ("negative_quantity", "/3/quantity"),
    ]
    published = {tenant: [event["id"] for event in json.loads(value)] for tenant, value in fakes.publisher.records}
    assert published == {"acme": ["k-0:cpu_seconds", "k-0:executions", "e1", "k-4"], "globex": ["k-2"]}


async def test_every_fault_of_a_form_is_in_the_problem(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    answer = await client.post(URL, json={"service": "mail", "quantity": "1,5"})
    problem = assert_refused(answer, 422, "missing_field")
    assert [(error["code"], error["pointer"]) for error in problem["errors"]] == [
        ("missing_field", "/tenant_id"),
        ("missing_field", "/usage_type"),
        ("missing_field", "/timestamp"),
        ("unknown_service", "/service"),
        ("invalid_quantity", "/quantity"),
    ]
    problem = assert_refused(await client.post(URL, json={"tenant_id": "acme"}), 422, "unknown_form")
    assert [error["pointer"] for error in problem["errors"]] == ["", "/metric_type", "/timestamp", "/value"]
    assert_refused(await client.post(URL, json={**SERVICE, "executions": 1}), 422, "ambiguous_form")
    problem = assert_refused(await client.post(URL, json={"type": "api.request", "data": {}}), 422, "missing_field")
    assert [error["pointer"] for error in problem["errors"]] == [
        "/specversion", "/id", "/source", "/subject", "/time"
    ]  # fmt: skip
    # Five events of one bundle share a tenant, and so the fault is one.
    problem = assert_refused(await client.post(URL, json={**BUNDLE, "tenant_id": "nobody"}), 422, "unknown_tenant")
    assert len(problem["errors"]) == 1
    assert fakes.publisher.records == []


async def test_only_a_cloud_event_is_taken_as_one(client: httpx2.AsyncClient) -> None:
    for form in (BUNDLE, SERVICE, PERIOD, PLAIN_EVENT):
        assert_refused(await client.post(URL, content=json.dumps(form), headers=CLOUD), 422, "missing_field")


async def test_a_form_may_have_a_dimension_called_like_a_cloud_events_mark(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    usage = {**PLAIN_EVENT, "dimensions": {"specversion": "1.0"}}
    assert (await client.post(URL, json=usage)).json()["form"] == "plain"


async def test_the_id_of_a_form_goes_back_when_nothing_is_promised(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.publisher.failure = NotConfirmedError()
    assert (await client.post(URL, json=BUNDLE)).json()["id"] == "made-here"


async def test_a_binary_cloud_event_is_published_structured(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    data = '{"requests": 0.1, "endpoint": "/v1/search"}'
    for media in ("application/json", "application/vnd.acme+json; charset=utf-8"):
        answer = await client.post(URL, content=data, headers={**CE, "Content-Type": media})
        assert (answer.status_code, answer.json()) == (202, {"id": "b1", "status": "accepted"})
    value = fakes.publisher.records[0][1]
    assert json.loads(value)["source"] == "gateway north"
    assert data.encode() in value
    assert measured(value) == [("api_requests", ("/v1/search", ""), 100_000_000_000)]


@pytest.mark.parametrize(
    ("changes", "body", "status", "code", "pointer"),
    [
        ({"ce-id": ""}, "{}", 422, "missing_field", "/id"),
        ({"ce-type": "nobody.counts"}, '{"requests": 1}', 422, "unknown_meter", "/type"),
        ({"ce-source": "50%"}, "{}", 422, "invalid_field", "/source"),
        ({"content-type": "application/avro"}, "{}", 415, "unsupported_media_type", "/datacontenttype"),
        ({}, "[]", 422, "invalid_field", "/data"),
        ({}, "usage", 400, "not_json", "/data"),
        ({}, "", 422, "missing_field", "/data"),
        ({}, '{"requests": -1}', 422, "negative_quantity", "/data/requests"),
        ({"content-type": CLOUD["content-type"]}, '{"id": "other"}', 422, "ambiguous_mode", "/specversion"),
    ],
)
async def test_a_bad_binary_event_is_refused(
    changes: dict[str, str], body: str, status: int, code: str, pointer: str, client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    headers = {**CE, "content-type": "application/json", **changes}
    problem = assert_refused(await client.post(URL, content=body, headers=headers), status, code)
    assert problem["errors"][0]["pointer"] == pointer
    assert fakes.publisher.records == []


async def test_attributes_beside_a_structured_event_must_agree(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    headers = {**CLOUD, "ce-id": "e1", "ce-subject": "acme"}
    assert (await client.post(URL, json=cloud_event(), headers=headers)).status_code == 202
    answer = await client.post(URL, json=cloud_event(id="e2"), headers=headers)
    assert_refused(answer, 422, "ambiguous_mode")


async def test_attributes_beside_a_batch_are_refused(client: httpx2.AsyncClient) -> None:
    for media in (CLOUD_BATCH, PLAIN):
        answer = await client.post(BATCH_URL, json=[cloud_event()], headers={**media, **CE})
        assert_refused(answer, 422, "ambiguous_mode")


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("GZIP", gzip.compress), ("zstd", zstd.compress)]
)
async def test_a_packed_body_is_taken(
    encoding: str, pack: Callable[[bytes], bytes], client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    body = json.dumps(cloud_event()).encode()
    one = await client.post(URL, content=pack(body), headers={**CLOUD, "content-encoding": encoding})
    # In parts, as some packers write them.
    several = pack(b"[" + body) + pack(b"," + json.dumps(cloud_event(id="e2")).encode() + b"]")
    batch = await client.post(BATCH_URL, content=several, headers={**CLOUD_BATCH, "content-encoding": encoding})
    assert (one.status_code, batch.status_code) == (202, 202)
    assert fakes.publisher.records[0] == ("acme", body)
    assert [event["id"] for event in json.loads(fakes.publisher.records[1][1])] == ["e1", "e2"]


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "compress"])
async def test_other_packings_are_not_taken(encoding: str, client: httpx2.AsyncClient) -> None:
    answer = await client.post(URL, content=b"x", headers={**CLOUD, "content-encoding": encoding})
    assert_refused(answer, 415, "unsupported_media_type")


async def test_a_tenants_batch_is_cut_where_the_stream_would_refuse_it(fakes: Fakes) -> None:
    limits = IngestLimits(max_bytes=4_096, max_batch_bytes=20_000, max_batch_events=15)
    app = create_app(replace(fakes.dependencies(), ingest_limits=limits))
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid") as client:
        events = [
            cloud_event(id=f"e{n}", data={"requests": 1, "pad": "x" * (1_800 if n < 40 else 1)}) for n in range(90)
        ]
        answer = await client.post(BATCH_URL, content=json.dumps(events), headers=CLOUD_BATCH)
    assert answer.status_code == 202
    arrays = [json.loads(value) for _, value in fakes.publisher.records]
    assert [event["id"] for array in arrays for event in array] == [f"e{n}" for n in range(90)]
    assert max(len(value) for _, value in fakes.publisher.records) <= 20_000
    assert max(map(len, arrays)) == 15


@pytest.mark.parametrize("schema", usage_docs.FORMS, ids=lambda schema: schema["title"])
async def test_every_documented_example_is_accepted_and_fits_its_schema(
    schema: dict[str, Any], client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    [example] = schema["examples"]
    jsonschema.validate(example, schema)
    answer = await client.post(URL, json=example)
    assert answer.status_code == 202, answer.text
    jsonschema.validate(
        answer.json(), usage_docs.EVENT_DOCS["responses"]["202"]["content"]["application/json"]["schema"]
    )
    batch = await client.post(BATCH_URL, json=[example, {}])
    jsonschema.validate(
        batch.json(), usage_docs.BATCH_DOCS["responses"]["202"]["content"]["application/json"]["schema"]
    )


async def test_a_refusal_is_what_the_documentation_says(client: httpx2.AsyncClient) -> None:
    described = usage_docs.EVENT_DOCS["responses"]["422"]["content"]["application/problem+json"]["schema"]
    refused = (await client.post(URL, json={"service": 5})).json()
    assert len(refused["errors"]) == 5
    jsonschema.validate(refused, described)


names = sorted({*BUNDLE, *SERVICE, *PERIOD, *PLAIN_EVENT, *cloud_event(), "dimensions", "id"})


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from([BUNDLE, SERVICE, PERIOD, PLAIN_EVENT]),
    changes=st.dictionaries(st.sampled_from(names), json_values, max_size=4),
)
async def test_no_value_in_any_field_of_any_form_breaks_it(
    form: dict[str, Any], changes: dict[str, Any], client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    answer = await client.post(URL, content=json.dumps({**form, **changes}), headers=PLAIN)
    assert answer.status_code in (202, 400, 413, 422), answer.text
    if answer.status_code != 202:
        assert answer.json()["code"]
    batch = await client.post(BATCH_URL, content=json.dumps([{**form, **changes}, cloud_event()]), headers=PLAIN)
    assert batch.status_code in (202, 400, 413), batch.text


header_names = st.sampled_from([*CE, "ce-", "ce-data", "content-type", "content-encoding", "idempotency-key"])
header_values = st.sampled_from(
    ["1.0", "acme", "application/json", "application/cloudevents+json", "gzip", "zstd", "%", '"', "api.request", ""]
) | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    headers=st.dictionaries(header_names, header_values, max_size=8),
    body=st.binary(max_size=60)
    | st.just(b"{}")
    | st.binary(max_size=20).map(gzip.compress)
    | st.just(b'{"requests":1}'),
)
async def test_no_headers_and_bytes_break_it(headers: dict[str, str], body: bytes, client: httpx2.AsyncClient) -> None:
    for url in (URL, BATCH_URL):
        answer = await client.post(url, content=body, headers={**CE, "content-type": "application/json", **headers})
        assert answer.status_code in (202, 400, 413, 415, 422), answer.text


def test_the_answer_repeats_the_bytes_that_were_published() -> None:
    # Raw bytes within an encoded answer must stay JSON, whatever the event carries.
    raw = msgspec.Raw(b'{"a": "\\u00e9\\n"}')
    assert json.loads(msgspec.json.encode({"events": [raw]})) == {"events": [{"a": "é\n"}]}
