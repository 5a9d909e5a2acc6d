"""The built-in scenario: tenants on all five tiers, about 223,000 events in the last days of the month before now."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from runtime.demo.usage import DemoEvent, DemoTenant, Usage

TENANTS = (
    DemoTenant(
        "sprout", "Sprout Labs", "zero", "ops@sprout.example", address="1 Garage Lane|Austin, TX 78701", pays=False
    ),
    DemoTenant(
        "pebble",
        "Pebble Works",
        "zero_pay_per_execution",
        "pay@pebble.example",
        address="4 Shore Road|Portland, ME 04101",
    ),
    DemoTenant(
        "acorn",
        "Acorn Analytics, Inc.",
        "shared",
        "billing@acorn.example",
        address="77 Oak Street|Boston, MA 02108",
    ),
    DemoTenant("birch", "Birch & Sons", "shared", "office@birch.example", address="9 Birch Alley|Madison, WI 53703"),
    DemoTenant(
        "cedar",
        "Cedar Cloud GmbH",
        "lite",
        "rechnung@cedar.example",
        country="DE",
        address="Zedernweg 12|10115 Berlin",
    ),
    DemoTenant(
        "drift",
        "Drift Robotics Corporation",
        "enterprise",
        "ap@drift.example",
        address="500 Harbor Boulevard|Oakland, CA 94607",
        # Negotiated: a base fee of 2,000, and 10 % off the largest model's input.
        overrides={
            "charges": [
                {"id": "base", "flat_amount": "2000"},
                {"id": "llm_input_tokens", "unit_amounts": {"gpt4": "0.027", "gpt35": "0.002", "claude": "0.025"}},
            ]
        },
    ),
    DemoTenant(
        "fortress",
        "Fortress Defence Systems",
        "airgapped",
        "treasury@fortress.example",
        address="1 Bunker Hill|Arlington, VA 22202",
    ),
)

Maker = Callable[[random.Random], tuple[dict[str, str], dict[str, str]]]


def _execution(rng: random.Random) -> tuple[dict[str, str], dict[str, str]]:
    return {}, {"agent_type": rng.choice(("planner", "coder", "reviewer"))}


def _requests(low: int, high: int) -> Maker:
    def make(rng: random.Random) -> tuple[dict[str, str], dict[str, str]]:
        endpoint = rng.choice(("/v1/run", "/v1/files", "/v1/search"))
        return {"requests": str(rng.randint(low, high))}, {"endpoint": endpoint, "method": rng.choice(("GET", "POST"))}

    return make


def _completion(rng: random.Random) -> tuple[dict[str, str], dict[str, str]]:
    tokens = {"input_tokens": str(rng.randint(20, 7_500)), "output_tokens": str(rng.randint(5, 1_900))}
    return tokens, {"model": rng.choice(("gpt4", "gpt35", "claude", "mistral"))}


def _decimal(
    name: str, low: int, high: int, places: int, dimension: tuple[str, tuple[str, ...]] | None = None
) -> Maker:
    def make(rng: random.Random) -> tuple[dict[str, str], dict[str, str]]:
        digits = f"{rng.randint(low, high):0{places + 1}}"
        dimensions = {dimension[0]: rng.choice(dimension[1])} if dimension else {}
        return {name: f"{digits[:-places]}.{digits[-places:]}"}, dimensions

    return make


_CLASSES = ("class", ("hot", "warm", "cold"))
PLAN_OF_USAGE: tuple[tuple[str, str, int, Maker], ...] = (
    ("sprout", "agent.execution", 1_040, _execution),
    ("sprout", "api.request", 900, _requests(20, 100)),
    ("pebble", "agent.execution", 6_000, _execution),
    ("pebble", "network.egress", 300, _decimal("gb", 100, 2_500, 3, ("region", ("us-east", "eu-west")))),
    ("acorn", "agent.execution", 12_500, _execution),
    ("acorn", "api.request", 8_000, _requests(50, 250)),
    ("acorn", "llm.completion", 6_000, _completion),
    ("acorn", "compute.cpu", 1_500, _decimal("vcpu_hours", 10, 4_000, 3)),
    ("acorn", "compute.memory", 1_500, _decimal("gb_hours", 10, 64_000, 3)),
    ("birch", "agent.execution", 8_400, _execution),
    ("birch", "api.request", 3_000, _requests(1, 40)),
    ("birch", "storage.usage", 200, _decimal("gb_months", 1, 90_000, 6, _CLASSES)),
    ("cedar", "agent.execution", 104_000, _execution),
    ("cedar", "api.request", 15_000, _requests(400, 1_100)),
    ("cedar", "llm.completion", 9_000, _completion),
    ("cedar", "compute.gpu", 800, _decimal("gpu_hours", 1, 2_000, 3, ("gpu", ("t4", "a100")))),
    ("cedar", "storage.usage", 300, _decimal("gb_months", 1, 900_000, 6, _CLASSES)),
    ("drift", "agent.execution", 26_000, _execution),
    ("drift", "api.request", 5_000, _requests(100, 900)),
    ("drift", "llm.completion", 12_000, _completion),
    ("drift", "compute.gpu", 2_000, _decimal("gpu_hours", 1, 500, 3, ("gpu", ("a100",)))),
)
_SOURCES = ("kernel/eu-1", "kernel/us-2", "gateway/7", "edge/12")
USAGE_DAYS = 3


def build_scenario(now: datetime, seed: int) -> Usage:
    """Return the scenario's usage; the same instant and seed give the same events.

    Events lie in the last three days of the month before `now`: that month is over, so it can be invoiced, and the
    events are young enough to be accepted.
    """
    rng = random.Random(seed)  # noqa: S311 - a reproducible scenario, not a secret
    end = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    start = end - timedelta(days=USAGE_DAYS)
    events = sorted(_events(rng, start), key=lambda event: event.occurred_at)
    month = start.strftime("%Y-%m")
    first = start.replace(day=1, hour=0)
    return Usage(TENANTS, events, (month,), _poison(events[0]), first)


def _events(rng: random.Random, start: datetime) -> Iterator[DemoEvent]:
    seconds = USAGE_DAYS * 86_400
    number = 0
    for tenant, kind, count, make in PLAN_OF_USAGE:
        for _ in range(count):
            number += 1
            quantities, dimensions = make(rng)
            occurred_at = start + timedelta(milliseconds=rng.randrange(seconds * 1_000))
            yield DemoEvent(
                tenant, f"{kind}-{number:07}", rng.choice(_SOURCES), kind, occurred_at, quantities, dimensions
            )


def _poison(sample: DemoEvent) -> tuple[tuple[str, bytes | None], ...]:
    """Return what a real feed also brings: (code it must be refused with, bytes)."""
    event = sample.cloud_event()

    def changed(**changes: object) -> bytes:
        return json.dumps({**event, **changes}).encode()

    return (
        ("not_json", b"GET / HTTP/1.1"),
        ("not_json", sample.body()[:-20]),
        ("tombstone", None),
        ("unknown_tenant", changed(subject="nobody")),
        ("unknown_meter", changed(type="coffee.brewed")),
        ("missing_field", changed(id=None)),
        ("time_without_zone", changed(time="2026-10-30T12:00:00")),
        ("future_time", changed(time="2099-01-01T00:00:00Z")),
        ("negative_quantity", changed(type="api.request", data={"requests": -5})),
        ("quantity_out_of_range", changed(type="api.request", data={"requests": "1e400"})),
    )
