"""A process that adds, saves and merges without pause is killed with SIGKILL; what the disk then says is exact."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from streams.adapters.identity_store import merge_runs
from streams.adapters.identity_store.store import DiskIdentities
from tests.streams.identity_cases import claim, identity

PER_ENTRY = 400
ROUNDS = 4


def entry_of(offset: int) -> bytes:
    return b"entry %d" % offset


async def entry_at(offset: int) -> bytes:
    return entry_of(offset)


def names_of(offset: int) -> list[bytes]:
    return [identity(number) for number in range(PER_ENTRY * offset, PER_ENTRY * (offset + 1))]


async def work(folder: Path) -> None:
    """Go on from the checkpoint, one entry and checkpoint after the other, and say which was saved."""
    merge_runs.FAN_OUT = 2
    made = DiskIdentities(folder, recent_max=2 * PER_ENTRY, sync=False, lock_wait_seconds=30.0)
    loaded = await made.load(entry_at)
    offset = 0 if loaded is None else loaded.journal_offset + 1
    while True:
        made.add(claim(names_of(offset), first=PER_ENTRY * offset))
        await made.checkpoint(offset, entry_of(offset), b"%d" % offset)
        print(offset, flush=True)
        offset += 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
async def test_killed_at_any_moment_it_is_back_at_a_checkpoint(tmp_path: Path, seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    reached = -1
    for _ in range(ROUNDS):
        command = [sys.executable, "-m", "tests.streams.test_identity_kill", str(tmp_path / "p")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(rng.randrange(1, 25)):
                reached = int(child.stdout.readline())
            # Somewhere within the next checkpoints and merges: nobody waits for what these turns do.
            for _ in range(rng.randrange(100_000)):
                pass
            child.send_signal(signal.SIGKILL)
            # What was said between the last look and the end was saved, too.
            reached = max([reached, *(int(line) for line in child.stdout.read().split())])
        with mock.patch.object(merge_runs, "FAN_OUT", 2):
            made = DiskIdentities(tmp_path / "p", sync=False, lock_wait_seconds=0.0)
            loaded = await made.load(entry_at)
            assert loaded is not None
            assert loaded.journal_offset >= reached
            assert loaded.state == b"%d" % loaded.journal_offset
            reached = loaded.journal_offset
            assert len(made) == PER_ENTRY * (reached + 1)
            names = [name for offset in range(reached + 1) for name in names_of(offset)]
            assert len(made.find_old(names)) == len(names)
            assert (
                made.find_old([name for offset in range(reached + 1, reached + 40) for name in names_of(offset)]) == {}
            )
            await made.close()


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1])))
