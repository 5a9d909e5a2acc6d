"""Every fault of the table once, in small; and defects planted, which must be seen."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.chaos.scenarios import NAMES, ROWS, run_row
from tests.chaos.start import SMOKE_PLAN, create_world
from tests.chaos.world import World

pytestmark = [pytest.mark.chaos, pytest.mark.e2e, pytest.mark.timeout(300)]
SEED = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = create_world(SMOKE_PLAN)
    yield world
    world.close()


@pytest.mark.parametrize("name", NAMES)
async def test_nothing_is_lost_or_doubled(world: World, name: str) -> None:
    verdict = await run_row(world, name, seed=SEED, full=False)
    print(f"\n{verdict.line()}")
    assert verdict.passed, f"{ROWS[name][0]} (CHAOS_SEED={SEED})\n{verdict.line()}"


# A defect, the row that must see it, and what it must see.
DEFECTS = {
    "no-dedupe": ("F19", lambda verdict: verdict.doubled),
    "early-commit": ("F3", lambda verdict: verdict.lost),
}


# After all others: what a planted defect does to the world's stores is there to stay.
@pytest.mark.parametrize("defect", DEFECTS)
async def test_a_planted_defect_is_seen(world: World, defect: str) -> None:
    row, sees = DEFECTS[defect]
    world.fleet.discard()
    world.fleet.plan = {**SMOKE_PLAN, "plant": defect}
    try:
        verdict = await run_row(world, row, seed=SEED + 1, full=False)
    finally:
        world.fleet.discard()
        world.fleet.plan = SMOKE_PLAN
    print(f"\n{defect}: {verdict.line()}")
    assert not verdict.passed
    assert sees(verdict) > 0, verdict.line()
