"""Usage over HTTP: what is accepted, under which id, and what the broker gets."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import httpx2
import msgspec
import pytest

from api.ports import NotConfirmedError, OverloadedError
from core.meters import Registry
from core.usage_event import IngestLimits, UsageEvent, parse_event
from tests.api.conftest import METERS, NOW, Fakes

URL, BATCH_URL = "/api/v1/usage", "/api/v1/usage/batch"
CLOUD = {"content-type": "application/cloudevents+json"}
CLOUD_BATCH = {"content-type": "application/cloudevents-batch+json"}
PLAIN = {"content-type": "application/json"}
PLAIN_EVENT = {
    "tenant_id": "acme",
    "metric_type": "api_requests",
    "value": "2.5",
    "dimensions": {"endpoint": "/v1/search", "method": "GET"},
    "timestamp": "2026-10-20T11:59:00Z",
}


def cloud_event(**changes: Any) -> dict[str, Any]:
    event = {
        "specversion": "1.0",
        "id": "e1",
        "source": "gateway",
        "type": "api.request",
        "subject": "acme",
        "time": "2026-10-20T11:59:00Z",
        "data": {"requests": 3, "endpoint": "/v1/search"},
        **changes,
    }
    return {name: value for name, value in event.items() if value is not ...}


def as_the_stream_reads_it(value: bytes) -> UsageEvent:
    received_us = int(NOW.timestamp() * 1_000_000)
    judged = parse_event(value, Registry.of(["acme", "globex"], METERS), IngestLimits(), received_us)
    assert isinstance(judged, UsageEvent), judged
    return judged


@pytest.mark.parametrize("headers", [CLOUD, PLAIN, {"content-type": "application/json; charset=UTF-8"}])
async def test_a_cloud_event_goes_to_the_broker_byte_for_byte(
    headers: dict[str, str], client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    body = json.dumps(cloud_event(), indent=2).encode()
    answer = await client.post(URL, content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (202, {"id": "e1", "status": "accepted"})
    assert fakes.publisher.records == [("acme", body)]
    assert answer.headers["request-id"]


async def test_the_plain_form_becomes_a_cloud_event_that_the_stream_accepts(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    answer = await client.post(URL, json={**PLAIN_EVENT, "id": "p1"})
    [(tenant, value)] = fakes.publisher.records
    assert answer.json() == {"id": "p1", "status": "accepted", "form": "plain", "events": [json.loads(value)]}
    event = as_the_stream_reads_it(value)
    assert (tenant, event.id, event.source, event.type) == ("acme", "p1", "api", "api.request")
    assert event.measures == [("api_requests", ("/v1/search", "GET"), 2_500_000_000_000)]


async def test_a_number_keeps_every_digit_on_its_way(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    body = json.dumps(PLAIN_EVENT).replace('"2.5"', "123456789012345.123456789012")
    await client.post(URL, content=body, headers=PLAIN)
    [(_, value)] = fakes.publisher.records
    assert msgspec.json.decode(value)["data"]["requests"] == "123456789012345.123456789012"
    assert as_the_stream_reads_it(value).measures[0][2] == int(Decimal("123456789012345.123456789012").scaleb(12))


@pytest.mark.parametrize(
    ("body_id", "key", "expected"),
    [("mine", "key", "mine"), (None, "key-7", "key-7"), (None, '"quoted"', "quoted"), (None, None, "made-here")],
)
async def test_a_plain_event_is_named_by_itself_then_by_the_key_then_by_us(
    body_id: str | None, key: str | None, expected: str, client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    headers = {} if key is None else {"idempotency-key": key}
    answer = await client.post(URL, json={**PLAIN_EVENT, "id": body_id}, headers=headers)
    assert answer.json()["id"] == expected
    assert as_the_stream_reads_it(fakes.publisher.records[0][1]).id == expected


async def test_a_counting_meter_takes_one_and_refuses_five(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    counted = {**PLAIN_EVENT, "metric_type": "agent_executions", "dimensions": {"agent_type": "planner"}}
    for value in (1, "1", 1.0):
        assert (await client.post(URL, json={**counted, "value": value})).status_code == 202
    refused = await client.post(URL, json={**counted, "value": 5})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/value")
    assert len(fakes.publisher.records) == 3


async def test_nothing_is_promised_when_the_broker_does_not_confirm(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.publisher.failure = NotConfirmedError()
    answer = await client.post(URL, json=PLAIN_EVENT)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert int(answer.headers["retry-after"]) > 0
    # Repeating it under the same id is safe only if the caller knows the id.
    assert (answer.json()["code"], answer.json()["id"]) == ("not_confirmed", "made-here")
    fakes.publisher.failure = OverloadedError()
    batch = await client.post(BATCH_URL, json=[PLAIN_EVENT, cloud_event(id=5)])
    assert (batch.status_code, batch.json()["ids"]) == (503, ["made-here", None])


async def test_an_unknown_tenant_gets_a_second_look_at_a_newer_registry(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    fakes.registry.later = Registry.of(["acme", "newcomer"], METERS)
    assert (await client.post(URL, json=cloud_event(subject="newcomer"))).status_code == 202
    refused = await client.post(URL, json=cloud_event(subject="stranger"))
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_tenant")
    assert fakes.registry.looks == 2
    batch = await client.post(BATCH_URL, json=[cloud_event(subject="newcomer"), cloud_event()])
    assert [result["status"] for result in batch.json()["results"]] == ["accepted", "accepted"]


async def test_a_batch_is_one_record_per_tenant_and_good_neighbours_are_unharmed(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    events = [
        cloud_event(id="a"),
        cloud_event(id="bad", type="nobody.counts"),
        cloud_event(id="b", subject="globex/customer-7"),
        cloud_event(id=...),
        cloud_event(id="c", data={"requests": "4.25"}),
    ]
    answer = await client.post(BATCH_URL, content=json.dumps(events), headers=CLOUD_BATCH)
    assert answer.status_code == 202
    results = answer.json()["results"]
    assert [(r["index"], r["id"], r["status"], r.get("code"), r.get("pointer")) for r in results] == [
        (0, "a", "accepted", None, None),
        (1, "bad", "refused", "unknown_meter", "/1/type"),
        (2, "b", "accepted", None, None),
        (3, None, "refused", "missing_field", "/3/id"),
        (4, "c", "accepted", None, None),
    ]
    published = {
        tenant: [event["id"] for event in msgspec.json.decode(value)] for tenant, value in fakes.publisher.records
    }
    assert published == {"acme": ["a", "c"], "globex": ["b"]}
    assert len(fakes.publisher.records) == 2


async def test_a_batch_of_good_events_is_published_as_it_came_or_by_tenant(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    events = [cloud_event(id=name) for name in ("a", "b", "c")]
    body = json.dumps(events, indent=1).encode()
    answer = await client.post(BATCH_URL, content=body, headers=CLOUD_BATCH)
    assert [result["id"] for result in answer.json()["results"]] == ["a", "b", "c"]
    assert fakes.publisher.records.pop() == ("acme", body)
    events[1]["subject"] = "globex"
    answer = await client.post(BATCH_URL, json=events, headers=CLOUD_BATCH)
    assert [result["id"] for result in answer.json()["results"]] == ["a", "b", "c"]
    published = {tenant: [event["id"] for event in json.loads(value)] for tenant, value in fakes.publisher.records}
    assert published == {"acme": ["a", "c"], "globex": ["b"]}


async def test_a_batch_mixes_both_forms_and_names_plain_events_by_key_and_place(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    answer = await client.post(
        BATCH_URL, json=[PLAIN_EVENT, cloud_event(), PLAIN_EVENT], headers={"idempotency-key": "k"}
    )
    assert [result["id"] for result in answer.json()["results"]] == ["k-0", "e1", "k-2"]


async def test_a_batch_without_a_good_event_is_refused_with_every_reason(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    answer = await client.post(BATCH_URL, json=[cloud_event(subject="stranger"), {}, 5])
    assert (answer.status_code, answer.json()["code"]) == (422, "all_refused")
    assert [result["code"] for result in answer.json()["results"]] == [
        "unknown_tenant", "unknown_form", "not_an_object"
    ]  # fmt: skip
    assert fakes.publisher.records == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"[]", 422, "empty"),
        (b"{}", 400, "not_json"),
        (b"", 400, "not_json"),
        (b"[1", 400, "not_json"),
        (json.dumps([cloud_event()] * 101).encode(), 413, "too_large"),
        (b"[" + b" " * 200_000 + b"]", 413, "too_large"),
    ],
)
async def test_a_batch_that_is_none_is_refused_as_a_whole(
    body: bytes, status: int, code: str, client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    answer = await client.post(BATCH_URL, content=body, headers=CLOUD_BATCH)
    assert (answer.status_code, answer.json()["code"]) == (status if code != "empty" else 400, code)
    assert fakes.publisher.records == []
