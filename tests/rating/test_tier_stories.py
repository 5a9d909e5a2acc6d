"""A billing story per tier of the catalogue that ships, every sum written out."""

from __future__ import annotations

from decimal import Decimal

from rating.domain.override_plan import override_plan
from rating.domain.plan import parse_plan
from rating.domain.usage import usage_row
from tests.rating.plans import ALWAYS, METERS, OCTOBER, TIERS, Term, amounts, rate

ALL_SORTS = [
    usage_row("agent_executions", 150_000, {"agent_type": "planner"}),
    usage_row("agent_executions", 12_345, {"agent_type": "coder"}),
    usage_row("api_requests", 12_345_678, {"endpoint": "/v1/run", "method": "POST"}),
    usage_row("llm_input_tokens", 1_234_567, {"model": "gpt4"}),
    usage_row("llm_input_tokens", 1_000_001, {"model": "claude"}),
    usage_row("llm_input_tokens", 500, {"model": "llama"}),
    usage_row("llm_output_tokens", 250_000, {"model": "gpt4"}),
    usage_row("llm_output_tokens", 10_000, {"model": "gpt35"}),
    usage_row("storage", "10.5", {"class": "hot"}),
    usage_row("storage", "100", {"class": "cold"}),
    usage_row("storage", "7", {}),
    usage_row("cpu", "123.45"),
    usage_row("gpu", "1.5", {"gpu": "a100"}),
    usage_row("gpu", "3", {"gpu": "t4"}),
    usage_row("memory", "1000.5"),
]
METERED = {
    "LLM input tokens — claude": "25.00",  # 1,000.001 × 0.025 = 25.000025
    "LLM input tokens — gpt4": "37.04",  # 1,234.567 × 0.030 = 37.03701
    "LLM input tokens — llama": "0.00",  # 0.5 × 0.002 = 0.001
    "LLM output tokens — gpt35": "0.04",  # 10 × 0.004
    "LLM output tokens — gpt4": "15.00",  # 250 × 0.060
    "Storage": "0.70",  # 7 × 0.10, no class named
    "Storage — cold": "2.00",  # 100 × 0.02
    "Storage — hot": "1.58",  # 10.5 × 0.15 = 1.575, half up
    "CPU": "6.17",  # 123.45 × 0.05 = 6.1725
    "GPU — a100": "4.50",  # 1.5 × 3.00
    "GPU — t4": "1.50",  # 3 × 0.50
    "Memory": "10.01",  # 1000.5 × 0.01 = 10.005, half up
}  # 103.54 in all


def test_zero_is_free_and_shows_what_was_used() -> None:
    usage = [usage_row("agent_executions", 950), usage_row("api_requests", 100_000)]
    rated = rate(TIERS["zero"], usage, OCTOBER, ALWAYS)
    assert amounts(rated) == {
        "Agent executions — included, up to 1,000": "0.00",
        "API requests — included, up to 100,000": "0.00",
    }
    assert {(limit.meter_id, str(limit.limit), limit.hard) for limit in TIERS["zero"].limits} == {
        ("agent_executions", "1000", True),
        ("api_requests", "100000", True),
        ("executions", "1000", True),
    }


def test_zero_pay_per_execution() -> None:
    usage = [
        usage_row("agent_executions", 1_234, {"agent_type": "planner"}),
        usage_row("network_egress", "12.34", {"region": "eu"}),
        usage_row("network_egress", "1.01", {"region": "us"}),
        usage_row("api_requests", 5),
    ]
    assert amounts(rate(TIERS["zero_pay_per_execution"], usage, OCTOBER, ALWAYS)) == {
        "Agent executions": "1.23",  # 1,234 × 0.001 = 1.234
        "API requests — included, up to 100,000": "0.00",
        "Network egress": "1.34",  # 13.35 × 0.10 = 1.335, half up
    }


def test_shared_pays_as_it_goes() -> None:
    rated = rate(TIERS["shared"], ALL_SORTS, OCTOBER, ALWAYS)
    assert amounts(rated) == {
        "Agent executions — included, up to 10,000": "0.00",
        "Agent executions — beyond 10,000": "152.35",  # 152,345 × 0.001 = 152.345, half up
        "API requests — included, up to 1,000,000": "0.00",
        "API requests — beyond 1,000,000": "1134.57",  # 11,345,678 × 0.0001 = 1,134.5678
        **METERED,
    }
    assert rated.total == Decimal("1390.46")  # 152.35 + 1,134.57 + 103.54
    assert rated.unpriced == ()


