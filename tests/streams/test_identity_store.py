"""The store on disk when things go wrong: damage, a full disk, two owners, cancelled and overtaken checkpoints."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import BrokenInvariantError
from streams.adapters.identity_store import merge_runs, sorted_run, store
from streams.adapters.identity_store.key_filter import KeyFilter
from streams.adapters.identity_store.merge_runs import choose_merge
from streams.adapters.identity_store.sorted_run import RunMeta
from streams.adapters.identity_store.store import DiskIdentities, IdentityDiskError
from streams.ports import Loaded
from tests.streams.identity_cases import DAY, claim, identity, journal, nothing_at

ENTRY = b"the entry"


def make(folder: Path, **changes: Any) -> DiskIdentities:
    settings: dict[str, Any] = {"recent_max": 200, "sync": False, "lock_wait_seconds": 0.0, **changes}
    return DiskIdentities(folder, **settings)


async def opened(folder: Path, **changes: Any) -> DiskIdentities:
    made = make(folder, **changes)
    await made.load(journal({9: ENTRY}))
    return made


def numbered(start: int, end: int) -> list[bytes]:
    return [identity(number) for number in range(start, end)]


def count_known(made: DiskIdentities, names: list[bytes]) -> int:
    others = [name for name in names if name not in made.recent]
    return len(names) - len(others) + len(made.find_old(others))


async def settle(made: DiskIdentities) -> None:
    if made._upkeep is not None:
        await made._upkeep


async def saved(folder: Path) -> None:
    """Leave a store of 1,000 identities in three runs, saved at offset 9."""
    made = await opened(folder)
    for start, end in ((0, 300), (300, 600), (600, 1_000)):
        made.add(claim(numbered(start, end), first=start))
        await made.checkpoint(9, ENTRY, b"state")
    await made.close()


async def test_what_was_saved_is_back(tmp_path: Path) -> None:
    await saved(tmp_path / "p")
    again = make(tmp_path / "p")
    assert await again.load(journal({9: ENTRY})) == Loaded(9, b"state")
    assert (len(again), count_known(again, numbered(0, 1_000)), again.recent) == (1_000, 1_000, {})
    assert again.find_old(numbered(1_000, 5_000)) == {}
    await again.close()


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 32)


def _grow(file: Path) -> None:
    file.write_bytes(file.read_bytes() + bytes(32))


def _flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


def _zero(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def _empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _grow, _flip, _zero, _empty, Path.unlink])
@pytest.mark.parametrize("which", ["manifest", "00000002.run"])
async def test_a_damaged_disk_is_not_used_and_then_works(
    tmp_path: Path, damage: Callable[[Path], None], which: str
) -> None:
    await saved(tmp_path / "p")
    damage(tmp_path / "p" / which)
    again = make(tmp_path / "p")
    assert await again.load(journal({9: ENTRY})) is None
    assert len(again) == 0
    assert {file.name for file in (tmp_path / "p").iterdir()} == {"lock"}
    again.add(claim(numbered(0, 1_000)))
    await again.checkpoint(9, ENTRY, b"rebuilt")
    await again.close()
    third = make(tmp_path / "p")
    assert await third.load(journal({9: ENTRY})) == Loaded(9, b"rebuilt")
    assert count_known(third, numbered(0, 2_000)) == 1_000
    await third.close()


@pytest.mark.parametrize("entries", [{}, {9: b"of another cluster"}, {8: ENTRY}])
async def test_a_disk_of_another_journal_is_not_used(tmp_path: Path, entries: dict[int, bytes]) -> None:
    await saved(tmp_path / "p")
    again = make(tmp_path / "p")
    assert await again.load(journal(entries)) is None
    assert count_known(again, numbered(0, 1_000)) == 0
    await again.close()


async def test_a_manifest_of_another_format_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FORMAT", 99)
    await saved(tmp_path / "p")
    again = make(tmp_path / "p")
    assert await again.load(journal({9: ENTRY})) is None
    await again.close()


async def test_files_that_a_killed_owner_left_are_removed(tmp_path: Path) -> None:
    await saved(tmp_path / "p")
    for name in ("00000077.run", "manifest.new"):
        (tmp_path / "p" / name).write_bytes(b"half")
    again = await opened(tmp_path / "p")
    assert {file.name for file in (tmp_path / "p").iterdir()} == {
        "lock",
        "manifest",
        "00000001.run",
        "00000002.run",
        "00000003.run",
    }
    again.add(claim(numbered(1_000, 1_300)))
    await again.checkpoint(9, ENTRY, b"")
    assert count_known(again, numbered(0, 1_300)) == 1_300
    await again.close()


async def test_the_second_owner_of_a_folder_gets_a_private_one_that_goes_away(tmp_path: Path) -> None:
    await saved(tmp_path / "p")
    first = await opened(tmp_path / "p")
    second = make(tmp_path / "p")
    assert await second.load(journal({9: ENTRY})) is None
    for made, start in ((first, 1_000), (second, 0)):
        made.add(claim(numbered(start, start + 300)))
        await made.checkpoint(9, ENTRY, b"")
    assert count_known(first, numbered(0, 2_000)) == 1_300
    assert count_known(second, numbered(0, 2_000)) == 300
    await second.close()
    assert [folder.name for folder in tmp_path.iterdir()] == ["p"]
    await first.close()
    third = await opened(tmp_path / "p")
    assert count_known(third, numbered(0, 2_000)) == 1_300
    await third.close()


async def test_an_owner_that_leaves_within_the_wait_hands_over(tmp_path: Path) -> None:
    await saved(tmp_path / "p")
    first = await opened(tmp_path / "p")
    second = make(tmp_path / "p", lock_wait_seconds=60.0)
    loading = asyncio.create_task(second.load(journal({9: ENTRY})))
    await asyncio.sleep(0)
    await first.close()
    assert await loading == Loaded(9, b"state")
    await second.close()


async def test_the_private_folder_of_a_killed_owner_is_removed(tmp_path: Path) -> None:
    first = await opened(tmp_path / "p")
    code = (
        "import asyncio, os, sys; from pathlib import Path;"
        "from tests.streams.test_identity_store import opened;"
        "made = asyncio.run(opened(Path(sys.argv[1]))); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "p")], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    await first.close()
    second = await opened(tmp_path / "p")
    assert [folder.name for folder in tmp_path.iterdir()] == ["p"]
    await second.close()


class FullDisk:
    """Refuses every write to a run or a manifest while `full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
        self.full = False
        target = store.RunWriter if where == "run" else store
        name = "write" if where == "run" else "write_manifest"
        original = getattr(target, name)

        def write(*arguments: Any) -> Any:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*arguments)

        monkeypatch.setattr(target, name, write)


@pytest.mark.parametrize("where", ["run", "manifest"])
async def test_a_full_disk_is_waited_for_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    await saved(tmp_path / "p")
    disk = FullDisk(monkeypatch, where)
    made = await opened(tmp_path / "p", unsaved_max=1_000)
    disk.full = True
    for start in range(1_000, 1_800, 200):
        made.add(claim(numbered(start, start + 200), first=start))
        assert made.checkpoint_due()
        await made.checkpoint(9, ENTRY, b"not written")
        assert not made.checkpoint_due()
        assert count_known(made, numbered(0, 2_000)) == start + 200
    shutil.copytree(tmp_path / "p", tmp_path / "killed")
    killed = make(tmp_path / "killed")
    assert await killed.load(journal({9: ENTRY})) == Loaded(9, b"state")
    assert count_known(killed, numbered(0, 2_000)) == 1_000
    await killed.close()
    disk.full = False
    await made.checkpoint(9, ENTRY, b"written")
    await made.close()
    again = make(tmp_path / "p")
    assert await again.load(journal({9: ENTRY})) == Loaded(9, b"written")
    assert count_known(again, numbered(0, 2_000)) == 1_800
    await again.close()


async def test_a_disk_that_stays_full_ends_the_work_before_memory_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch, "run")
    made = await opened(tmp_path / "p", unsaved_max=500)
    disk.full = True
    made.add(claim(numbered(0, 400)))
    await made.checkpoint(9, ENTRY, b"")
    made.add(claim(numbered(400, 800)))
    with pytest.raises(IdentityDiskError, match="800 identities"):
        await made.checkpoint(9, ENTRY, b"")
    await made.close()


async def test_a_real_full_disk_is_waited_for(tmp_path: Path) -> None:
    # A file system of one megabyte, where the one who runs the tests may mount one; the kernel then says no itself.
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True)
    try:
        made = await opened(small / "p", recent_max=2_000)
        if mounted.returncode == 0:
            (small / "ballast").write_bytes(bytes(1_000_000))
            made.add(claim(numbered(0, 20_000)))
            await made.checkpoint(9, ENTRY, b"")
            assert count_known(made, numbered(0, 21_000)) == 20_000
            assert not (small / "p" / "manifest").exists()
            (small / "ballast").unlink()
        else:
            made.add(claim(numbered(0, 20_000)))
        await made.checkpoint(9, ENTRY, b"there is room")
        await made.close()
        again = make(small / "p")
        assert await again.load(journal({9: ENTRY})) == Loaded(9, b"there is room")
        assert count_known(again, numbered(0, 21_000)) == 20_000
        await again.close()
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(small)], check=True)


async def test_a_merge_that_finds_no_room_leaves_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_runs, "FAN_OUT", 3)
    made = await opened(tmp_path / "p")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store, "merge_runs", refuse)
        for start in range(0, 900, 300):
            made.add(claim(numbered(start, start + 300), first=start))
            await made.checkpoint(9, ENTRY, b"")
        await settle(made)
    assert len(made._runs) == 3
    assert count_known(made, numbered(0, 2_000)) == 900
    await made.checkpoint(9, ENTRY, b"")
    await settle(made)
    assert len(made._runs) == 1
    assert count_known(made, numbered(0, 2_000)) == 900
    await made.close()


async def test_merged_files_go_when_no_manifest_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_runs, "FAN_OUT", 3)
    made = await opened(tmp_path / "p")
    for start in range(0, 900, 300):
        made.add(claim(numbered(start, start + 300), first=start))
        await made.checkpoint(9, ENTRY, b"before")
    await settle(made)
    # The merged run is used, but the disk still is the checkpoint with three: a kill now loses the merge, nothing else.
    assert len(made._runs) == 1
    shutil.copytree(tmp_path / "p", tmp_path / "killed")
    killed = await opened(tmp_path / "killed")
    assert (len(killed._runs), count_known(killed, numbered(0, 2_000))) == (3, 900)
    await killed.close()
    await made.checkpoint(9, ENTRY, b"after")
    assert len(list((tmp_path / "p").glob("*.run"))) == 1
    await made.close()


async def test_a_run_damaged_while_open_stops_the_work_and_is_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await saved(tmp_path / "p")
    made = await opened(tmp_path / "p")
    _flip(tmp_path / "p" / "00000002.run")
    monkeypatch.setattr(merge_runs, "FAN_OUT", 3)
    await made.checkpoint(9, ENTRY, b"")
    await settle(made)
    with pytest.raises(BrokenInvariantError, match="checksum"):
        await made.checkpoint(9, ENTRY, b"")
    await made.close()
    again = make(tmp_path / "p")
    assert await again.load(journal({9: ENTRY})) is None
    await again.close()


async def test_forgotten_days_leave_the_disk(tmp_path: Path) -> None:
    made = await opened(tmp_path / "p")
    for day in range(6):
        made.add(claim(numbered(300 * day, 300 * day + 300), first=300 * day, day=DAY + day))
        await made.checkpoint(9, ENTRY, b"")
    made.forget_before(DAY + 4)
    await made.checkpoint(9, ENTRY, b"")
    await settle(made)
    await made.checkpoint(9, ENTRY, b"")
    assert sum(file.stat().st_size for file in (tmp_path / "p").glob("*.run")) == 600 * 32
    assert count_known(made, numbered(0, 1_800)) == 600
    await made.close()


async def test_forgetting_what_is_saved_and_still_in_memory_takes_nothing_else_away(tmp_path: Path) -> None:
    made = await opened(tmp_path / "p", recent_max=400)
    for day, (start, end) in enumerate(((0, 100), (100, 200))):
        made.add(claim(numbered(start, end), first=start, day=DAY + day))
        await made.checkpoint(9, ENTRY, b"")
    assert len(made.recent) == 200
    made.forget_before(DAY + 1)
    assert list(made.recent) == numbered(100, 200)
    made.add(claim(numbered(0, 100), first=200, day=DAY + 1))
    made.add(claim(numbered(200, 300), first=300, day=DAY + 1))
    task = asyncio.create_task(made.checkpoint(9, ENTRY, b""))
    made.add(claim(numbered(300, 400), first=400, day=DAY + 1))
    await task
    assert count_known(made, numbered(0, 500)) == 400
    assert len(made) == 400
    await made.close()


async def test_a_cancelled_checkpoint_harms_nothing(tmp_path: Path) -> None:
    made = await opened(tmp_path / "p")
    made.add(claim(numbered(0, 300)))
    task = asyncio.create_task(made.checkpoint(9, ENTRY, b"cancelled"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert count_known(made, numbered(0, 600)) == 300
    made.add(claim(numbered(300, 600), first=300))
    await made.checkpoint(9, ENTRY, b"next")
    await made.close()
    again = make(tmp_path / "p")
    assert await again.load(journal({9: ENTRY})) == Loaded(9, b"next")
    assert (len(again), count_known(again, numbered(0, 900))) == (600, 600)
    await again.close()


async def test_a_waiting_checkpoint_holds_only_what_came_before_it_was_asked_for(tmp_path: Path) -> None:
    made = await opened(tmp_path / "p")
    made.add(claim(numbered(0, 300)))
    first = asyncio.create_task(made.checkpoint(7, b"seven", b""))
    await asyncio.sleep(0)
    made.add(claim(numbered(300, 600), first=300))
    second = asyncio.create_task(made.checkpoint(9, ENTRY, b"second"))
    await asyncio.sleep(0)
    made.add(claim(numbered(600, 900), first=600))
    await first
    await second
    await made.close()
    again = make(tmp_path / "p")
    assert await again.load(journal({9: ENTRY})) == Loaded(9, b"second")
    assert count_known(again, numbered(0, 900)) == 600
    await again.close()


async def test_a_checkpoint_holds_what_was_there_when_it_was_asked_for_not_when_its_task_begins(tmp_path: Path) -> None:
    made = await opened(tmp_path / "p")
    made.add(claim(numbered(0, 300)))
    task = asyncio.create_task(made.checkpoint(9, ENTRY, b""))
    made.add(claim(numbered(300, 600), first=300))
    await task
    await made.close()
    again = make(tmp_path / "p")
    assert await again.load(journal({9: ENTRY})) is not None
    assert count_known(again, numbered(0, 900)) == 300
    await again.close()


async def test_checkpoints_that_go_back_are_our_own_mistake(tmp_path: Path) -> None:
    await saved(tmp_path / "p")
    made = await opened(tmp_path / "p")
    with pytest.raises(BrokenInvariantError, match="ascend"):
        await made.checkpoint(8, ENTRY, b"")
    await made.close()


async def test_memory_holds_the_newest_and_no_more_than_asked(tmp_path: Path) -> None:
    made = await opened(tmp_path / "p", recent_max=200)
    for start in range(0, 2_000, 50):
        made.add(claim(numbered(start, start + 50), first=start))
        if made.checkpoint_due():
            await made.checkpoint(9, ENTRY, b"")
        assert len(made.recent) <= 200
        assert identity(start + 49) in made.recent
    assert count_known(made, numbered(0, 3_000)) == 2_000
    await made.close()


def test_the_filter_never_says_no_to_what_it_holds_and_mostly_to_what_it_does_not() -> None:
    draw = np.random.Generator(np.random.SFC64(3))
    held = np.sort(draw.integers(0, 2**64, size=200_000, dtype=np.uint64))
    other = draw.integers(0, 2**64, size=200_000, dtype=np.uint64)
    made = KeyFilter(200_000)
    for part in np.split(held, 20):
        made.add(part)
    assert len(made.may_hold(held)) == len(held)
    assert len(made.may_hold(other)) < 0.01 * len(other)


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        ([], []),
        ([100] * 3, []),
        ([100] * 4, [0, 1, 2, 3]),
        ([50_000, *[100] * 4], [1, 2, 3, 4]),
        ([50_000] * 3 + [100] * 3, []),
        ([50_000] * 4 + [100] * 3, [0, 1, 2, 3]),
        ([50_000] * 4 + [100] * 4, [4, 5, 6, 7]),
        ([200_000, 50_000, 200_000, 50_000, 100, 50_000, 50_000], [1, 3, 5, 6]),
    ],
)
def test_runs_of_about_one_size_are_merged(rows: list[int], chosen: list[int]) -> None:
    runs = [RunMeta(f"{number}", count, 0, {DAY: count}) for number, count in enumerate(rows)]
    assert choose_merge(runs, DAY) == [runs[number] for number in chosen]


def test_a_run_that_is_mostly_forgotten_is_written_again() -> None:
    runs = [RunMeta("a", 100, 0, {DAY: 50, DAY + 1: 50}), RunMeta("b", 100, 0, {DAY: 51, DAY + 1: 49})]
    assert choose_merge(runs, DAY) == []
    assert choose_merge(runs, DAY + 1) == runs[1:]


@pytest.mark.parametrize("at_once", [1, 2, 3, 64])
def test_merging_keeps_every_row_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(sorted_run, "ROWS_AT_ONCE", at_once)
    draw = np.random.Generator(np.random.SFC64(at_once))
    runs, expected = [], []
    for number, count in enumerate((1, 17, 64, 40)):
        rows = np.zeros(count, dtype=sorted_run.ROW)
        # Few keys, so that equal ones stand at the borders of what is read at once.
        rows["key"] = np.sort(draw.integers(0, 12, size=count, dtype=np.uint64))
        rows["offset"] = 1_000 * number + np.arange(count)
        rows["day"] = draw.integers(5, 8, size=count)
        path = tmp_path / f"{number}"
        writer = sorted_run.RunWriter(path, count)
        writer.write(rows)
        run = writer.finish(lambda _: None)
        assert run is not None
        runs.append((path, run.meta))
        expected += rows[rows["day"] >= 6].tolist()
    merged = merge_runs.merge_runs(runs, tmp_path / "m", 6, sync=lambda _: None, stop=lambda: False)
    assert merged is not None
    rows = np.concatenate(list(sorted_run.read_rows(tmp_path / "m", merged.meta)))
    assert sorted(rows.tolist()) == sorted(expected)
    assert (np.diff(rows["key"].astype(np.int64)) >= 0).all()


async def test_a_missing_journal_means_an_empty_start(tmp_path: Path) -> None:
    made = make(tmp_path / "new" / "p")
    assert await made.load(nothing_at) is None
    assert len(made) == 0
    await made.close()
