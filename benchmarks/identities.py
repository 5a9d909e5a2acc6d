"""The memory of identities on disk: `python -m benchmarks.identities`. Rates, memory, and how soon it is back.

A process fills the stores and is killed with SIGKILL; a second opens what is left and is asked for new identities, and
for old ones spread over all that is remembered (the worst case: what came lately is in memory). A third process adds
as much to empty stores as a worker does that lost its disk and reads the journal.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from streams.adapters.identity_store.store import RECENT_MAX, DiskIdentities
from streams.ports import Claimed

DAY = 20_400
BATCH = 20_000
JOURNAL_RECORD = b"the journal record of the last checkpoint"


def main() -> None:
    """Run the phases, each in its own process, and print a table."""
    options = _options()
    if options.phase:
        asyncio.run(_phase(options))
        return
    home = Path(tempfile.mkdtemp(prefix="identities-", dir=options.folder))
    try:
        figures = {"load_before": os.getloadavg()[0]}
        for phase in ("fill", "ask", "rebuild"):
            figures |= _run(phase, home / ("stores" if phase != "rebuild" else "rebuilt"), options)
        print(json.dumps(figures) if options.json else _table(figures, options))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identities", type=int, default=10_000_000)
    parser.add_argument("--partitions", type=int, default=4, help="source partitions of the worker, a store each")
    parser.add_argument("--recent", type=int, default=RECENT_MAX, help="identities in memory per partition")
    parser.add_argument("--rebuild", type=int, default=2_000_000, help="identities added without being asked for")
    parser.add_argument("--folder", help="where to put the stores; default the temporary folder")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(phase: str, home: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run a phase in a process of its own, which is killed as soon as it has said its figures."""
    numbers = {"identities": options.identities, "partitions": options.partitions, "recent": options.recent}
    numbers["rebuild"] = options.rebuild
    command = [sys.executable, "-m", "benchmarks.identities", "--phase", phase, "--home", str(home)]
    for name, number in numbers.items():
        command += [f"--{name}", str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    figures: dict[str, Any] = json.loads(said)
    return figures


async def _phase(options: argparse.Namespace) -> None:
    gc.disable()
    stores = [
        DiskIdentities(options.home / f"p{number}", recent_max=options.recent) for number in range(options.partitions)
    ]
    figures = await {"fill": _fill, "ask": _ask, "rebuild": _rebuild}[options.phase](stores, options)
    print(json.dumps(figures), flush=True)
    await asyncio.sleep(600)


async def _fill(stores: list[DiskIdentities], options: argparse.Namespace) -> dict[str, Any]:
    await _load(stores)
    figures = await _add(stores, options.identities, ask=True)
    for store in stores:
        await store.checkpoint(options.identities, JOURNAL_RECORD, b"")
    merging = time.perf_counter()
    for store in stores:
        if store._upkeep is not None:
            await store._upkeep
    for store in stores:
        await store.checkpoint(options.identities, JOURNAL_RECORD, b"")
    assert sum(map(len, stores)) == _entries(options) * BATCH
    return {
        **{f"insert_{name}": value for name, value in figures.items()},
        "merging_left_s": time.perf_counter() - merging,
        "disk_mb": sum(file.stat().st_size for file in options.home.rglob("*") if file.is_file()) / 1e6,
        "runs": sum(len(store._runs) for store in stores),
        **{f"insert_{name}": value for name, value in _memory().items()},
    }


async def _ask(stores: list[DiskIdentities], options: argparse.Namespace) -> dict[str, Any]:
    figures: dict[str, Any] = {"ask_start_mb": _memory()["rss_mb"]}
    began = time.perf_counter()
    assert await _load(stores) == len(stores)
    figures["ready_s"] = time.perf_counter() - began
    entries = _entries(options)
    assert sum(map(len, stores)) == entries * BATCH
    figures["index_mb"] = sum(store.memory_bytes for store in stores) / 1e6
    draw = np.random.Generator(np.random.SFC64(7))
    for batch in (BATCH, 500):
        for percent in (0, 5, 99):
            wall, thread, asked, wrong = 0.0, 0.0, 0, 0
            for round_ in range(max(12, 60_000 // batch)):
                partition = round_ % len(stores)
                names, old = _mixed(draw, percent, batch, partition, entries, len(stores), fresh=10**9 + round_)
                began, began_thread = time.perf_counter(), time.thread_time()
                found = stores[partition].find_old(names)
                # The first round of each kind warms caches.
                if round_ >= len(stores):
                    wall += time.perf_counter() - began
                    thread += time.thread_time() - began_thread
                    asked += batch
                wrong += set(found) != old
            assert not wrong, "an identity was missed or invented"
            figures[f"find_{percent}_percent_{batch}_us"] = 1e6 * thread / asked
            figures[f"find_{percent}_percent_{batch}_wall_us"] = 1e6 * wall / asked
    return figures | {f"ask_{name}": value for name, value in _memory().items()}


async def _rebuild(stores: list[DiskIdentities], options: argparse.Namespace) -> dict[str, Any]:
    await _load(stores)
    return {f"rebuild_{name}": value for name, value in (await _add(stores, options.rebuild, ask=False)).items()}


async def _add(stores: list[DiskIdentities], identities: int, *, ask: bool) -> dict[str, float]:
    """Add identities to the stores in turn; returns what that took, without making them up."""
    wall = thread = made_up = 0.0
    began, processor = time.perf_counter(), time.process_time()
    entries = max(1, identities // BATCH)
    for number in range(entries):
        making_thread = time.thread_time()
        raw = _identities(number)
        names: list[bytes] = np.frombuffer(raw, dtype="V16").tolist()
        claimed = Claimed(raw, raw[: 4 * BATCH], bytes(4 * BATCH), number * BATCH, DAY + 35 * number // entries)
        made_up += time.thread_time() - making_thread
        store = stores[number % len(stores)]
        started, started_thread = time.perf_counter(), time.thread_time()
        if ask:
            recent = store.recent
            assert not store.find_old([name for name in names if name not in recent])
        store.add(claimed)
        if store.checkpoint_due():
            await store.checkpoint(number, JOURNAL_RECORD, b"")
        thread += time.thread_time() - started_thread
        wall += time.perf_counter() - started
        await asyncio.sleep(0)
    count = entries * BATCH
    return {
        "per_s": count / wall,
        "thread_us": 1e6 * thread / count,
        "processor_us": 1e6 * (time.process_time() - processor - made_up) / count,
        "elapsed_s": time.perf_counter() - began,
    }


async def _load(stores: list[DiskIdentities]) -> int:
    async def entry_at(offset: int) -> bytes:
        return JOURNAL_RECORD

    return sum([await store.load(entry_at) is not None for store in stores])


def _entries(options: argparse.Namespace) -> int:
    return max(1, options.identities // BATCH)


def _identities(entry: int) -> bytes:
    return np.random.Generator(np.random.SFC64(entry)).bytes(16 * BATCH)


def _mixed(
    draw: np.random.Generator, percent: int, batch: int, partition: int, entries: int, partitions: int, *, fresh: int
) -> tuple[list[bytes], set[int]]:
    """Return a batch with so many percent old identities of a partition, from all over, and where they stand."""
    names: list[bytes] = np.frombuffer(_identities(fresh)[: 16 * batch], dtype="V16").tolist()
    old = draw.permutation(batch)[: batch * percent // 100].tolist()
    mine = range(partition, entries, partitions)
    # A few hundred entries are enough to choose from, for making an entry up again takes time.
    chosen = [mine[number] for number in draw.integers(0, len(mine), size=min(len(old), 100))]
    for turn, entry in enumerate(chosen):
        raw = _identities(entry)
        share = old[turn :: len(chosen)]
        for index, number in zip(share, draw.permutation(BATCH)[: len(share)].tolist(), strict=True):
            names[index] = raw[16 * number : 16 * number + 16]
    return names, set(old)


def _memory() -> dict[str, float]:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        name: int(lines[key].split()[0]) / 1024
        for name, key in (("rss_mb", "VmRSS"), ("peak_mb", "VmHWM"), ("anonymous_mb", "RssAnon"))
    }


def _table(figures: dict[str, Any], options: argparse.Namespace) -> str:
    rows = {
        "inserted per second (asked for, added, checkpoints)": f"{figures['insert_per_s']:,.0f}",
        "  of the worker's own thread": f"{figures['insert_thread_us']:.2f} µs per identity",
        "  processor time, with merging in the background": f"{figures['insert_processor_us']:.2f} µs per identity",
        "  peak memory (anonymous at the end)": f"{figures['insert_peak_mb']:,.0f} MB"
        f" ({figures['insert_anonymous_mb']:,.0f} MB)",
        "  merging left over at the end": f"{figures['merging_left_s']:.1f} s",
        "on disk": f"{figures['disk_mb']:,.0f} MB in {figures['runs']} runs",
        "ready after SIGKILL": f"{figures['ready_s']:.2f} s",
        "filter and indexes": f"{figures['index_mb']:,.0f} MB",
        **{
            f"asked {percent} % old, batches of {batch:,}": f"{figures[f'find_{percent}_percent_{batch}_us']:.2f}"
            f" µs ({figures[f'find_{percent}_percent_{batch}_wall_us']:.2f} by the clock)"
            for batch in (BATCH, 500)
            for percent in (0, 5, 99)
        },
        "  peak memory (anonymous, resident at the end)": f"{figures['ask_peak_mb']:,.0f} MB"
        f" ({figures['ask_anonymous_mb']:,.0f} MB, {figures['ask_rss_mb']:,.0f} MB)",
        "added per second when rebuilding": f"{figures['rebuild_per_s']:,.0f}",
        "load of the machine before": f"{figures['load_before']:.1f}",
    }
    head = f"{options.identities:,} identities in {options.partitions} partitions"
    return "\n".join([head, *(f"{name:<56}{value:>28}" for name, value in rows.items())])


if __name__ == "__main__":
    main()
