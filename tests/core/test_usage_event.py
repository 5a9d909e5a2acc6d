"""Usage events: one function judges bytes; every kind of bad input has its code and harms nothing."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.meters import Meter, Registry
from core.quantity import UNIT
from core.usage_event import IngestLimits, Rejection, UsageEvent, event_identity, parse_event, split_batch

REGISTRY = Registry.of(
    ["acme", "globex"],
    [
        Meter("llm_input_tokens", "token", "llm.completion", "sum", "input_tokens", ("model",)),
        Meter("llm_output_tokens", "token", "llm.completion", "sum", "output_tokens", ("model",)),
        Meter("agent_executions", "execution", "agent.execution", "count", None, ("agent_type",)),
    ],
)
LIMITS = IngestLimits()
RECEIVED_US = 1_700_158_800_000_000  # 2023-11-16T18:20:00Z
GOOD = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "gateway/1",
    "type": "llm.completion",
    "subject": "acme",
    "time": "2023-11-16T18:17:03.9799600Z",
    "data": {"input_tokens": 4808, "output_tokens": 10, "model": "gpt4"},
}


def event(**changes):
    return json.dumps({**GOOD, **changes}).encode()


def without(name):
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


def with_quantity(text):
    return event().replace(b"4808", text)


def judge(raw):
    return parse_event(raw, REGISTRY, LIMITS, RECEIVED_US)


def test_one_event_feeds_every_meter_of_its_type():
    accepted = judge(event(subject="acme/customer-9"))
    assert isinstance(accepted, UsageEvent)
    assert (accepted.tenant, accepted.customer) == ("acme", "customer-9")
    assert accepted.measures == [
        ("llm_input_tokens", ("gpt4",), 4808 * UNIT),
        ("llm_output_tokens", ("gpt4",), 10 * UNIT),
    ]


def test_a_count_meter_counts_one_and_missing_dimensions_are_empty():
    accepted = judge(event(type="agent.execution", data={}))
    assert accepted.measures == [("agent_executions", ("",), UNIT)]


def test_a_meter_whose_quantity_is_absent_is_left_out():
    accepted = judge(event(data={"output_tokens": "0.5"}))
    assert accepted.measures == [("llm_output_tokens", ("",), UNIT // 2)]


def test_json_numbers_never_pass_through_a_float():
    accepted = judge(with_quantity(b"0.123456789012"))
    assert accepted.measures[0][2] == 123_456_789_012
    assert accepted.data["input_tokens"] == Decimal("0.123456789012")


def test_dimensions_of_other_kinds_become_text():
    accepted = judge(event(data={"input_tokens": 1, "model": True}))
    assert accepted.measures[0][1] == ("true",)


BAD = {
    "tombstone": (None, "tombstone"),
    "empty": (b"", "empty"),
    "blank": (b" \n", "empty"),
    "not json": (b"hello", "not_json"),
    "cut off": (event()[:-5], "not_json"),
    "byte order mark": (b"\xef\xbb\xbf" + event(), "not_json"),
    "utf-16": (event().decode().encode("utf-16"), "not_json"),
    "not utf-8": (event().replace(b"acme", b"ac\xffme"), "not_json"),
    "lone surrogate": (event(id="\ud800"), "not_json"),
    "deep": (b'{"a":' * 5000 + b"1" + b"}" * 5000, "not_json"),
    "NaN": (with_quantity(b"NaN"), "not_json"),
    "Infinity": (with_quantity(b"Infinity"), "not_json"),
    "null": (b"null", "not_an_object"),
    "number": (b"17", "not_an_object"),
    "no id": (without("id"), "missing_field"),
    "no source": (without("source"), "missing_field"),
    "no type": (without("type"), "missing_field"),
    "no subject": (without("subject"), "missing_field"),
    "no time": (without("time"), "missing_field"),
    "no data": (without("data"), "missing_field"),
    "no specversion": (without("specversion"), "missing_field"),
    "null id": (event(id=None), "missing_field"),
    "id a number": (event(id=5), "invalid_field"),
    "id empty": (event(id=""), "invalid_field"),
    "id long": (event(id="x" * 257), "invalid_field"),
    "id with line break": (event(id="a\r\nb"), "invalid_field"),
    "id with NUL": (event(id="a\0b"), "invalid_field"),
    "source empty": (event(source=""), "invalid_field"),
    "data a list": (event(data=[1]), "invalid_field"),
    "old specversion": (event(specversion="0.3"), "unsupported_specversion"),
    "unknown tenant": (event(subject="nobody"), "unknown_tenant"),
    "path as tenant": (event(subject="../acme"), "unknown_tenant"),
    "unknown meter": (event(type="coffee.brewed"), "unknown_meter"),
    "time without zone": (event(time="2023-11-16T18:17:03"), "time_without_zone"),
    "time as number": (event(time="1700158623"), "invalid_time"),
    "year 1": (event(time="0001-01-01T00:00:00Z"), "time_out_of_bounds"),
    "year 9999": (event(time="9999-12-31T23:59:59Z"), "time_out_of_bounds"),
    "too old": (event(time="2023-10-11T00:00:00Z"), "too_old"),
    "in the future": (event(time="2023-11-16T18:25:00.000001Z"), "future_time"),
    "no quantity": (event(data={"model": "gpt4"}), "missing_quantity"),
    "quantity null": (event(data={"input_tokens": None}), "missing_quantity"),
    "negative": (with_quantity(b"-1"), "negative_quantity"),
    "1e400": (with_quantity(b"1e400"), "quantity_out_of_range"),
    "beyond 2^63": (with_quantity(str(2**70).encode()), "quantity_out_of_range"),
    "comma": (with_quantity(b'"1,5"'), "invalid_quantity"),
    "text": (with_quantity(b'"many"'), "invalid_quantity"),
    "boolean": (with_quantity(b"true"), "invalid_quantity"),
    "object": (with_quantity(b"{}"), "invalid_quantity"),
    "1e-30": (with_quantity(b"1e-30"), "too_many_digits"),
    "dimension an object": (event(data={"input_tokens": 1, "model": {}}), "invalid_dimension"),
    "dimension long": (event(data={"input_tokens": 1, "model": "m" * 257}), "invalid_dimension"),
    "too large": (event(data={"input_tokens": 1, "note": "x" * 70_000}), "too_large"),
}


@pytest.mark.parametrize(("raw", "code"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_with_its_code(raw, code):
    refused = judge(raw)
    assert isinstance(refused, Rejection), refused
    assert refused.code == code
    assert refused.reason


@pytest.mark.parametrize("time", ["2023-11-16T18:25:00Z", "2023-10-12T18:20:00Z"])
def test_the_bounds_of_time_belong_to_what_is_accepted(time):
    assert isinstance(judge(event(time=time)), UsageEvent)


@given(st.binary(max_size=300))
def test_no_bytes_whatsoever_raise(raw):
    assert isinstance(judge(raw), (UsageEvent, Rejection))
    assert isinstance(split_batch(raw), (list, Rejection))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_any_json_in_any_field_is_accepted_or_refused(name, value):
    assert isinstance(judge(event(**{name: value})), (UsageEvent, Rejection))


def test_identity_does_not_depend_on_time_and_its_parts_do_not_run_together():
    assert event_identity("a", "b", "c") == judge(event()).identity.__class__(event_identity("a", "b", "c"))
    assert judge(event()).identity == judge(event(time="2023-11-16T18:19:00Z")).identity
    assert event_identity("acme", "s1", "1") != event_identity("acme", "s", "11")
    assert judge(event()).identity != judge(event(subject="globex")).identity


def test_a_batch_is_split_into_its_elements():
    assert split_batch(b"[" + event() + b" , 5]") == [event(), b"5"]
    assert split_batch(b"{}").code == "not_json"
