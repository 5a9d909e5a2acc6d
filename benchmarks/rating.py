"""Ratings per second and core, by the library alone: `make bench`, or `python -m benchmarks.rating`.

Time is the process's own processor time, which other work on the machine disturbs less than the clock. Rounds are
interleaved, and each kind of rating is set beside the simplest one, measured in the same round. Every total is compared
with one that was computed from whole numbers; a difference fails the run (exit code 1).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.report import describe_machine
from core.errors import Fault, InvalidInputError
from core.meters import Meter
from rating.answer_request import answer_line
from rating.domain.plan import Charge, read_charges
from rating.domain.price import UsageEntry
from rating.rate_charges import rate_charge

SIMPLE = "per unit"
TARGET = 50_000
METER = Meter("tokens", "token", "bench.tokens", "sum", "value", ("model",))
TIERS = [
    {"up_to": "1000", "unit_amount": "0.05"},
    {"up_to": "5000", "unit_amount": "0.04"},
    {"up_to": "inf", "unit_amount": "0.03"},
]
MODELS = [f"model-{number}" for number in range(8)]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of rating: `run(n)` makes n of them and returns the sum of their amounts, `cents(n)` computes it."""

    name: str
    run: Callable[[int], Decimal]
    cents: Callable[[int], int]


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", type=int, default=20_000, help="ratings of a kind and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    kinds = make_kinds()
    rates: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    for _ in range(arguments.rounds):
        for kind in kinds:
            # Kinds of many lines are not given more time than the simple one.
            count = max(arguments.ratings // (1 if kind.name == SIMPLE else 4), 1)
            started = time.process_time()
            amount = kind.run(count)
            rates[kind.name].append(count / (time.process_time() - started))
            if amount * 100 != kind.cents(count):
                sys.exit(f"{kind.name}: came to {amount}, expected {kind.cents(count)} cents")
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "ratings_per_second": rates}, indent=2))
    else:
        show(rates)


def show(rates: dict[str, list[float]]) -> None:
    """Print the medians, and what each costs beside the simplest."""
    table = Table(title="ratings per second of processor time, one core")
    for heading in ("kind", "median", "slowest", "fastest", "beside it"):
        table.add_column(heading, justify="left" if heading == "kind" else "right", no_wrap=True)
    for name, found in rates.items():
        beside = statistics.median(one / simple for one, simple in zip(found, rates[SIMPLE], strict=True))
        table.add_row(
            name, *(f"{rate:,.0f}" for rate in (statistics.median(found), min(found), max(found))), f"{beside:.2f}"
        )
    console = Console()
    console.print(table)
    reached = statistics.median(rates[SIMPLE])
    verdict = "reached" if reached > TARGET else "missed"
    console.print(f"{verdict}: more than {TARGET:,} simple line ratings/s and core, found {reached:,.0f}")


def make_kinds() -> list[Kind]:
    """Return what is measured."""
    simple = charge_of(model="per_unit", unit_amount="0.02")
    tiers = charge_of(model="graduated", tiers=TIERS)
    matrix = charge_of(model="matrix", dimension="model", unit_amounts=dict.fromkeys(MODELS, "0.02"))
    adjusted = charge_of(
        model="per_unit",
        unit_amount="0.10",
        free_units="100",
        discount={"percent_off": "20"},
        minimum_amount="100.00",
    )
    percentage = charge_of(model="percentage", percent="2", fixed_amount="0.30")
    start = datetime(2026, 10, 1, tzinfo=UTC)
    events = tuple(UsageEntry(start + timedelta(hours=hour), Decimal(100)) for hour in range(100))
    usage = {((METER.dimensions[0], model),): Decimal(50) for model in MODELS}
    price = {"model": "per_unit", "unit_amount": "0.02"}
    line = json.dumps({"id": "1", "currency": "USD", "price": price, "usage": {"quantity": "1500"}}).encode()
    return [
        # 0.02 × (0 + 1 + 2 + …)
        Kind(SIMPLE, lambda n: sum_of(simple, n), lambda n: n * (n - 1)),
        # 1,000 × 0.05 + 4,000 × 0.04 + 1,000 × 0.03
        Kind("graduated, 3 tiers reached", lambda n: sum_of(tiers, n, 6_000), lambda n: n * 24_000),
        # 8 × 50 × 0.02
        Kind(
            "matrix, 8 values", lambda n: sum_amounts(lambda: rate_charge(matrix, "USD", usage), n), lambda n: n * 800
        ),
        # (200 - 100) × 0.10 × 80 % = 8, topped up to 100
        Kind("free units, discount, minimum", lambda n: sum_of(adjusted, n, 200), lambda n: n * 10_000),
        # 100 × (100 × 2 % + 0.30)
        Kind(
            "percentage of 100 events",
            lambda n: sum_amounts(lambda: rate_charge(percentage, "USD", {(): Decimal(10_000)}, events), n),
            lambda n: n * 23_000,
        ),
        # Reading, checking and answering JSON as well: 1,500 × 0.02
        Kind("a line of `meterbook rate`", lambda n: sum_answers(line, n), lambda n: n * 3_000),
    ]


def charge_of(**price: Any) -> Charge:
    """Return a charge of the meter."""
    faults: list[Fault] = []
    document = {"id": "one", "name": "Tokens", "meter": METER.meter_id, **price}
    charges = read_charges([document], {METER.meter_id: METER}, "charges", faults, "USD")
    if faults:
        raise InvalidInputError(faults)
    return charges[0]


def sum_of(charge: Charge, count: int, quantity: int | None = None) -> Decimal:
    """Rate `count` quantities (0, 1, 2, … unless one is given) and return the sum of the rounded amounts."""
    total = Decimal(0)
    for number in range(count):
        lines, _ = rate_charge(charge, "USD", {(): Decimal(number if quantity is None else quantity)})
        for line in lines:
            total += line.amount
    return total


def sum_amounts(rate: Callable[[], Any], count: int) -> Decimal:
    """Rate `count` times and return the sum of the rounded amounts."""
    total = Decimal(0)
    for _ in range(count):
        for line in rate()[0]:
            total += line.amount
    return total


def sum_answers(line: bytes, count: int) -> Decimal:
    """Answer the line `count` times, as the command does, and return the sum of the totals."""
    total = Decimal(0)
    for _ in range(count):
        total += Decimal(json.loads(json.dumps(answer_line(line)))["total"])
    return total


if __name__ == "__main__":
    main()
