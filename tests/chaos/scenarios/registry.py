"""Which rows there are, in the order in which they run, and how one is run."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Awaitable, Callable

from tests.chaos.row import Row, Verdict
from tests.chaos.world import World

Scenario = Callable[[Row], Awaitable[None]]
ROWS: dict[str, tuple[str, Scenario]] = {}


def row(name: str, title: str) -> Callable[[Scenario], Scenario]:
    """Register a scenario as a row of the table."""

    def register(scenario: Scenario) -> Scenario:
        assert name not in ROWS
        ROWS[name] = (title, scenario)
        return scenario

    return register


async def run_row(world: World, name: str, *, seed: int, full: bool) -> Verdict:
    """Run one row and return what came of it; a scenario that breaks off is a failed one."""
    title, scenario = ROWS[name]
    verdict = Verdict(name, title, seed)
    began = time.monotonic()
    row = Row(world, verdict, full=full)
    try:
        await row.begin()
        await scenario(row)
    except Exception:
        verdict.wrong.append(traceback.format_exc())
    finally:
        with contextlib.suppress(Exception):
            await row.end()
        verdict.seconds = time.monotonic() - began
    return verdict
