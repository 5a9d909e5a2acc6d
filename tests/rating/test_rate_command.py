"""`meterbook rate`: examples, refusals, and that no line can bring it down."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.json_lines import read_lines
from core.quantity import LIMIT
from rating.answer_request import answer_line
from rating.commands import EXAMPLES, INPUT_SCHEMA
from rating.domain.adjust.read_adjustments import AFTER, BEFORE
from rating.domain.registry import PRICE_MODELS
from rating.line_commands import read_shipped
from tests.rating.charge_generators import Case, cases

SHIPPED: dict[str, dict[str, Any]] = json.loads(read_shipped(EXAMPLES))
SCHEMA = jsonschema.Draft202012Validator(json.loads(read_shipped(INPUT_SCHEMA)))
PER_UNIT = {"model": "per_unit", "unit_amount": "0.05"}


def answer(**request: Any) -> dict[str, Any]:
    """Return the answer to a request for a per-unit price, unless it says otherwise."""
    line = {"id": "x", "currency": "USD", "price": PER_UNIT, "usage": {"quantity": "1"}} | request
    return answer_line(json.dumps({name: value for name, value in line.items() if value is not None}).encode())


def faults_of(answered: dict[str, Any]) -> list[tuple[str, str]]:
    return [(fault["code"], fault["path"]) for fault in answered["error"]["faults"]]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_example_fits_the_schema_and_gives_what_it_says(name: str) -> None:
    SCHEMA.validate(SHIPPED[name]["input"])
    answered = answer_line(json.dumps(SHIPPED[name]["input"]).encode())
    assert answered == SHIPPED[name]["output"]
    assert Decimal(answered["total"]) == sum(Decimal(line["amount"]) for line in answered["lines"])
    assert Decimal(answered["exact_total"]) == sum(Decimal(line["exact_amount"]) for line in answered["lines"])


def test_every_model_and_every_adjustment_has_an_example() -> None:
    assert {*PRICE_MODELS, *BEFORE, *AFTER} <= SHIPPED.keys()
    used = json.dumps([example["input"] for example in SHIPPED.values()])
    assert all(f'"model": "{model}"' in used for model in PRICE_MODELS)


def test_the_schema_names_every_model() -> None:
    schema: dict[str, Any] = json.loads(read_shipped(INPUT_SCHEMA))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["$defs"]["charge"]["properties"]["model"]["enum"]) == set(PRICE_MODELS)


def test_numbers_are_read_digit_by_digit() -> None:
    price = b'{"model": "per_unit", "unit_amount": 0.1}'
    line = b'{"id": 1, "currency": "USD", "price": ' + price + b', "usage": {"quantity": 12345678.9000000001}}'
    answered = answer_line(line)
    assert answered["exact_total"] == "1234567.89000000001"
    assert answered["lines"][0]["quantity"] == "12345678.9000000001"
    as_text = line.replace(b"0.1}", b'"0.1"}').replace(b"12345678.9000000001", b'"12345678.9000000001"')
    assert answer_line(as_text) == answered


def test_a_discount_is_shown_on_the_line_it_is_taken_from() -> None:
    lines = answer(price={**PER_UNIT, "discount": {"percent_off": "10"}}, usage={"quantity": "100"})["lines"]
    assert [(line["kind"], line["amount"], line["discount"]) for line in lines] == [
        ("usage", "5.00", "0.50"),
        ("discount", "-0.50", "0.00"),
    ]


def test_phases_bill_differences_and_leave_what_is_due_at_the_end_to_the_last() -> None:
    price = {**PER_UNIT, "minimum_amount": "20"}
    answered = answer(price=price, usage={"phases": [{"quantity": "100"}, {"quantity": "-40"}, {"quantity": "60"}]})
    # 100 × 0.05; 60 × 0.05 - 5; 120 × 0.05 - 3, and 20 - 6 to the minimum
    assert [phase["total"] for phase in answered["phases"]] == ["5.00", "-2.00", "17.00"]
    assert [(line["phase"], line["kind"], line["quantity"]) for line in answered["lines"]] == [
        (1, "usage", "100"), (2, "usage", "-40"), (3, "usage", "60"), (3, "minimum", "1"),
    ]  # fmt: skip
    assert answered["total"] == "20.00"


def test_fees_in_arrears_wait_for_the_last_phase() -> None:
    charges = [
        {"id": "ahead", "model": "flat", "flat_amount": "10", "bill": "in_advance"},
        {"id": "after", "model": "flat", "flat_amount": "7", "discount": {"percent_off": "10"}},
        {"id": "calls", **PER_UNIT},
    ]
    answered = answer(price=None, charges=charges, usage={"phases": [{"quantity": "20"}, {"quantity": "20"}]})
    assert [(line["phase"], line["charge"]) for line in answered["lines"]] == [
        (1, "ahead"), (1, "calls"), (2, "after"), (2, "after"), (2, "calls"),
    ]  # fmt: skip


def test_usage_without_a_price_is_shown() -> None:
    price = {"model": "matrix", "dimension": "gpu", "unit_amounts": {"t4": "0.5"}, "free_units": "1"}
    events = [{"quantity": "3", "dimensions": {"gpu": gpu}} for gpu in ("t4", "h100")]
    answered = answer(price=price, usage={"events": events})
    # The free unit falls on what has a price: (3 - 1) × 0.5
    assert answered["total"] == "1.00"
    assert answered["unpriced"] == [{"meter": None, "dimensions": {"gpu": "h100"}, "quantity": "3"}]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"id": NaN}', "invalid_json"),
        (b'{"id": "\xff"}', "invalid_json"),
        (b'\xef\xbb\xbf{"id": 1}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"id": 1, "id": 1}', "duplicate_key"),
        (b'{"id": 1, "price": {"model": "flat", "model": "flat"}}', "duplicate_key"),
        (b'{"id": ' + b"1" * 5_000 + b"}", "too_many_digits"),
        (b'{"id": 1e' + b"9" * 90 + b"}", "too_many_digits"),
        (b'{"id": 0.' + b"1" * 5_000 + b"}", "too_many_digits"),
        (b"7", "invalid_type"),
        (b"[]", "invalid_type"),
        (b"null", "invalid_type"),
        (None, "line_too_long"),
    ],
)
def test_a_line_that_is_no_request_is_an_error(line: bytes | None, code: str) -> None:
    assert answer_line(line)["error"]["code"] == code


@pytest.mark.parametrize(
    ("change", "code", "path"),
    [
        ({"id": None}, "missing_field", "id"),
        ({"id": ""}, "invalid_id", "id"),
        ({"id": 1.5}, "invalid_id", "id"),
        ({"id": True}, "invalid_id", "id"),
        ({"currency": "XYZ"}, "unknown_currency", "currency"),
        ({"currency": None}, "unknown_currency", "currency"),
        ({"price": None}, "missing_field", "price"),
        ({"charges": [PER_UNIT]}, "missing_field", "price"),
        ({"price": None, "charges": []}, "missing_field", "charges"),
        ({"price": None, "charges": [PER_UNIT, {"id": "a", **PER_UNIT, "x": 1}]}, "unknown_field", "charges[1].x"),
        ({"price": None, "charges": [{"id": "a", **PER_UNIT}] * 2}, "duplicate_id", "charges[1].id"),
        ({"price": {**PER_UNIT, "unit_amount": "-1"}}, "negative_amount", "price.unit_amount"),
        ({"price": {**PER_UNIT, "unit_amount": "0.0000000000001"}}, "too_many_digits", "price.unit_amount"),
        ({"price": {**PER_UNIT, "tiers": []}}, "unknown_field", "price.tiers"),
        ({"price": {"model": "graduated", "tiers": [{"up_to": "5", "unit_amount": "1"}]}}, "tier_hole",
         "price.tiers[0].up_to"),
        ({"usage": None}, "missing_field", "usage"),
        ({"usage": {}}, "missing_field", "usage"),
        ({"usage": {"quantity": "1", "events": []}}, "contradiction", "usage.events"),
        ({"usage": {"quantity": "1", "phases": [{"quantity": "1"}]}}, "contradiction", "usage.quantity"),
        ({"usage": {"phases": []}}, "missing_field", "usage.phases"),
        ({"usage": {"phases": [{}]}}, "missing_field", "usage.phases[0]"),
        ({"usage": {"phases": [{"phases": []}]}}, "unknown_field", "usage.phases[0].phases"),
        ({"usage": {"quantity": "1", "x": 1}}, "unknown_field", "usage.x"),
        ({"usage": {"quantity": "x"}}, "invalid_quantity", "usage.quantity"),
        ({"usage": {"quantity": True}}, "invalid_quantity", "usage.quantity"),
        ({"usage": {"quantity": "0.0000000000001"}}, "too_many_digits", "usage.quantity"),
        ({"usage": {"quantity": "-1"}}, "negative_usage", "usage"),
        ({"usage": {"quantity": "1", "meter": "cpu"}}, "unknown_meter", "usage.meter"),
        ({"usage": {"quantities": {"cpu": "1"}}}, "unknown_meter", "usage.quantities.cpu"),
        ({"usage": {"events": [{"quantity": "1", "dimensions": {"a": 1}}]}}, "invalid_text",
         "usage.events[0].dimensions.a"),
        ({"usage": {"events": [{"time": "2026-10-01"}]}}, "missing_field", "usage.events[0].quantity"),
        ({"usage": {"events": [{"time": "2026-10-01", "quantity": "1"}]}}, "invalid_time", "usage.events[0].time"),
        ({"usage": {"events": [{"time": "2026-10-01T00:00:00", "quantity": "1"}]}}, "time_without_zone",
         "usage.events[0].time"),
        ({"price": {"model": "percentage", "percent": "1"}, "usage": {"events": [{"quantity": "1"}]}}, "missing_field",
         "usage.events[0].time"),
        ({"period": {"start": "2026-10-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"},
          "usage": {"events": [{"time": "2026-11-01T00:00:00Z", "quantity": "1"}]}}, "outside_period",
         "usage.events[0].time"),
        ({"period": {"start": "2026-10-01T00:00:00Z"}}, "missing_field", "period.end"),
        ({"period": {"start": "2026-10-01T00:00:00Z", "end": "2026-10-01T00:00:00Z"}}, "invalid_period", "period.end"),
        ({"time_zone": "Mars/Base"}, "unknown_time_zone", "time_zone"),
        ({"share": "2/1"}, "invalid_share", "share"),
        ({"share": "1/0"}, "invalid_share", "share"),
        ({"licensed": "-1"}, "negative_amount", "licensed"),
        ({"unknown": 1}, "unknown_field", "unknown"),
    ],
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused_with_its_path(change: dict[str, Any], code: str, path: str) -> None:
    assert (code, path) in faults_of(answer(**change))


def test_all_faults_of_a_line_are_told_at_once() -> None:
    answered = answer(currency="XYZ", price={"model": "per_unit", "unit_amount": "-1"}, usage={"quantity": "x"})
    assert faults_of(answered) == [
        ("unknown_currency", "currency"),
        ("negative_amount", "price.unit_amount"),
        ("invalid_quantity", "usage.quantity"),
    ]
    assert answered["id"] == "x"


def test_usage_of_several_meters_says_which() -> None:
    charges = [{"id": name, "meter": name, **PER_UNIT} for name in ("cpu", "gpu")]
    ambiguous = answer(price=None, charges=charges)
    assert faults_of(ambiguous) == [("ambiguous_meter", "usage.meter")]
    events = [{"quantity": "10", "meter": "cpu"}, {"quantity": "30", "meter": "gpu"}]
    lines = answer(price=None, charges=charges, usage={"events": events})["lines"]
    assert [(line["meter"], line["amount"]) for line in lines] == [("cpu", "0.50"), ("gpu", "1.50")]


def test_lines_longer_than_allowed_are_told_and_the_next_one_is_read() -> None:
    stream = io.BytesIO(b"a\n" + b"b" * 30 + b"\n" + b"c" * 10 + b"\n" + b"d" * 11)
    assert list(read_lines(stream, bytes_max=10)) == [b"a", None, b"c" * 10, None]


documents = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.sampled_from(["inf", "-1", "0.5", "x", "1e5"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=4), st.sampled_from(["model", "up_to", "x"])), inner, max_size=3),
    ),
    max_leaves=5,
)


def places_in(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for name, value in items:
        yield from places_in(value, (*path, name))


@st.composite
def broken_examples(draw: st.DrawFn) -> Any:
    """An example with something in it replaced, taken out or added."""
    document = copy.deepcopy(SHIPPED[draw(st.sampled_from(sorted(SHIPPED)))]["input"])
    for _ in range(draw(st.integers(1, 2))):
        *path, last = draw(st.sampled_from([path for path in places_in(document) if path]))
        at = document
        for name in path:
            at = at[name]
        match draw(st.integers(0, 2)):
            case 0:
                at[last] = draw(documents)
            case 1:
                del at[last]
            case _ if isinstance(at, dict):
                at[draw(st.sampled_from(["x", "discount", "minimum_amount", "free_units", "share"]))] = draw(documents)
            case _:
                at.append(draw(documents))
    return document


@settings(max_examples=300)
@given(st.one_of(broken_examples(), documents))
def test_whatever_comes_in_an_answer_comes_out_and_what_the_schema_refuses_is_refused(document: Any) -> None:
    answered = answer_line(json.dumps(document).encode())
    json.dumps(answered, ensure_ascii=False).encode(errors="backslashreplace")
    if "error" in answered:
        assert all(fault["code"] and fault["reason"] for fault in answered["error"]["faults"])
    else:
        SCHEMA.validate(document)
        assert Decimal(answered["total"]) == sum(Decimal(line["amount"]) for line in answered["lines"])


@given(st.binary(max_size=60))
def test_bytes_that_are_no_json_are_an_error(line: bytes) -> None:
    assert {"id", "error"} <= answer_line(line).keys()


@given(cases(corrected=False))
def test_what_a_catalogue_takes_the_command_takes_too(case: Case) -> None:
    events = []
    # An event counts less than 10^15 units (core.quantity), generated usage may be more.
    for entry in (entry for entry in case.entries if entry.quantity < LIMIT):
        event = {"time": entry.at.isoformat(), "quantity": f"{entry.quantity:f}", "dimensions": dict(entry.dimensions)}
        events.append(event | ({} if entry.amount is None else {"amount": f"{entry.amount:f}"}))
    request = {"id": 1, "currency": "USD", "price": case.document, "usage": {"events": events}}
    assert "error" not in answer_line(json.dumps(request).encode())
    SCHEMA.validate(request)


def test_the_command_answers_each_line_as_it_comes_and_ends_well() -> None:
    with subprocess.Popen(
        [Path(sys.executable).with_name("meterbook"), "rate"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            line = {"id": number, "currency": "USD", "price": PER_UNIT, "usage": {"quantity": 10 * number}}
            process.stdin.write(json.dumps(line).encode() + b"\n\n")
            process.stdin.flush()
            # Answered before the next line is written, and before the input ends.
            assert json.loads(process.stdout.readline())["id"] == number
        process.stdin.write(b"nonsense\n")
        rest, _ = process.communicate()
    assert json.loads(rest)["error"]["code"] == "invalid_json"
    assert process.returncode == 0
