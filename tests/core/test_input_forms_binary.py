"""Binary-mode CloudEvents: the same event as in structured form, or one typed refusal; nothing at all for others."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.input_forms.binary import is_binary, read_binary_event, read_binary_request, to_structured
from core.meters import Meter, Registry
from core.quantity import UNIT
from core.usage_event import CloudEvent, IngestLimits, Rejection, UsageEvent, parse_event

ATTRIBUTES = {
    "specversion": "1.0",
    "id": "e1",
    "source": "gateway",
    "type": "api.request",
    "subject": "acme",
    "time": "2026-10-20T11:59:00Z",
}
DATA = b'{"requests": 0.100000000000, "endpoint": "/v1/search"}'
JSON = ("content-type", b"application/json")
STRUCTURED = ("content-type", b"application/cloudevents+json")
BATCH = ("content-type", b"application/cloudevents-batch+json; charset=utf-8")
NO_JSON = ("unsupported_media_type", "/datacontenttype")
Headers = list[tuple[str, bytes | None]]


def kafka(*others: tuple[str, bytes | None], **changes: Any) -> Headers:
    """Return headers of a record; `...` leaves an attribute out."""
    found = {**ATTRIBUTES, **changes}
    return [*((f"ce_{n}", v if v is None else v.encode()) for n, v in found.items() if v is not ...), *others]


def refused(headers: Headers, value: bytes | None = DATA) -> tuple[str, str]:
    found = read_binary_event(headers, value)
    assert isinstance(found, Rejection), found
    assert to_structured(headers, value) == found
    return found.code, found.pointer


def test_a_binary_record_is_the_event_that_its_structured_form_is() -> None:
    headers = kafka(JSON, ("ce_traceparent", b"00-1"), ("other", None))
    event = read_binary_event(headers, DATA)
    assert event == CloudEvent(**ATTRIBUTES, data={"requests": Decimal("0.1"), "endpoint": "/v1/search"})
    structured = to_structured(headers, DATA)
    assert isinstance(structured, bytes)
    assert msgspec.json.decode(structured, type=CloudEvent) == msgspec.json.decode(
        msgspec.json.encode({**ATTRIBUTES, "data": msgspec.Raw(DATA)}), type=CloudEvent
    )
    assert DATA in structured, "the data go along byte for byte"
    assert msgspec.json.decode(structured)["traceparent"] == "00-1"
    assert msgspec.json.decode(structured)["datacontenttype"] == "application/json"


def test_it_is_judged_and_counted_like_any_other() -> None:
    registry = Registry.of(
        ["acme"], [Meter("api_requests", "request", "api.request", "sum", "requests", ("endpoint",))]
    )
    structured = to_structured(kafka(JSON), DATA)
    assert isinstance(structured, bytes)
    judged = parse_event(structured, registry, IngestLimits(), 1_792_497_600_000_000)
    assert isinstance(judged, UsageEvent)
    assert judged.measures == [("api_requests", ("/v1/search",), UNIT // 10)]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        (),
        [("traceparent", b"00-1")],
        [JSON],
        [STRUCTURED],
        [BATCH],
        # Attributes may stand in headers too, if they say the same.
        [STRUCTURED, ("ce_id", b"e1"), ("ce_type", b"api.request")],
    ],
)
def test_a_record_whose_value_is_the_event_is_left_alone(headers: Headers) -> None:
    value = msgspec.json.encode({**ATTRIBUTES, "data": {}})
    assert read_binary_event(headers, value) is None
    assert to_structured(headers, value) is None
    assert is_binary(headers) == any(name.startswith("ce_") for name, _ in headers)


@pytest.mark.parametrize("media", [None, b"application/json; charset=UTF-8", b"text/json", b"application/vnd.x+json"])
def test_data_are_json_whatever_json_is_called(media: bytes | None) -> None:
    headers = kafka() if media is None else kafka(("content-type", media))
    assert isinstance(read_binary_event(headers, DATA), CloudEvent)


@pytest.mark.parametrize(
    ("headers", "value", "expected"),
    [
        (kafka(JSON, id=..., time=...), DATA, ("missing_field", "/id")),
        ([("ce_id", b"e1")], DATA, ("missing_field", "/specversion")),
        (kafka(JSON, subject=""), DATA, ("missing_field", "/subject")),
        (kafka(JSON, type=None), DATA, ("missing_field", "/type")),
        (kafka(JSON, ("ce_source", b"other")), DATA, ("duplicate_header", "/source")),
        (kafka(JSON, ("ce_data", b"{}")), DATA, ("invalid_field", "/data")),
        ([*kafka(JSON, id=...), ("ce_id", b"\xff\xfe")], DATA, ("invalid_field", "/id")),
        (kafka(("content-type", b"\xff")), DATA, ("invalid_field", "")),
        (kafka(("content-type", b"application/avro")), DATA, NO_JSON),
        (kafka(("content-type", b"application/cloudevents+avro")), DATA, NO_JSON),
        (kafka(("content-type", b"application/json; charset=utf-16")), DATA, NO_JSON),
        (kafka(BATCH), b"[]", ("ambiguous_mode", "")),
        (kafka(STRUCTURED), b'{"specversion":"1.0","id":"other"}', ("ambiguous_mode", "/id")),
        (kafka(JSON), None, ("tombstone", "")),
        (kafka(JSON), b"", ("missing_field", "/data")),
        (kafka(JSON), b"[1]", ("invalid_field", "/data")),
        (kafka(JSON), b"5", ("invalid_field", "/data")),
        (kafka(JSON), b'{"requests": NaN}', ("not_json", "/data")),
        (kafka(JSON), b'{"requests": 1', ("not_json", "/data")),
        (kafka(JSON), b"\xef\xbb\xbf{}", ("not_json", "/data")),
        (kafka(JSON), b'{"a":' + b"[" * 5_000, ("not_json", "/data")),
        (kafka(JSON), b'{"a":"\xff"}', ("not_json", "/data")),
    ],
)  # fmt: skip
def test_a_bad_binary_record_is_one_typed_refusal(
    headers: Headers, value: bytes | None, expected: tuple[str, str]
) -> None:
    assert refused(headers, value) == expected


def test_a_refusal_names_every_missing_header() -> None:
    found = read_binary_event([("ce_specversion", b"1.0"), ("ce_id", b"e1")], DATA)
    assert isinstance(found, Rejection)
    assert found.reason.endswith("ce_source, ce_type, ce_subject, ce_time")


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.fixed_dictionaries(dict.fromkeys(ATTRIBUTES, texts)))
def test_any_text_of_an_attribute_survives_both_protocols(attributes: dict[str, str]) -> None:
    expected = CloudEvent(**attributes, data={})
    assert read_binary_event([(f"ce_{n}", v.encode()) for n, v in attributes.items()], b"{}") == expected
    # Everything may be encoded, and what must be is (HTTP binding §3.1.3.2).
    http = [(f"ce-{n}".encode(), quote(v, safe="").encode()) for n, v in attributes.items()]
    structured = read_binary_request(http, b"{}")
    assert isinstance(structured, bytes)
    assert msgspec.json.decode(structured, type=CloudEvent) == expected


@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([*(f"ce_{name}" for name in ATTRIBUTES), "ce_", "ce_data", "content-type", "x"]),
            st.none()
            | st.binary(max_size=30)
            | st.sampled_from([b"1.0", b"application/json", STRUCTURED[1], BATCH[1]]),
        ),
        max_size=9,
    ),
    value=st.none() | st.binary(max_size=40) | st.just(DATA),
)
def test_any_headers_and_bytes_are_read_refused_or_left_alone(headers: Headers, value: bytes | None) -> None:
    event, structured = read_binary_event(headers, value), to_structured(headers, value)
    if isinstance(event, CloudEvent):
        assert isinstance(structured, bytes)
        assert msgspec.json.decode(structured, type=CloudEvent).id == event.id
    else:
        assert structured == event
        assert event is None or isinstance(event, Rejection)


def http(**changes: bytes) -> list[tuple[bytes, bytes]]:
    found = {name: value.encode() for name, value in ATTRIBUTES.items()} | changes
    return [(b"content-type", b"application/json"), *((f"ce-{n}".encode(), v) for n, v in found.items())]


def test_http_values_are_unquoted_and_decoded_once() -> None:
    structured = read_binary_request(http(source=b'"a \\"b\\" %41"', subject=b"%E2%82%AC%2525"), DATA)
    assert isinstance(structured, bytes)
    event = msgspec.json.decode(structured, type=CloudEvent)
    assert (event.source, event.subject) == ('a "b" A', "€%25")


@pytest.mark.parametrize("value", [b"%C0%A0", b"50%", b"%zz", b"\xe2\x82\xac", b"%FF"])
def test_malformed_http_values_are_refused(value: bytes) -> None:
    found = read_binary_request(http(source=value), DATA)
    assert isinstance(found, Rejection)
    assert (found.code, found.pointer) == ("invalid_field", "/source")


def test_a_request_without_attributes_is_not_binary() -> None:
    assert read_binary_request([(b"content-type", b"application/json"), (b"x-ce-id", b"1")], DATA) is None
