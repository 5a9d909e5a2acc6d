"""Input forms: what each becomes, exactly; what is refused, with every fault at once; and that nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogues.load_catalogue import load_catalogue, shipped_files
from catalogues.load_input_forms import load_input_forms
from core.errors import InvalidInputError
from core.event_time import parse_event_time
from core.input_forms.fields import Refusal
from core.input_forms.mapping import FormMapping, Target, read_mapping
from core.input_forms.recognise import Recognised, read_form
from core.meters import Filter, Meter, Registry
from core.quantity import UNIT
from core.usage_event import IngestLimits, UsageEvent, parse_event

MAPPING = load_input_forms()
METERS = load_catalogue(shipped_files()).meters
REGISTRY = Registry.of(["acme"], METERS)
encode = msgspec.json.Encoder(decimal_format="number").encode
RECEIVED_US = 1_792_497_600_000_000  # 2026-10-20T12:00:00Z
PLAIN: dict[str, Any] = {
    "tenant_id": "acme",
    "metric_type": "api_requests",
    "value": "2.5",
    "dimensions": {"endpoint": "/v1/search", "method": "GET"},
    "timestamp": "2026-10-20T11:59:00Z",
}
BUNDLE: dict[str, Any] = {
    "tenant_id": "acme/customer-9",
    "timestamp": "2026-10-20T11:59:00.123456Z",
    "cpu_seconds": Decimal("812.25"),
    "memory_gb_hours": "0.5",
    "storage_gb_hours": 40,
    "network_gb": Decimal("1.75"),
    "executions": 12,
}
SERVICE: dict[str, Any] = {
    "tenant_id": "acme",
    "service": "marketplace",
    "usage_type": "upload",
    "quantity": 3,
    "timestamp": Decimal("1792497540.25"),
}
PERIOD: dict[str, Any] = {
    "tenant_id": "acme",
    "resource_type": "cpu",
    "quantity": "1.25",
    "unit": "vCPU-hour",
    "period_start": "2026-10-20T10:00:00Z",
    "period_end": "2026-10-20T11:00:00Z",
    "source": "monitor-1",
}
FORMS = {"plain": PLAIN, "bundle": BUNDLE, "service": SERVICE, "period": PERIOD}
CLOUD_EVENT = {
    "specversion": "1.0",
    "id": "e1",
    "source": "gateway",
    "type": "api.request",
    "subject": "acme",
    "time": "2026-10-20T11:59:00Z",
    "data": {"requests": 3},
}


def read(form: dict[str, Any], mapping: FormMapping = MAPPING, registry: Registry = REGISTRY) -> Any:
    return read_form(encode(form), registry, mapping, "made")


def judged(form: dict[str, Any], registry: Registry = REGISTRY) -> list[UsageEvent]:
    """Read a form, and judge what it became as the stream does."""
    found = read(form, registry=registry)
    assert isinstance(found, Recognised), found
    events = []
    for formed in found.events:
        event = parse_event(formed.value, registry, IngestLimits(), RECEIVED_US)
        assert isinstance(event, UsageEvent), event
        events.append(event)
    return events


def faults(form: dict[str, Any]) -> list[tuple[str, str]]:
    found = read(form)
    assert isinstance(found, Refusal), found
    assert all(fault.reason for fault in found.faults)
    return [(fault.code, fault.pointer) for fault in found.faults]


def without(form: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in form.items() if name not in names}


def scaled(text: str) -> int:
    return int(Decimal(text) * UNIT)


def test_a_plain_usage_is_one_event_of_its_meters_type() -> None:
    [event] = judged({**PLAIN, "id": "p1", "source": "cron"})
    assert (event.tenant, event.source, event.id, event.type) == ("acme", "cron", "p1", "api.request")
    assert event.time_us == RECEIVED_US - 60_000_000
    assert event.measures == [("api_requests", ("/v1/search", "GET"), scaled("2.5"))]


def test_a_bundle_is_an_event_per_quantity_each_counted_by_its_meter() -> None:
    events = judged({**BUNDLE, "id": "node-7", "dimensions": {"class": "hot", "host": "n7"}})
    assert [(event.id, event.measures) for event in events] == [
        ("node-7:cpu_seconds", [("cpu_time", (), scaled("812.25"))]),
        ("node-7:memory_gb_hours", [("memory", (), scaled("0.5"))]),
        ("node-7:storage_gb_hours", [("storage_volume", ("hot",), scaled("40"))]),
        ("node-7:network_gb", [("network_egress", ("",), scaled("1.75"))]),
        ("node-7:executions", [("executions", ("",), scaled("12"))]),
    ]
    assert {(event.tenant, event.customer, event.source) for event in events} == {("acme", "customer-9", "api")}
    assert {event.time_us for event in events} == {parse_event_time(BUNDLE["timestamp"])}


def test_a_bundle_without_an_id_is_named_by_the_request() -> None:
    found = read({**BUNDLE, "cpu_seconds": None})
    assert isinstance(found, Recognised)
    assert found.form_id == "made"
    ids = [msgspec.json.decode(formed.value)["id"] for formed in found.events]
    # null is absent: four quantities are left.
    assert ids == ["made:memory_gb_hours", "made:storage_gb_hours", "made:network_gb", "made:executions"]


def test_a_service_usage_is_dated_by_unix_seconds_exactly() -> None:
    [event] = judged(SERVICE)
    assert event.time_us == 1_792_497_540_250_000
    assert event.measures == [("service_usage", ("marketplace", "upload"), 3 * UNIT)]
    [event] = judged({**SERVICE, "timestamp": "1792497540.123456789"})
    assert event.time_us == 1_792_497_540_123_456, "cut, not rounded"
    [event] = judged({**SERVICE, "service": "compute", "usage_type": "cpu_second", "quantity": Decimal("0.1")})
    assert event.measures == [("cpu_time", (), scaled("0.1"))]


def test_a_periods_usage_is_counted_in_the_last_instant_within() -> None:
    [event] = judged({**PERIOD, "period_start": "2026-10-19T00:00:00+02:00", "period_end": "2026-10-20T00:00:00+02:00"})
    # 2026-10-20T00:00 at +02:00 is 2026-10-19T22:00Z; the end itself belongs to the next day.
    assert event.time_us == parse_event_time("2026-10-19T21:59:59.999999Z")
    assert event.source == "monitor-1"
    assert event.measures == [("cpu", (), scaled("1.25"))]
    assert event.data["period_start"] == "2026-10-19T00:00:00+02:00"


def test_a_unit_is_converted_exactly_and_what_was_reported_is_kept() -> None:
    [event] = judged({**PERIOD, "quantity": "0.000000000001", "unit": "vCPU-minute"})
    assert event.measures == [("cpu_time", (), 60)]
    assert (event.data["reported_quantity"], event.data["reported_unit"]) == ("0.000000000001", "vCPU-minute")
    [event] = judged({**PERIOD, "resource_type": "storage", "quantity": 2, "unit": "GB-day"})
    assert event.measures == [("storage_volume", ("",), scaled("48"))]


@given(
    scaled_quantity=st.integers(0, 10**15 * UNIT - 1),
    form=st.sampled_from([(BUNDLE, "memory_gb_hours"), (SERVICE, "quantity"), (PERIOD, "quantity"), (PLAIN, "value")]),
    as_text=st.booleans(),
)
def test_a_quantity_keeps_every_digit_in_every_form(
    scaled_quantity: int, form: tuple[dict[str, Any], str], as_text: bool
) -> None:
    usage, name = form
    text = f"{Decimal(scaled_quantity).scaleb(-12):f}"
    events = judged({**usage, name: text if as_text else Decimal(text)})
    assert scaled_quantity in [measure[2] for event in events for measure in event.measures]


@pytest.mark.parametrize("form", FORMS)
def test_the_same_usage_is_the_same_events(form: str) -> None:
    assert read({**FORMS[form], "id": "x"}) == read({**FORMS[form], "id": "x"})


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (without(PLAIN, "tenant_id", "timestamp"), [("missing_field", "/tenant_id"), ("missing_field", "/timestamp")]),
        (
            {"metric_type": "steps", "value": 1},
            [("missing_field", "/tenant_id"), ("missing_field", "/timestamp"), ("unknown_meter", "/metric_type")],
        ),
        (
            {"service": "mail", "quantity": -1, "timestamp": "yesterday"},
            [
                ("missing_field", "/tenant_id"),
                ("missing_field", "/usage_type"),
                ("invalid_time", "/timestamp"),
                ("unknown_service", "/service"),
                ("negative_quantity", "/quantity"),
            ],
        ),
        (
            {**PERIOD, "unit": "GiB", "source": None, "period_end": "2026-10-20T09:00:00Z", "note": "x"},
            [
                ("invalid_period", "/period_end"),
                ("missing_field", "/source"),
                ("unknown_unit", "/unit"),
                ("unknown_field", "/note"),
            ],
        ),
        (
            {**BUNDLE, "cpu_seconds": "many", "network_gb": True, "timestamp": "2026-10-20T11:59:00"},
            [
                ("time_without_zone", "/timestamp"),
                ("invalid_quantity", "/cpu_seconds"),
                ("invalid_quantity", "/network_gb"),
            ],
        ),
        # A misspelt quantity beside good ones must not vanish.
        ({**BUNDLE, "cpu_second": 5}, [("unknown_field", "/cpu_second")]),
        ({**PLAIN, "dimensions": {"requests": 5}}, [("invalid_dimension", "/dimensions/requests")]),
        ({**SERVICE, "dimensions": {"service": "x"}}, [("invalid_dimension", "/dimensions/service")]),
        ({**SERVICE, "dimensions": [1]}, [("invalid_field", "/dimensions")]),
        ({**SERVICE, "timestamp": 1_792_497_540_250}, [("time_out_of_bounds", "/timestamp")]),
        ({**SERVICE, "timestamp": True}, [("invalid_time", "/timestamp")]),
        ({**SERVICE, "usage_type": "download"}, [("unknown_usage_type", "/usage_type")]),
        ({**PERIOD, "resource_type": "tape"}, [("unknown_resource_type", "/resource_type")]),
        ({**PERIOD, "period_end": PERIOD["period_start"]}, [("invalid_period", "/period_end")]),
        ({**PERIOD, "unit": "vCPU-minute", "quantity": "999999999999999"}, [("quantity_out_of_range", "/quantity")]),
        ({**PERIOD, "id": "a\nb", "source": 7}, [("invalid_field", "/source"), ("invalid_field", "/id")]),
        ({**PLAIN, "metric_type": ""}, [("invalid_field", "/metric_type")]),
        ({**PLAIN, "tenant_id": ""}, [("invalid_field", "/tenant_id")]),
        ({**SERVICE, "service": ""}, [("invalid_field", "/service")]),
        ({**PERIOD, "resource_type": ""}, [("invalid_field", "/resource_type")]),
        ({**PERIOD, "source": ""}, [("invalid_field", "/source")]),
        ({**SERVICE, "usage_type": ""}, [("invalid_field", "/usage_type")]),
        ({**PERIOD, "unit": ""}, [("invalid_field", "/unit")]),
        ({**BUNDLE, "a/b~c": 1}, [("unknown_field", "/a~1b~0c")]),
    ],
)  # fmt: skip
def test_every_fault_is_told_at_once_where_it_stands(form: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert faults(form) == expected


def test_two_forms_at_once_are_refused_and_not_guessed() -> None:
    found = faults({**SERVICE, "metric_type": "api_requests"})
    assert found[0] == ("ambiguous_form", "")
    assert {pointer for _, pointer in found[1:]} == {"/metric_type", "/service", "/usage_type"}
    # A dimension beside a bundle's quantities looks like nothing else; a unit belongs to the period form.
    assert faults({**BUNDLE, "unit": "GB"})[0] == ("ambiguous_form", "")


@pytest.mark.parametrize(
    ("form", "missing"),
    [
        ({}, ["/specversion", "/id", "/source", "/type", "/subject", "/time", "/data"]),
        ({"tenant_id": "acme", "timestamp": "2026-10-20T11:59:00Z"}, ["/metric_type", "/value"]),
        ({"tenant_id": "acme", "timestamp": 1, "quantity": 3}, ["/service", "/usage_type"]),
        ({"hello": "world"}, ["/specversion", "/id", "/source", "/type", "/subject", "/time", "/data"]),
    ],
)
def test_an_unknown_form_is_told_what_the_nearest_one_misses(form: dict[str, Any], missing: list[str]) -> None:
    assert faults(form) == [("unknown_form", ""), *(("missing_field", pointer) for pointer in missing)]


def test_a_cloud_event_is_left_as_it_is_whatever_its_extensions_are_called() -> None:
    assert read(CLOUD_EVENT) is None
    assert read({**CLOUD_EVENT, "metric_type": "x", "executions": 5}) is None
    assert read(without(CLOUD_EVENT, "specversion")) is None, "judged, and refused, as the CloudEvent it looks like"


def test_a_bundle_without_any_quantity_is_none() -> None:
    assert faults({**without(BUNDLE, *MAPPING.bundle), "cpu_seconds": None}) == [("missing_field", "")]


def test_a_plain_usage_that_its_own_meter_would_pass_by_is_refused() -> None:
    hot = Meter("hot", "GB", "storage.usage", "sum", "gb", ("class",), (Filter("class", "eq", ("hot",)),))
    registry = Registry.of(["acme"], [hot])
    usage = {**PLAIN, "metric_type": "hot", "value": 1, "dimensions": {"class": "cold"}}
    found = read(usage, registry=registry)
    assert isinstance(found, Refusal)
    assert [(fault.code, fault.pointer) for fault in found.faults] == [("not_counted", "/dimensions")]
    [event] = judged({**usage, "dimensions": {"class": "hot"}}, registry)
    assert event.measures == [("hot", ("hot",), UNIT)]


def test_a_faulty_event_points_back_into_the_form() -> None:
    def told(form: dict[str, Any], registry: Registry = REGISTRY) -> set[str]:
        found = read(form, registry=registry)
        assert isinstance(found, Recognised), found
        rejections = [parse_event(formed.value, registry, IngestLimits(), RECEIVED_US) for formed in found.events]
        return {formed.point_back(one).pointer for formed, one in zip(found.events, rejections, strict=True)}  # type: ignore[arg-type]

    stranger = {"tenant_id": "stranger"}
    assert [told({**form, **stranger}) for form in FORMS.values()] == [{"/tenant_id"}] * 4
    nothing_counted = Registry.of(["acme"], [])
    assert told(SERVICE, nothing_counted) == {"/usage_type"}
    assert told(PERIOD, nothing_counted) == {"/resource_type"}
    assert told(BUNDLE, nothing_counted) == {f"/{name}" for name in MAPPING.bundle}
    assert told({**PERIOD, "period_end": "2026-10-21T00:00:00Z"}) == {"/period_end"}
    assert told({**SERVICE, "service": "storage", "usage_type": "gb_hour", "dimensions": {"class": [1]}}) == {
        "/dimensions/class"
    }


def test_every_configured_target_is_some_shipped_meters() -> None:
    counted = {(meter.event_type, meter.value_property) for meter in METERS}
    targets = [
        *MAPPING.bundle.values(),
        *(target for types in MAPPING.services.values() for target in types.values()),
        *(target for units in MAPPING.resources.values() for target in units.values()),
    ]
    assert {(target.event_type, target.property) for target in targets} <= counted


def test_a_mapping_is_refused_with_every_fault_and_its_line() -> None:
    text = """