def test_shared_without_usage_costs_nothing() -> None:
    assert rate(TIERS["shared"], [], OCTOBER, ALWAYS).lines == ()


def test_lite_has_a_base_fee_and_larger_allowances() -> None:
    rated = rate(TIERS["lite"], ALL_SORTS, OCTOBER, ALWAYS)
    assert amounts(rated) == {
        "Lite base fee": "99.00",
        "Agent executions — included, up to 100,000": "0.00",
        "Agent executions — beyond 100,000": "31.17",  # 62,345 × 0.0005 = 31.1725
        "API requests — included, up to 10,000,000": "0.00",
        "API requests — beyond 10,000,000": "117.28",  # 2,345,678 × 0.00005 = 117.2839
        **METERED,
    }
    assert rated.total == Decimal("350.99")  # 99 + 31.17 + 117.28 + 103.54


def test_lite_from_the_16th_pays_16_of_31_days() -> None:
    rated = rate(TIERS["lite"], [], OCTOBER, Term(OCTOBER.start.replace(day=16)))
    assert amounts(rated) == {"Lite base fee — 16/31 of the period": "51.10"}  # 99 × 16/31 = 51.0967...


def test_enterprise_is_topped_up_to_its_minimum() -> None:
    rated = rate(TIERS["enterprise"], ALL_SORTS, OCTOBER, ALWAYS)
    assert amounts(rated) == {
        "Agent executions, unlimited": "0.00",
        "API requests, unlimited": "0.00",
        **METERED,
        "Top-up to the monthly minimum": "4896.46",  # 5,000 - 103.54
    }
    assert rated.total == Decimal("5000.00")


def test_an_enterprise_contract_overrides_base_minimum_and_prices() -> None:
    contract = {
        "charges": [
            {"id": "base", "flat_amount": "8000"},
            {"id": "minimum", "minimum_amount": "8100"},
            {"id": "cpu", "unit_amount": "0.04"},
            {
                "id": "llm_input_tokens",
                "model": "graduated",
                "dimension": None,
                "unit_amount": None,
                "unit_amounts": None,
                "tiers": [{"up_to": "2000000", "unit_amount": "0.020"}, {"up_to": "inf", "unit_amount": "0.010"}],
            },
        ]
    }
    plan = parse_plan("enterprise", override_plan(TIERS["enterprise"].document, contract), METERS)
    usage = [usage_row("cpu", 100), usage_row("llm_input_tokens", 3_000_000, {"model": "gpt4"})]
    assert amounts(rate(plan, usage, OCTOBER, ALWAYS)) == {
        "Enterprise base fee": "8000.00",
        "LLM input tokens — 0 to 2,000,000": "40.00",  # 2,000 × 0.020
        "LLM input tokens — above 2,000,000": "10.00",  # 1,000 × 0.010
        "CPU": "4.00",  # 100 × 0.04
        "Top-up to the monthly minimum": "46.00",  # 8,100 - 8,054
    }
    assert "0.05" in str(TIERS["enterprise"].document), "the list price itself is left alone"


def test_airgapped_pays_the_licence_once_and_support_every_year() -> None:
    airgapped, term = TIERS["airgapped"], Term(OCTOBER.start.replace(day=5))
    first = rate(airgapped, [], OCTOBER, term)
    assert amounts(first) == {"Perpetual licence": "50000.00", "Yearly support and updates": "10000.00"}
    assert [line.kind for line in first.lines] == ["one_time", "fixed"]
    next_month = OCTOBER.__class__(OCTOBER.end, OCTOBER.end.replace(month=12))
    assert rate(airgapped, [], next_month, term).lines == ()
    a_year_on = OCTOBER.__class__(OCTOBER.start.replace(year=2027), OCTOBER.end.replace(year=2027))
    assert amounts(rate(airgapped, [], a_year_on, term)) == {"Yearly support and updates": "10000.00"}
