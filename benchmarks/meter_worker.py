"""The meter worker beside its rivals: `make bench`, or `python -m benchmarks.meter_worker`.

One run on one machine; rounds are interleaved, so that a slow minute of the machine slows everybody. The meter worker's
totals are compared with what was produced after every round, and any difference fails the run (exit code 1).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks import engines
from benchmarks.check_journal import NotExactError, check
from benchmarks.contenders import (
    ContenderFailedError,
    Measurement,
    run_foreign_rival,
    run_meter_worker,
    run_rival,
)
from benchmarks.report import Report, Target, describe_machine
from benchmarks.workload import BATCH_EVENTS, SPAN, TENANTS, Workload, generate
from core.errors import MeterbookError
from core.topics import USAGE_EVENTS

METER = "meter worker, single events"
METER_BATCHES = "meter worker, batches of 100"
PLAIN = "plain aiokafka + msgspec loop"
PLAIN_BATCHES = "plain loop, batches of 100"
FAUST = "stock Faust, windowed table"
FAUST_COUNTER = "stock Faust, plain counter"

QUIX = "Quix Streams, exactly-once window"
BYTEWAX = "Bytewax, event-time window"

TARGETS = (
    Target(METER, 50, FAUST),
    Target(METER, 5, QUIX),
    Target(METER, 0.5, PLAIN),
    Target(METER_BATCHES, 3, METER),
)
_SEED = 20_260_401
# A rate needs no more, and all of them would take a minute each.
RIVAL_EVENTS = 100_000
_SINGLE, _BATCH = "single", "batch"

Progress = Callable[[str], None]


def main() -> None:
    """Run as the command line says."""
    arguments = _parse()
    progress = _Progress()
    # A broker that has just started answers "not yet" a few times, which aiokafka reports as errors and then retries.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        report = run(arguments.events, arguments.rounds, arguments.stock_events, progress)
    except (ContenderFailedError, NotExactError, MeterbookError) as error:
        sys.stderr.write(f"the benchmark failed: {error}\n")
        sys.exit(1)
    if arguments.json:
        print(json.dumps(report.as_dict(), indent=2))
        return
    console = Console()
    # A pipe or a file has no width of its own; a table is worth more than a narrow margin.
    report.print(
        console if console.is_terminal else Console(width=120),
        columns=(("Faust", FAUST), ("Quix", QUIX), ("loop", PLAIN)),
    )


def run(events: int, rounds: int, stock_events: int, progress: Progress) -> Report:
    """Start the engines in a temporary folder, measure every contender `rounds` times, and end the engines.

    Raises `ContenderFailedError`, `NotExactError`, or the stack's own errors.
    """
    machine = describe_machine()
    progress(f"writing {events:,} events")
    workload = generate(events, seed=_SEED, until=datetime.now(UTC))
    with tempfile.TemporaryDirectory(prefix="meterbook-bench-") as folder:
        home = Path(folder)
        try:
            singles = engines.start(home, _SINGLE, progress)
            batches = engines.start(home, _BATCH, progress, postgres_url=singles.settings.postgres)
            runs = _measure(singles, batches, workload, rounds, stock_events, progress)
        finally:
            for name in (_SINGLE, _BATCH):
                engines.stop(home, name)
    return Report(runs, TARGETS, _describe(workload, rounds, stock_events), machine)


def _measure(
    singles: engines.Broker,
    batches: engines.Broker,
    workload: Workload,
    rounds: int,
    stock_events: int,
    progress: Progress,
) -> dict[str, list[Measurement]]:
    single_messages = engines.produce(singles, workload.singles())
    batch_messages = engines.produce(batches, workload.batches())
    progress(f"produced {single_messages:,} single messages and {batch_messages:,} batches")
    events = len(workload.bodies)

    def meter(broker: engines.Broker) -> Measurement:
        engines.reset(broker)
        measured = run_meter_worker(broker, events)
        check(broker, workload)
        return measured

    def plain(broker: engines.Broker, messages: int, form: str) -> Measurement:
        return run_rival("benchmarks.plain_loop", broker.bootstrap, str(messages), form)

    def stock(kind: str, number: int) -> Measurement:
        # A name of its own: stock Faust would go on where the last round ended.
        name = f"stock-{kind}-{number}"
        return run_rival("benchmarks.stock_faust", singles.bootstrap, str(stock_events), kind, name)

    def quix(number: int) -> Measurement:
        with tempfile.TemporaryDirectory(prefix="quix-") as state:
            wanted = str(min(RIVAL_EVENTS, events - 1))
            name = f"quix-{number}"
            return run_foreign_rival("quix_exactly_once", singles.bootstrap, USAGE_EVENTS.name, wanted, name, state)

    def bytewax() -> Measurement:
        wanted = str(min(RIVAL_EVENTS, events - 1))
        return run_foreign_rival("bytewax_windows", singles.bootstrap, USAGE_EVENTS.name, wanted)

    contenders: dict[str, Callable[[int], Measurement]] = {
        METER: lambda _: meter(singles),
        METER_BATCHES: lambda _: meter(batches),
        PLAIN: lambda _: plain(singles, single_messages, _SINGLE),
        PLAIN_BATCHES: lambda _: plain(batches, batch_messages, _BATCH),
        QUIX: quix,
        BYTEWAX: lambda _: bytewax(),
        FAUST: lambda number: stock("windowed", number),
        FAUST_COUNTER: lambda number: stock("counter", number),
    }
    runs: dict[str, list[Measurement]] = {}
    for number in range(1, rounds + 1):
        for name, measure in contenders.items():
            measured = measure(number)
            runs.setdefault(name, []).append(measured)
            exact = ", exact" if name in (METER, METER_BATCHES) else ""
            progress(f"round {number}/{rounds}  {name}: {measured.rate:,.0f} events/s{exact}")
    return runs


def _describe(workload: Workload, rounds: int, stock_events: int) -> dict[str, str]:
    return {
        "events": f"{len(workload.bodies):,} ({workload.duplicates:,} of them duplicates)",
        "bytes/event": f"{workload.mean_bytes:.0f}",
        "tenants": str(len(TENANTS)),
        "minute windows": f"{len(workload.expected):,} in {SPAN.total_seconds() / 60:.0f} min of event time",
        "batch": str(BATCH_EVENTS),
        "partitions": str(engines.PARTITIONS),
        "rounds": str(rounds),
        "stock Faust reads": f"{stock_events:,}",
        "Quix and Bytewax read": f"{RIVAL_EVENTS:,}",
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.meter_worker", description=__doc__)
    parser.add_argument("--events", type=int, default=500_000, help="events to count (default 500,000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default 3)")
    parser.add_argument(
        "--stock-events",
        type=int,
        default=12_000,
        help="how many of them stock Faust reads (default 12,000): it would take minutes for all",
    )
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    arguments = parser.parse_args()
    if arguments.events < 1_000 or arguments.rounds < 1 or not 0 < arguments.stock_events < arguments.events:
        parser.error("expected --events of 1,000 or more, --rounds of 1 or more, --stock-events below --events")
    return arguments


class _Progress:
    """Progress on standard error, so that --json stays clean."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - self._began:6.1f} s  {line}\n")


if __name__ == "__main__":
    main()
