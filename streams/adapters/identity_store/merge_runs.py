"""Which runs to merge, and the merging: several sorted files become one, without what was forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from streams.adapters.identity_store.sorted_run import Rows, RunMeta, RunWriter, SortedRun, read_rows

# So many runs of about one size become one of the next: more of them means less writing and more places to look.
FAN_OUT = 4
_SMALLEST = 10_000


class MergeStopped(Exception):  # noqa: N818 - no error: it was asked to
    """The merge was told to stop."""


def choose_merge(runs: Sequence[RunMeta], first_day: int) -> list[RunMeta]:
    """Return which of the runs should become one; none if they are fine as they are.

    Any may be merged with any: an identity that is not forgotten stands in one run only.
    """
    tiers: dict[int, list[RunMeta]] = {}
    for run in runs:
        tiers.setdefault(_tier(run.rows), []).append(run)
    for _, alike in sorted(tiers.items()):
        if len(alike) >= FAN_OUT:
            return alike
    return [run for run in runs if 2 * run.alive(first_day) < run.rows][:1]


def merge_runs(
    runs: Sequence[tuple[Path, RunMeta]],
    into: Path,
    first_day: int,
    *,
    sync: Callable[[int], None],
    stop: Callable[[], bool],
) -> SortedRun | None:
    """Write the rows received on `first_day` or later into one run; None if there are none.

    Leaves nothing behind when it raises: `OSError` (disk), `RunDamagedError`, `MergeStopped`. Memory: a few MB per run.
    """
    writer = RunWriter(into, sum(meta.rows for _, meta in runs))
    try:
        sources = [read_rows(path, meta) for path, meta in runs]
        heads: list[Rows] = [next(source) for source in sources]
        while heads:
            if stop():
                raise MergeStopped
            # Up to the smallest of the last keys every source is known; rows of an equal key may come in any order.
            bound = min(head["key"][-1] for head in heads)
            cuts = [int(np.searchsorted(head["key"], bound, side="right")) for head in heads]
            piece = np.concatenate([head[:cut] for head, cut in zip(heads, cuts, strict=True)])
            piece = piece[piece["day"] >= max(0, first_day)]
            # Stable sorting finds the stretches that are sorted already, and merges them.
            order = np.argsort(np.ascontiguousarray(piece["key"]), kind="stable")
            writer.write(np.take(piece.view(np.uint64).reshape(-1, 4), order, axis=0).reshape(-1).view(piece.dtype))
            left = [
                (source, head[cut:] if cut < len(head) else next(source, None))
                for source, head, cut in zip(sources, heads, cuts, strict=True)
            ]
            sources = [source for source, head in left if head is not None]
            heads = [head for _, head in left if head is not None]
        return writer.finish(sync)
    except BaseException:
        writer.give_up()
        raise


def _tier(rows: int) -> int:
    tier = 0
    while rows >= _SMALLEST * FAN_OUT:
        rows //= FAN_OUT
        tier += 1
    return tier
