"""Runs the fault table: `python -m tests.chaos [--seed N] [--smoke] [--plant DEFECT] [--report FILE] [F1 F2 ...]`."""

from __future__ import annotations

import argparse
import asyncio
import platform
import random
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.entry import PLANTS
from tests.chaos.row import Verdict
from tests.chaos.scenarios import NAMES, run_row
from tests.chaos.start import SMOKE_PLAN, create_world
from tests.chaos.world import World


def main() -> int:
    """Run the rows and return the exit code: 0 if all held."""
    parser = argparse.ArgumentParser(description="Meterbook under faults, against an oracle.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(NAMES)}; all if none is named")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--smoke", action="store_true", help="every fault once, in small")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="put a defect into the workers; the run must then fail")
    parser.add_argument("--report", type=Path, help="file for the table in Markdown")
    arguments = parser.parse_args()
    # What reads the whole topic again comes first, while the topic holds nothing but its own events.
    names = sorted(arguments.rows or NAMES, key=lambda name: name != "F31")
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"no such row: {', '.join(unknown)}")
    print(f"seed {arguments.seed}, {'smoke' if arguments.smoke else 'full'} dose, rows {' '.join(names)}", flush=True)
    # A run that is ended from outside must not leave its engines behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    world = create_world(
        SMOKE_PLAN if arguments.smoke else {}, plant=arguments.plant, batch_events=500 if arguments.smoke else 2_000
    )
    try:
        verdicts = asyncio.run(_run(world, names, arguments.seed, full=not arguments.smoke))
    finally:
        world.close()
    failed = [verdict.row for verdict in verdicts if not verdict.passed]
    print(f"{len(verdicts)} rows, failed: {', '.join(failed) or 'none'}; repeat with SEED={arguments.seed}")
    if arguments.report:
        arguments.report.write_text(_markdown(verdicts, arguments.seed))
    return 1 if failed else 0


async def _run(world: World, names: list[str], seed: int, *, full: bool) -> list[Verdict]:
    verdicts = []
    for name in names:
        verdict = await run_row(world, name, seed=seed, full=full)
        print(verdict.line(), flush=True)
        verdicts.append(verdict)
    return verdicts


def _markdown(verdicts: list[Verdict], seed: int) -> str:
    head = "| row | fault | events | faults | lost | doubled | phantom | recovery s | max lag | result |"
    lines = [
        f"Run on {datetime.now(UTC):%Y-%m-%d}, seed {seed}, {platform.machine()}, Python {platform.python_version()}.",
        "",
        head,
        "|---|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for one in verdicts:
        cells = [one.row, one.title, one.events, one.faults, one.lost, one.doubled, one.phantom]
        cells += [f"{one.recovery_s:.1f}", one.max_lag, "pass" if one.passed else "FAIL"]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    notes = [f"- {one.row}: {note}" for one in verdicts for note in one.notes]
    total = sum(one.seconds for one in verdicts)
    return "\n".join([*lines, "", *notes, "", f"{len(verdicts)} rows in {total / 60:.1f} minutes.", ""])


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(code)
