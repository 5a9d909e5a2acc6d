"""What must come out, computed apart: plain Decimals over the demo's own events, prices copied by hand.

Shares no code with the pipeline (no import from core, streams, rating or invoicing), so that a mistake there cannot
hide here. The prices are those of the tier catalogue as its owner wrote them down, per single unit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal

from runtime.demo.usage import DemoEvent, DemoTenant

# event type -> (meter, data property or None for counting, dimension that prices depend on)
METERS: dict[str, tuple[tuple[str, str | None, str], ...]] = {
    "agent.execution": (("agent_executions", None, ""),),
    "api.request": (("api_requests", "requests", ""),),
    "llm.completion": (("llm_input_tokens", "input_tokens", "model"), ("llm_output_tokens", "output_tokens", "model")),
    "storage.usage": (("storage", "gb_months", "class"),),
    "compute.cpu": (("cpu", "vcpu_hours", ""),),
    "compute.gpu": (("gpu", "gpu_hours", "gpu"),),
    "compute.memory": (("memory", "gb_hours", ""),),
    "network.egress": (("network_egress", "gb", ""),),
}
D = Decimal
LLM_INPUT = {"gpt4": D("0.030"), "gpt35": D("0.002"), "claude": D("0.025")}
LLM_OUTPUT = {"gpt4": D("0.060"), "gpt35": D("0.004"), "claude": D("0.050")}
STORAGE = {"hot": D("0.15"), "warm": D("0.08"), "cold": D("0.02")}
GPU = {"t4": D("0.50"), "a100": D("3.00")}


@dataclass
class Truth:
    """Totals of the distinct events: by (tenant, meter, hour) and by (tenant, meter, priced dimension)."""

    by_hour: dict[tuple[str, str, str], Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    by_value: dict[tuple[str, str, str], Decimal] = field(default_factory=lambda: defaultdict(Decimal))

    def month(self, tenant: str, meter: str) -> Decimal:
        """Return a meter's total of a tenant."""
        return sum((q for (t, m, _), q in self.by_value.items() if (t, m) == (tenant, meter)), D(0))


def add_up(events: Sequence[DemoEvent]) -> Truth:
    """Add up distinct events."""
    truth = Truth()
    for event in events:
        hour = event.occurred_at.strftime("%Y-%m-%dT%H")
        for meter, name, dimension in METERS[event.type]:
            quantity = D(1) if name is None else D(event.quantities[name])
            truth.by_hour[event.tenant, meter, hour] += quantity
            truth.by_value[event.tenant, meter, event.dimensions.get(dimension, "")] += quantity
    return truth


def expected_total(tenant: DemoTenant, truth: Truth) -> Decimal:
    """Return what the tenant's invoice of the month must come to, in USD; each line is rounded once, half up."""
    t = tenant.tenant_id
    if tenant.plan == "zero":
        return D("0.00")
    if tenant.plan == "airgapped":
        return D("60000.00")  # licence 50,000 once + support 10,000 a year, both due in the first month
    executions, requests = truth.month(t, "agent_executions"), truth.month(t, "api_requests")
    if tenant.plan == "zero_pay_per_execution":
        return _cents(executions * D("0.001")) + _cents(truth.month(t, "network_egress") * D("0.10"))
    metered = _metered(t, truth, D("0.027") if tenant.plan == "enterprise" else LLM_INPUT["gpt4"])
    if tenant.plan == "shared":
        return (
            _cents(max(executions - 10_000, D(0)) * D("0.001"))
            + _cents(max(requests - 1_000_000, D(0)) * D("0.0001"))
            + metered
        )
    if tenant.plan == "lite":
        return (
            D("99.00")
            + _cents(max(executions - 100_000, D(0)) * D("0.0005"))
            + _cents(max(requests - 10_000_000, D(0)) * D("0.00005"))
            + metered
        )
    if tenant.plan == "enterprise":
        return max(D("2000.00") + metered, D("5000.00"))
    raise AssertionError(f"no expectation for plan {tenant.plan}")


def _metered(tenant: str, truth: Truth, gpt4_input: Decimal) -> Decimal:
    prices: dict[str, tuple[dict[str, Decimal], Decimal, int]] = {
        "llm_input_tokens": ({**LLM_INPUT, "gpt4": gpt4_input}, D("0.002"), 1_000),
        "llm_output_tokens": (LLM_OUTPUT, D("0.004"), 1_000),
        "storage": (STORAGE, D("0.10"), 1),
        "cpu": ({}, D("0.05"), 1),
        "gpu": (GPU, D(0), 1),
        "memory": ({}, D("0.01"), 1),
    }
    total = D("0.00")
    for (owner, meter, value), quantity in truth.by_value.items():
        if owner == tenant and meter in prices:
            by_value, default, per = prices[meter]
            total += _cents(quantity * by_value.get(value, default) / per)
    return total


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(D("0.01"), rounding=ROUND_HALF_UP)
