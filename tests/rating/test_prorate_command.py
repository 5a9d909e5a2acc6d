"""`meterbook prorate`: examples, refusals, and that no line can bring it down."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rating.domain.proration import Convention
from rating.line_commands import read_shipped
from rating.prorate_commands import EXAMPLES, INPUT_SCHEMA, answer_prorate_line

SHIPPED: dict[str, dict[str, Any]] = json.loads(read_shipped(EXAMPLES))
SCHEMA = jsonschema.Draft202012Validator(json.loads(read_shipped(INPUT_SCHEMA)))
MARCH = {"start": "2026-03-01", "end": "2026-04-01"}


def answer(**request: Any) -> dict[str, Any]:
    line = {
        "id": "x", "currency": "USD", "period": MARCH, "at": "2026-03-11", "old_amount": "30", "new_amount": "93"
    } | request  # fmt: skip
    return answer_prorate_line(json.dumps({name: value for name, value in line.items() if value is not None}).encode())


@pytest.mark.parametrize("name", SHIPPED)
def test_every_example_fits_the_schema_and_gives_what_it_says(name: str) -> None:
    SCHEMA.validate(SHIPPED[name]["input"])
    assert answer_prorate_line(json.dumps(SHIPPED[name]["input"]).encode()) == SHIPPED[name]["output"]


def test_every_convention_has_an_example() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(read_shipped(INPUT_SCHEMA)))
    assert {convention.value for convention in Convention} <= SHIPPED.keys()


def test_the_parts_add_up_exactly_and_rounded() -> None:
    # 21 of 31 days are left. 30 x 21/31 = 20.3225..., 93 x 21/31 = 63.
    found = answer()
    assert (found["share_before"], found["share_after"]) == ("10/31", "21/31")
    assert (found["used"], found["credit"], found["charge"], found["net"]) == ("9.68", "20.32", "63.00", "42.68")
    assert found["fractions"]["net"] == "1323/31"
    assert Fraction(found["fractions"]["used"]) + Fraction(found["fractions"]["credit"]) == 30


def test_numbers_are_read_digit_by_digit_and_rounded_by_the_currency() -> None:
    line = (
        b'{"id": 7, "currency": "JPY", "period": {"start": "2026-06-01", "end": "2026-07-01"}, "at": "2026-06-16",'
        b' "old_amount": 0, "new_amount": 0.100000000001}'
    )
    found = answer_prorate_line(line)
    assert (found["id"], found["exact_charge"], found["charge"]) == (7, "0.0500000000005", "0")


@pytest.mark.parametrize(
    ("request_", "code", "path"),
    [
        ({"id": None}, "missing_field", "id"),
        ({"id": ""}, "invalid_id", "id"),
        ({"currency": "FOO"}, "unknown_currency", "currency"),
        ({"period": None}, "missing_field", "period"),
        ({"period": "2026-03"}, "invalid_type", "period"),
        ({"period": {"start": "2026-04-01", "end": "2026-03-01"}}, "invalid_period", "period.end"),
        ({"period": {"start": "2026-03-01"}}, "missing_field", "period.end"),
        ({"period": {"anchor": "2026-02-30"}}, "invalid_date", "period.anchor"),
        ({"period": {"interval": "week", "anchor": "2026-02-01"}}, "invalid_choice", "period.interval"),
        ({"period": {"anchor": "0001-01-31"}, "at": "0001-01-01"}, "invalid_period", "period.anchor"),
        ({"at": "2026-04-02"}, "outside_period", "at"),
        ({"at": "2026-03-11T10:00:00"}, "time_without_zone", "at"),
        ({"at": "2026-03-32"}, "invalid_date", "at"),
        ({"at": "0001-01-01", "time_zone": "Asia/Tokyo"}, "invalid_time", "at"),
        ({"at": 5}, "invalid_time", "at"),
        ({"old_amount": "-1"}, "negative_amount", "old_amount"),
        ({"new_amount": "1.0000000000001"}, "too_many_digits", "new_amount"),
        ({"new_amount": None}, "missing_field", "new_amount"),
        ({"convention": "hours"}, "invalid_choice", "convention"),
        ({"time_zone": "Mars/Olympus"}, "unknown_time_zone", "time_zone"),
        ({"quantity": 1}, "unknown_field", "quantity"),
        (
            {"period": {"start": "2026-03-11T01:00:00Z", "end": "2026-03-11T02:00:00Z"}, "at": "2026-03-11T01:30:00Z"},
            "period_too_short",
            "period",
        ),
    ],
)
def test_bad_input_is_refused_with_its_path(request_: dict[str, Any], code: str, path: str) -> None:
    found = answer(**request_)
    assert (code, path) in [(fault["code"], fault["path"]) for fault in found["error"]["faults"]]
    assert found["error"]["code"] == found["error"]["faults"][0]["code"]


def test_all_faults_are_named_at_once() -> None:
    found = answer(currency="FOO", at="x", old_amount="-1")
    assert [fault["path"] for fault in found["error"]["faults"]] == ["currency", "old_amount", "at"]


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"null", b'{"id": 1, "id": 2}', b"\xff", b'{"id": NaN}', None])
def test_lines_that_are_no_requests_are_answered_too(line: bytes | None) -> None:
    assert answer_prorate_line(line)["error"]["code"]


@given(
    st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 31 * 24 * 60), st.sampled_from(Convention),
    st.sampled_from(["USD", "JPY", "KWD"]),
)  # fmt: skip
@settings(max_examples=60)
def test_used_and_credit_are_the_old_amount(
    old: int, new: int, minute: int, convention: Convention, currency: str
) -> None:
    day, rest = divmod(minute, 24 * 60)
    at = f"2026-03-{day + 1:02}T{rest // 60:02}:{rest % 60:02}:00Z" if day < 31 else "2026-04-01"
    amounts = Decimal(old).scaleb(-3), Decimal(new).scaleb(-3)
    found = answer(
        at=at, old_amount=str(amounts[0]), new_amount=str(amounts[1]), convention=convention.value, currency=currency
    )
    assert Fraction(found["fractions"]["used"]) + Fraction(found["fractions"]["credit"]) == Fraction(amounts[0])
    unit = {"USD": Decimal("0.01"), "JPY": Decimal(1), "KWD": Decimal("0.001")}[currency]
    old_rounded = amounts[0].quantize(unit, rounding="ROUND_HALF_UP")
    assert Decimal(found["used"]) + Decimal(found["credit"]) == old_rounded
    assert Decimal(found["charge"]) - Decimal(found["credit"]) == Decimal(found["net"])
    assert abs(Decimal(found["exact_net"]) - Decimal(found["net"])) <= unit


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30) | st.just("2026-03-11"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(["id", "currency", "period", "at", "old_amount", "new_amount", "convention"]), JSON)
)
def test_whatever_comes_in_an_answer_comes_out(changes: dict[str, Any]) -> None:
    document = SHIPPED["days"]["input"] | changes
    found = answer_prorate_line(json.dumps(document).encode())
    if not SCHEMA.is_valid(document):
        assert "error" in found
    assert json.loads(json.dumps(found)) == found


def test_lines_are_answered_in_order_by_the_command() -> None:
    lines = [json.dumps(example["input"]) for example in SHIPPED.values()]
    command = [sys.executable, "-m", "runtime", "prorate"]
    text = "\n".join([*lines, "", "{"])
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=120)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["id"] for one in answers] == [*SHIPPED, None]
    assert answers[-1]["error"]["code"] == "invalid_json"
