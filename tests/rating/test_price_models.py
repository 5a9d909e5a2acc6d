"""One table of cases per price model, the sum beside each figure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from core.errors import BrokenInvariantError, InvalidInputError
from core.period import parse_month
from rating.domain.usage import usage_row
from tests.rating.plans import ALWAYS, OCTOBER, Term, amounts, plan_of, rate

CPU = {"id": "cpu", "meter": "cpu"}


def rate_cpu(quantity: str, **price: Any) -> dict[str, str]:
    return amounts(rate(plan_of({**CPU, **price}), [usage_row("cpu", quantity)], OCTOBER, ALWAYS))


@pytest.mark.parametrize(
    ("quantity", "unit_amount", "divide_by", "expected"),
    [
        ("0", "0.05", 1, {}),  # no usage, no line
        ("1", "0.05", 1, {"cpu": "0.05"}),  # 1 × 0.05
        ("2.5", "0.05", 1, {"cpu": "0.13"}),  # 2.5 × 0.05 = 0.125, half up
        ("2.3", "0.05", 1, {"cpu": "0.12"}),  # 2.3 × 0.05 = 0.115, half up
        ("2.299999999999", "0.05", 1, {"cpu": "0.11"}),  # 0.11499999999995, just below the tie
        ("1234567", "0.002", 1000, {"cpu": "2.47"}),  # 1,234,567 ÷ 1000 × 0.002 = 2.469134
        ("1", "0.002", 1000, {"cpu": "0.00"}),  # 0.000002: a line, though it rounds to nothing
        ("3", "0", 1, {"cpu": "0.00"}),  # free, and shown
        # (10^15 - 1) × (10^12 - 10^-12) = 10^27 - 10^12 - 10^3 + 10^-12
        ("999999999999999", "999999999999.999999999999", 1, {"cpu": "999999999999998999999999000.00"}),
    ],
)
def test_per_unit(quantity: str, unit_amount: str, divide_by: int, expected: dict[str, str]) -> None:
    price = {"model": "per_unit", "unit_amount": unit_amount, "transform_quantity": {"divide_by": divide_by}}
    assert rate_cpu(quantity, **price) == expected


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("0", {}),
        ("0.5", {"cpu — included, up to 100": "0.00"}),
        ("100", {"cpu — included, up to 100": "0.00"}),  # the last included unit
        ("100.001", {"cpu — included, up to 100": "0.00", "cpu — beyond 100": "0.00"}),  # 0.001 × 0.5 = 0.0005
        ("100.01", {"cpu — included, up to 100": "0.00", "cpu — beyond 100": "0.01"}),  # 0.01 × 0.5 = 0.005
        ("350", {"cpu — included, up to 100": "0.00", "cpu — beyond 100": "125.00"}),  # 250 × 0.5
    ],
)
def test_included_quantity_and_overage(quantity: str, expected: dict[str, str]) -> None:
    assert rate_cpu(quantity, model="included", included="100", unit_amount="0.5") == expected


def test_a_hard_limit_shows_what_slipped_past_it_at_no_charge() -> None:
    lines = rate_cpu("150", model="included", included="100", hard_limit=True)
    assert lines == {"cpu — included, up to 100": "0.00", "cpu — beyond the limit of 100, not charged": "0.00"}


def test_the_included_quantity_applies_to_the_total_across_dimensions() -> None:
    plan = plan_of(
        {"id": "runs", "meter": "agent_executions", "model": "included", "included": "100", "unit_amount": "1"}
    )
    usage = [
        usage_row("agent_executions", 70, {"agent_type": "planner"}),
        usage_row("agent_executions", 50, {"agent_type": "coder"}),
    ]
    # 70 + 50 = 120; 100 included, 20 × 1
    assert amounts(rate(plan, usage, OCTOBER, ALWAYS)) == {
        "runs — included, up to 100": "0.00",
        "runs — beyond 100": "20.00",
    }


TIERS = [{"up_to": "10", "unit_amount": "1"}, {"up_to": "100", "unit_amount": "0.5"}]
ENDLESS = {"up_to": "inf", "unit_amount": "0.1"}


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("0", {}),
        ("10", {"cpu — 0 to 10": "10.00"}),
        ("10.5", {"cpu — 0 to 10": "10.00", "cpu — 10 to 100": "0.25"}),  # no hole between 10 and 11
        ("100", {"cpu — 0 to 10": "10.00", "cpu — 10 to 100": "45.00"}),  # 90 × 0.5
        ("1100", {"cpu — 0 to 10": "10.00", "cpu — 10 to 100": "45.00", "cpu — above 100": "100.00"}),  # 1000 × 0.1
    ],
)
def test_graduated(quantity: str, expected: dict[str, str]) -> None:
    assert rate_cpu(quantity, model="graduated", tiers=[*TIERS, ENDLESS]) == expected


@pytest.mark.parametrize(
    ("tiers", "code", "path"),
    [
        ([], "tier_hole", "tiers"),
        (TIERS, "tier_hole", "tiers[1].up_to"),
        ([TIERS[1], TIERS[0], ENDLESS], "tier_overlap", "tiers[1].up_to"),
        ([TIERS[0], TIERS[0], ENDLESS], "tier_overlap", "tiers[1].up_to"),
        ([{"up_to": "0", "unit_amount": "1"}, ENDLESS], "tier_overlap", "tiers[0].up_to"),
        ([ENDLESS, ENDLESS], "tier_overlap", "tiers[0].up_to"),
        ([{"unit_amount": "1"}, ENDLESS], "missing_field", "tiers[0].up_to"),
        ([{**TIERS[0], "flat": 1}, ENDLESS], "unknown_field", "tiers[0].flat"),
    ],
)
def test_tiers_with_holes_are_refused(tiers: list[Any], code: str, path: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        plan_of({**CPU, "model": "graduated", "tiers": tiers})
    assert (code, f"plans.test.charges[0].{path}") in [(fault.code, fault.path) for fault in refused.value.faults]


def test_matrix_prices_each_value_and_falls_back_to_the_default() -> None:
    plan = plan_of(
        {
            "id": "in",
            "meter": "llm_input_tokens",
            "model": "matrix",
            "dimension": "model",
            "transform_quantity": {"divide_by": 1000},
            "unit_amount": "0.002",
            "unit_amounts": {"gpt4": "0.030"},
        }
    )
    usage = [
        usage_row("llm_input_tokens", 500_000, {"model": "gpt4"}),
        usage_row("llm_input_tokens", 250_000, {"model": "mistral"}),
        usage_row("llm_input_tokens", 1_000_000, {"model": ""}),
    ]
    assert amounts(rate(plan, usage, OCTOBER, ALWAYS)) == {
        "in": "2.00",  # 1,000 thousand × 0.002, no model named
        "in — gpt4": "15.00",  # 500 × 0.030
        "in — mistral": "0.50",  # 250 × 0.002, the default
    }


def test_usage_without_a_price_is_reported_not_guessed() -> None:
    plan = plan_of({"id": "gpu", "meter": "gpu", "model": "matrix", "dimension": "gpu", "unit_amounts": {"t4": "0.50"}})
    usage = [
        usage_row("gpu", 2, {"gpu": "t4"}),
        usage_row("gpu", 3, {"gpu": "h100"}),
        usage_row("memory", 4),
        usage_row("storage", 0),
    ]
    rated = rate(plan, usage, OCTOBER, ALWAYS)
    assert amounts(rated) == {"gpu — t4": "1.00"}
    assert rated.unpriced == (usage_row("gpu", 3, {"gpu": "h100"}), usage_row("memory", 4))


BASE = {"id": "base", "model": "flat", "flat_amount": "49.00", "recurring": {"interval": "month"}}


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (Term(parse_month("2026-01").start), {"base": "49.00"}),
        # started on 11 October: 49.00 × 21/31 = 33.1935...
        (Term(OCTOBER.start.replace(day=11, hour=15)), {"base — 21/31 of the period": "33.19"}),
        # ended on 11 October: 49.00 × 10/31 = 15.8064...; both halves are 49.00
        (
            Term(parse_month("2026-01").start, OCTOBER.start.replace(day=11, hour=15)),
            {"base — 10/31 of the period": "15.81"},
        ),
        (Term(OCTOBER.end), {}),
        (Term(parse_month("2026-01").start, OCTOBER.start), {}),
    ],
)
def test_flat_is_prorated_by_days(term: Term, expected: dict[str, str]) -> None:
    assert amounts(rate(plan_of(BASE), [], OCTOBER, term)) == expected


MINIMUM = {"id": "min", "model": "minimum", "minimum_amount": "100"}
SETUP = {"id": "setup", "model": "flat", "type": "one_time", "flat_amount": "500"}


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("0", {"base": "49.00", "min": "51.00"}),  # 100 - 49
        ("2.3", {"base": "49.00", "cpu": "0.12", "min": "50.88"}),  # 100 - 49 - 0.12: topped up to exactly 100
        ("1020", {"base": "49.00", "cpu": "51.00"}),  # 49 + 51 = 100
        ("2000", {"base": "49.00", "cpu": "100.00"}),
    ],
)
def test_minimum_tops_the_month_up(quantity: str, expected: dict[str, str]) -> None:
    plan = plan_of(BASE, MINIMUM, {**CPU, "model": "per_unit", "unit_amount": "0.05"})
    assert amounts(rate(plan, [usage_row("cpu", quantity)], OCTOBER, ALWAYS)) == expected


def test_one_time_charges_do_not_count_towards_the_minimum() -> None:
    rated = rate(plan_of(SETUP, MINIMUM), [], OCTOBER, Term(OCTOBER.start))
    assert amounts(rated) == {"setup": "500.00", "min": "100.00"}
    assert [line.kind for line in rated.lines] == ["one_time", "minimum"]


def test_a_minimum_is_prorated_like_a_base_fee() -> None:
    # from 17 October: 100 × 15/31 = 48.387...
    rated = rate(plan_of(MINIMUM), [], OCTOBER, Term(OCTOBER.start.replace(day=17)))
    assert amounts(rated) == {"min — 15/31 of the period": "48.39"}


YEARLY = {"id": "support", "model": "flat", "flat_amount": "10000", "recurring": {"interval": "year"}}


@pytest.mark.parametrize(
    ("started", "month", "due"),
    [
        ("2026-10-20", "2026-10", True),
        ("2026-10-20", "2026-09", False),
        ("2026-10-20", "2026-11", False),
        ("2026-10-20", "2027-10", True),
        ("2024-02-29", "2025-02", True),  # 29 February comes on the 28th
        ("2024-02-29", "2025-03", False),
        ("2024-02-29", "2028-02", True),
        ("2025-12-31", "2026-12", True),
        ("2025-12-31", "2027-01", False),
    ],
)
def test_yearly_charges_fall_due_at_the_start_and_each_anniversary(started: str, month: str, due: bool) -> None:
    term = Term(parse_month(started[:7]).start.replace(day=int(started[8:])))
    expected = {"support": "10000.00"} if due else {}
    assert amounts(rate(plan_of(YEARLY), [], parse_month(month), term)) == expected


def test_a_yearly_charge_does_not_fall_due_after_the_end() -> None:
    term = Term(parse_month("2025-10").start.replace(day=20), OCTOBER.start.replace(day=20))
    assert amounts(rate(plan_of(YEARLY), [], OCTOBER, term)) == {}


@pytest.mark.parametrize(
    ("currency", "expected"),
    [("JPY", "12"), ("KWD", "12.346"), ("CLF", "12.3457"), ("USD", "12.35")],
)
def test_each_currency_rounds_to_its_own_minor_unit(currency: str, expected: str) -> None:
    plan = plan_of({**CPU, "model": "per_unit", "unit_amount": "12.34567"}, currency=currency)
    assert amounts(rate(plan, [usage_row("cpu", 1)], OCTOBER, ALWAYS)) == {"cpu": expected}


def test_exact_and_rounded_amounts_are_kept_side_by_side_with_the_sum() -> None:
    plan = plan_of({**CPU, "model": "included", "included": "100", "unit_amount": "0.0333"})
    line = rate(plan, [usage_row("cpu", "112.5")], OCTOBER, ALWAYS).lines[1]
    assert (line.exact_amount, line.amount) == (Decimal("0.41625"), Decimal("0.42"))  # 12.5 × 0.0333
    assert line.steps == ("112.5 - 100 = 12.5", "12.5 × 0.0333 = 0.41625")
    assert (line.quantity, line.unit, line.unit_amount) == (Decimal("12.5"), "vCPU-hour", Decimal("0.0333"))


def test_negative_usage_stops_the_line() -> None:
    with pytest.raises(BrokenInvariantError):
        usage_row("cpu", "-1")


@pytest.mark.parametrize(
    ("charge", "code", "field"),
    [
        ({"model": "per_unit", "unit_amount": 0.05}, "float_amount", "unit_amount"),
        ({"model": "per_unit", "unit_amount": "1e3"}, "invalid_amount", "unit_amount"),
        ({"model": "per_unit", "unit_amount": "1,5"}, "invalid_amount", "unit_amount"),
        ({"model": "per_unit", "unit_amount": "NaN"}, "invalid_amount", "unit_amount"),
        ({"model": "per_unit", "unit_amount": True}, "invalid_amount", "unit_amount"),
        ({"model": "per_unit", "unit_amount": "-0.01"}, "negative_amount", "unit_amount"),
        ({"model": "per_unit", "unit_amount": "0.0000000000001"}, "too_many_digits", "unit_amount"),
        ({"model": "per_unit", "unit_amount": "1234567890123456"}, "too_many_digits", "unit_amount"),
        ({"model": "per_unit"}, "missing_field", "unit_amount"),
        ({"model": "per_unit", "unit_amount": "1", "tiers": []}, "unknown_field", "tiers"),
        ({"model": "per_unit", "unit_amount": "1", "transform_quantity": {"divide_by": 0}}, "invalid_number",
         "transform_quantity.divide_by"),
        ({"model": "per_unit", "unit_amount": "1", "type": "one_time"}, "contradiction", "type"),
        ({"model": "per_unit", "unit_amount": "1", "recurring": {"interval": "year"}}, "contradiction",
         "recurring.interval"),
        ({"model": "per_unit", "unit_amount": "1", "recurring": {"interval": "week"}}, "invalid_choice",
         "recurring.interval"),
        ({"model": "included", "included": "1", "unit_amount": "1", "hard_limit": True}, "contradiction",
         "unit_amount"),
        ({"model": "matrix", "dimension": "model", "unit_amount": "1"}, "unknown_dimension", "dimension"),
        ({"model": "matrix", "dimension": "x"}, "missing_field", "unit_amounts"),
        ({"model": "flat", "flat_amount": "1"}, "contradiction", "meter"),
        ({"model": "vulome", "unit_amount": "1"}, "unknown_price_model", "model"),
        ({"model": "per_unit", "unit_amount": "1", "meter": "nonsense"}, "unknown_meter", "meter"),
    ],
)  # fmt: skip
def test_a_price_that_makes_no_sense_is_refused_with_its_path(charge: dict[str, Any], code: str, field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        plan_of({**CPU, **charge})
    found = [(fault.code, fault.path) for fault in refused.value.faults]
    assert (code, f"plans.test.charges[0].{field}") in found