bundle:
  quantity: {event_type: a, property: b}
  cpu: {event_type: a, property: b, multiply_by: 0}
  disk: {event_type: 5, size: 1}
services: [x]
prices: {}
"""
    with pytest.raises(InvalidInputError) as refused:
        read_mapping(text.encode(), "forms.yaml")
    assert sorted((fault.code, fault.path) for fault in refused.value.faults) == [
        ("invalid_type", "forms.yaml:5: bundle.disk.event_type"),
        ("invalid_type", "forms.yaml:6: services"),
        ("missing_field", "forms.yaml:5: bundle.disk.property"),
        ("out_of_range", "forms.yaml:4: bundle.cpu.multiply_by"),
        ("reserved_name", "forms.yaml:3: bundle.quantity"),
        ("unknown_field", "forms.yaml:5: bundle.disk.size"),
        ("unknown_field", "forms.yaml:7: prices"),
    ]


def test_another_company_names_its_own_quantities() -> None:
    mapping = FormMapping(bundle={"calls": Target("phone.call", "calls", 2)})
    registry = Registry.of(["acme"], [Meter("calls", "call", "phone.call", "sum", "calls")])
    found = read({"tenant_id": "acme", "timestamp": "2026-10-20T11:59:00Z", "calls": 3}, mapping, registry)
    assert isinstance(found, Recognised)
    event = parse_event(found.events[0].value, registry, IngestLimits(), RECEIVED_US)
    assert isinstance(event, UsageEvent)
    assert event.measures == [("calls", (), 6 * UNIT)]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=12)
    | st.sampled_from(["", "acme", "cpu", "marketplace"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=5,
)
names = st.sampled_from(sorted({name for form in (*FORMS.values(), CLOUD_EVENT) for name in form} | {"dimensions"}))


@given(
    form=st.sampled_from(list(FORMS.values())),
    changes=st.dictionaries(names, json_values, max_size=4),
    dropped=st.sets(names, max_size=3),
)
def test_whatever_stands_in_a_form_it_is_read_or_refused(
    form: dict[str, Any], changes: dict[str, Any], dropped: set[str]
) -> None:
    found = read(without({**form, **changes}, *dropped))
    if isinstance(found, Recognised):
        for formed in found.events:
            outcome = parse_event(formed.value, REGISTRY, IngestLimits(), RECEIVED_US)
            if not isinstance(outcome, UsageEvent):
                assert formed.point_back(outcome).pointer.split("/")[1] in {*form, *changes, "dimensions"}  # type: ignore[arg-type]
    elif found is not None:
        assert isinstance(found, Refusal)
        assert found.faults


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    found = read_form(raw, REGISTRY, MAPPING, "made")
    assert isinstance(found, Refusal)


def _pad(form: dict[str, Any]) -> dict[str, Any]:
    return {**form, "dimensions": {f"d{number}": "x" for number in range(3)}}


@pytest.mark.parametrize("change", [dict, _pad])
def test_dimensions_go_along_into_every_event(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    for form in FORMS.values():
        for event in judged(change(form)):
            assert change(form).get("dimensions", {}).items() <= event.data.items()
