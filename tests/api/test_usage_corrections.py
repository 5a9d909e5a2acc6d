"""Corrections over HTTP: as CloudEvents and in their plain form; what is refused before the stream sees it."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.ports import NotConfirmedError
from api.routes import usage_docs
from core.corrections import Backfill, Correction, read_reserved
from core.meters import Registry
from core.usage_event import IngestLimits, ReservedEvent, parse_event
from tests.api.conftest import METERS, NOW, Fakes
from tests.api.test_bad_input import assert_refused, json_values
from tests.api.test_usage import BATCH_URL, CLOUD, PLAIN, URL, cloud_event

NOW_US = int(NOW.timestamp()) * 1_000_000
TARGET = {"source": "gateway", "id": "e1"}
CONTENT = {"type": "api.request", "time": "2026-01-05T12:00:00Z", "data": {"requests": 2}}
VOID: dict[str, Any] = {"tenant_id": "acme", "corrects": TARGET, "reason": "sent by a test"}
AMEND: dict[str, Any] = {**VOID, "event": CONTENT}
BACKFILL: dict[str, Any] = {
    "tenant_id": "acme",
    "start": "2026-01-01T00:00:00Z",
    "end": "2026-02-01T00:00:00Z",
    "events": [{"id": "j1", **CONTENT}, {"id": "j2", **CONTENT, "data": {"requests": "0.5"}}],
    "reason": "a log was found",
}
FORMS = {"void": VOID, "amend": AMEND, "backfill": BACKFILL}


def correction_event(kind: str, **changes: Any) -> dict[str, Any]:
    data = {name: value for name, value in FORMS[kind].items() if name != "tenant_id"}
    return cloud_event(**{"id": f"{kind}-1", "type": f"meterbook.usage.{kind}", "data": data, **changes})


def as_the_stream_reads_it(value: bytes) -> Any:
    registry = Registry.of(["acme", "globex"], METERS)
    event = parse_event(value, registry, IngestLimits(), NOW_US)
    assert isinstance(event, ReservedEvent), event
    return read_reserved(event, registry, NOW_US)


@pytest.mark.parametrize("kind", FORMS)
async def test_a_plain_correction_becomes_its_cloud_event(kind: str, client: httpx2.AsyncClient, fakes: Fakes) -> None:
    answer = await client.post(f"{URL}/{kind}", json=FORMS[kind], headers={"idempotency-key": "c1"})
    assert (answer.status_code, answer.json()) == (202, {"id": "c1", "status": "accepted"})
    [(tenant, value)] = fakes.publisher.records
    event = json.loads(value)
    assert (tenant, event["id"], event["source"], event["type"]) == ("acme", "c1", "api", f"meterbook.usage.{kind}")
    assert event["time"] == "2026-10-20T12:00:00Z"
    read = as_the_stream_reads_it(value)
    if kind == "backfill":
        assert isinstance(read, Backfill)
        assert [json.loads(item)["id"] for item in read.items] == ["j1", "j2"]
    else:
        assert isinstance(read, Correction)
        assert (read.kind, read.target_source, read.target_id, read.reason) == (kind, "gateway", "e1", "sent by a test")
        assert (read.replacement is None) == (kind == "void")


@pytest.mark.parametrize("kind", FORMS)
async def test_a_correction_may_be_a_cloud_event_like_any_other(
    kind: str, client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    body = json.dumps(correction_event(kind)).encode()
    for headers in (CLOUD, PLAIN):
        answer = await client.post(URL, content=body, headers=headers)
        assert (answer.status_code, answer.json()) == (202, {"id": f"{kind}-1", "status": "accepted"})
    assert fakes.publisher.records == [("acme", body)] * 2


async def test_in_a_batch_a_backfill_is_a_record_of_its_own(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    batch = [cloud_event(), correction_event("backfill"), correction_event("void"), cloud_event(id="e2")]
    answer = await client.post(BATCH_URL, json=batch)
    assert [result["status"] for result in answer.json()["results"]] == ["accepted"] * 4
    together, alone = fakes.publisher.records
    assert [event["id"] for event in json.loads(together[1])] == ["e1", "void-1", "e2"]
    assert (alone[0], json.loads(alone[1])["id"]) == ("acme", "backfill-1")


async def test_a_batch_of_nothing_but_a_backfill_is_no_array(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    assert (await client.post(BATCH_URL, json=[correction_event("backfill")])).status_code == 202
    [(_, value)] = fakes.publisher.records
    assert json.loads(value)["id"] == "backfill-1"


async def test_a_binary_void_is_taken(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    event = correction_event("void")
    headers = {f"ce-{name}": text for name, text in event.items() if name != "data"}
    assert (await client.post(URL, json=event["data"], headers=headers)).status_code == 202
    assert isinstance(as_the_stream_reads_it(fakes.publisher.records[0][1]), Correction)


@pytest.mark.parametrize(
    ("kind", "changes", "code", "pointers"),
    [
        ("void", {"tenant_id": None, "corrects": None}, "missing_field", ["/tenant_id", "/corrects"]),
        ("void", {"tenant_id": "stranger"}, "unknown_tenant", ["/tenant_id"]),
        ("void", {"corrects": {"source": "gateway"}}, "invalid_correction", [""]),
        ("void", {"corrects": {**TARGET, "id": ""}}, "invalid_correction", ["/corrects/id"]),
        ("void", {"corrects": {"source": "api", "id": "made-here"}}, "not_correctable", ["/corrects"]),
        ("void", {"reason": "x" * 501}, "invalid_correction", ["/reason"]),
        ("void", {"reason": 5}, "invalid_field", ["/reason"]),
        ("void", {"event": CONTENT}, "unknown_field", ["/event"]),
        ("void", {"timestamp": "2026-10-20T11:59:00"}, "time_without_zone", ["/timestamp"]),
        ("void", {"timestamp": "2026-10-20T13:00:00Z"}, "future_time", ["/timestamp"]),
        ("amend", {"event": None}, "missing_field", ["/event"]),
        ("amend", {"event": {**CONTENT, "data": {"requests": -1}}}, "negative_quantity", ["/event/data/requests"]),
        ("amend", {"event": {**CONTENT, "type": "nobody.counts"}}, "unknown_meter", ["/event/type"]),
        ("amend", {"event": {**CONTENT, "type": "meterbook.usage.void"}}, "invalid_correction", ["/event/type"]),
        ("backfill", {"end": "2026-11-01T00:00:00Z"}, "invalid_range", ["/end"]),
        ("backfill", {"events": []}, "invalid_range", ["/events"]),
        ("backfill", {"start": None, "events": None}, "missing_field", ["/start", "/events"]),
        (
            "backfill",
            {
                "events": [
                    {"id": "a", **CONTENT},
                    {"id": "b", **CONTENT, "time": "2026-02-01T00:00:00Z"},
                    {"id": "c", **CONTENT, "data": {"requests": "many"}},
                ]
            },
            "outside_range",
            ["/events/1/time", "/events/2/data/requests"],
        ),
    ],
)  # fmt: skip
async def test_a_bad_correction_is_refused_where_its_caller_wrote_it(
    kind: str, changes: dict[str, Any], code: str, pointers: list[str], client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    problem = assert_refused(await client.post(f"{URL}/{kind}", json={**FORMS[kind], **changes}), 422, code)
    assert [error["pointer"] for error in problem["errors"]] == pointers
    assert fakes.publisher.records == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b"null", b'{"tenant_id": "\xff"}', b"[" * 5_000])
async def test_what_is_no_correction_at_all_is_refused(body: bytes, client: httpx2.AsyncClient) -> None:
    for kind in FORMS:
        answer = await client.post(f"{URL}/{kind}", content=body, headers=PLAIN)
        assert_refused(answer, 413 if len(body) > 4_096 else 400, answer.json()["code"])
    assert_refused(await client.post(f"{URL}/void", json=VOID, headers=CLOUD), 415, "unsupported_media_type")


async def test_what_only_meterbook_writes_is_refused(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    data = {"meter": "api_requests", "before": 5, "last": True, "measures": []}
    event = cloud_event(type="meterbook.meter.backfill", source="meterbook", data=data)
    assert_refused(await client.post(URL, json=event), 422, "reserved_type")
    batch = await client.post(BATCH_URL, json=[event])
    assert batch.json()["results"][0]["code"] == "reserved_type"
    assert fakes.publisher.records == []


async def test_a_tenant_of_a_moment_ago_may_correct(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.registry.later = Registry.of(["acme", "newcomer"], METERS)
    assert (await client.post(f"{URL}/void", json={**VOID, "tenant_id": "newcomer"})).status_code == 202


async def test_the_id_of_a_correction_goes_back_when_nothing_is_promised(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    fakes.publisher.failure = NotConfirmedError()
    answer = await client.post(f"{URL}/void", json=VOID)
    assert (answer.status_code, answer.json()["id"]) == (503, "made-here")


@pytest.mark.parametrize("name", ["VOID", "AMEND", "BACKFILL"])
async def test_every_documented_correction_is_accepted(name: str, client: httpx2.AsyncClient, fakes: Fakes) -> None:
    schema = getattr(usage_docs, name)
    [example] = schema["examples"]
    jsonschema.validate(example, schema)
    assert (await client.post(f"{URL}/{name.lower()}", json=example)).status_code == 202
    assert as_the_stream_reads_it(fakes.publisher.records[0][1])


names = st.sampled_from(["tenant_id", "corrects", "reason", "event", "start", "end", "events", "id", "source", "x"])
parts = json_values | st.sampled_from([TARGET, CONTENT, [CONTENT], [{"id": "a", **CONTENT}], "2026-01-01T00:00:00Z"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(list(FORMS)), changes=st.dictionaries(names, parts, max_size=3))
async def test_nothing_in_a_correction_breaks_it(
    kind: str, changes: dict[str, Any], client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    fakes.publisher.records.clear()
    answer = await client.post(f"{URL}/{kind}", content=json.dumps({**FORMS[kind], **changes}), headers=PLAIN)
    assert answer.status_code in (202, 400, 413, 422), answer.text
    if answer.status_code == 202:
        assert not hasattr(as_the_stream_reads_it(fakes.publisher.records[0][1]), "code"), "the stream takes it too"
    event = correction_event(kind)
    event["data"] |= {name: value for name, value in changes.items() if name != "tenant_id"}
    structured = await client.post(URL, content=json.dumps(event), headers=CLOUD)
    assert structured.status_code in (202, 400, 413, 422), structured.text
