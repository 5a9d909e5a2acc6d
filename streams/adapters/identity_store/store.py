"""A source partition's identities on disk: `DiskIdentities`, the real `streams.ports.Identities`.

New identities are in memory (`recent`, and packed as they came). A checkpoint writes what came since the last one as a
sorted run and then a manifest; runs are merged in the background; a filter in front answers for nearly all identities
that are new. Whatever is wrong with the disk when it is opened makes an empty memory, and the journal fills it again.
Owns how these parts meet: who is asked first, what is in force when, which thread does what.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import structlog

from core.errors import BrokenInvariantError, UnavailableError, must_hold
from core.usage_event import IDENTITY_BYTES
from streams.adapters.identity_store.folder import Folder, take_folder
from streams.adapters.identity_store.key_filter import KeyFilter, Keys
from streams.adapters.identity_store.manifest import (
    FORMAT,
    NAME,
    Manifest,
    ManifestError,
    digest_of,
    read_manifest,
    write_manifest,
)
from streams.adapters.identity_store.merge_runs import MergeStopped, choose_merge, merge_runs
from streams.adapters.identity_store.packed_entries import (
    count_of,
    digests_of,
    halves_of,
    identities_of,
    place_in,
    sorted_rows,
)
from streams.adapters.identity_store.sorted_run import (
    RunDamagedError,
    RunMeta,
    RunWriter,
    SortedRun,
    open_run,
    read_rows,
)
from streams.ports import Claimed, Loaded, Place

log = structlog.get_logger()

RECENT_MAX = 200_000
# What may be in memory only, while the disk refuses checkpoints.
UNSAVED_MAX = 2_000_000
# Entries of few identities each must not pile up either: some objects are kept for each.
_ENTRIES_MAX = 20_000
_FILTER_SMALLEST = 1 << 18
# Rows looked at before their pages are given back: the kernel maps 16 pages for one, so this is 64 MB a run at worst.
_LOOKED_AT_MAX = 1_024
_RELEASE_ABOVE = 256
# So few are looked up faster one by one than by numpy, whose calls cost a microsecond each whatever they do.
_ONE_BY_ONE_MAX = 64

# Shared by all stores of a process, so that many partitions neither merge all at once nor keep many threads' memory.
_saving = ThreadPoolExecutor(max_workers=2, thread_name_prefix="identities-save")
_merging = ThreadPoolExecutor(max_workers=1, thread_name_prefix="identities-merge")

_T = TypeVar("_T")


class IdentityDiskError(UnavailableError):
    """The disk takes no checkpoints, and memory has no room for more identities."""

    code = "identity_disk_unavailable"


class DiskIdentities:
    """Exact memory of one source partition's identities in `folder`; `load` comes first.

    `recent_max` bounds `recent` (about 170 bytes each), `unsaved_max` what is kept in memory while the disk is full.
    With `sync` a checkpoint survives the machine's sudden end, without only the process's; torn files are noticed and
    rebuilt from the journal either way. Another owner of the folder is waited for `lock_wait_seconds`, then a private
    folder is used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        recent_max: int = RECENT_MAX,
        unsaved_max: int = UNSAVED_MAX,
        sync: bool = True,
        lock_wait_seconds: float = 5.0,
    ) -> None:
        self.recent: dict[bytes, int] = {}
        self._path = folder
        self._recent_kept = recent_max // 2
        self._unsaved_max = unsaved_max
        self._sync: Callable[[int], None] = os.fsync if sync else _leave_to_the_system
        self._lock_wait_seconds = lock_wait_seconds
        self._folder: Folder | None = None
        self._turn = asyncio.Lock()
        # What `recent` is made of, numbered, oldest first: on disk already, and in memory only.
        self._saved: deque[tuple[int, Claimed]] = deque()
        self._unsaved: deque[tuple[int, Claimed]] = deque()
        self._unsaved_count = 0
        self._entries_added = 0
        self._journal_offset = -1
        self._due_at = self._recent_kept
        self._runs: list[SortedRun] = []
        # Files that no run is in any more, but the manifest on disk may still name.
        self._discarded: list[Path] = []
        self._filter = KeyFilter(_FILTER_SMALLEST)
        # Keys of checkpoints since a new filter was begun, which it must have too.
        self._keys_since: list[Keys] | None = None
        self._looked_at = 0
        self._first_day = 0
        self._next_number = 1
        self._upkeep: asyncio.Task[None] | None = None
        self._upkeep_work: Future[Any] | None = None
        self._writing: asyncio.Future[SortedRun | None] | None = None
        self._stopping = False
        self._broken: str | None = None

    def __len__(self) -> int:
        """Return how many identities are remembered."""
        return self._unsaved_count + sum(run.meta.alive(self._first_day) for run in self._runs)

    @property
    def memory_bytes(self) -> int:
        """Memory of filter and indexes, without `recent`."""
        return self._filter.size_bytes + sum(run.index_bytes for run in self._runs)

    def add(self, claimed: Claimed, digests: Mapping[bytes, int] | None = None) -> None:
        """Remember identities; none of them is known yet."""
        count = len(claimed.identities) // IDENTITY_BYTES
        must_hold(
            len(claimed.identities) == IDENTITY_BYTES * count
            and len(claimed.digests) == 4 * count
            and len(claimed.places) == 4 * count,
            "identities, digests and places of an entry must be of one length",
        )
        before = len(self.recent)
        if digests is None:
            self.recent.update(zip(identities_of(claimed), digests_of(claimed), strict=True))
        else:
            self.recent.update(digests)
        must_hold(len(self.recent) == before + count, "an identity was accepted twice")
        if count:
            self._entries_added += 1
            self._unsaved.append((self._entries_added, claimed))
            self._unsaved_count += count

    def find_old(self, identities: Sequence[bytes]) -> dict[int, int]:
        """Return {index: digest} of those that are remembered but no longer in `recent`."""
        if not self._runs or not identities:
            return {}
        keys, rests = halves_of(b"".join(identities))
        passed = self._filter.may_hold(keys)
        if not len(passed):
            return {}
        # Largest first: an old identity is most likely there.
        runs = sorted(self._runs, key=lambda run: run.meta.rows, reverse=True)
        if len(passed) <= _ONE_BY_ONE_MAX:
            found = self._find_few(runs, identities, passed.tolist())
        else:
            found = self._find_many(runs, keys, rests, passed)
        recent = self.recent
        return {index: digest for index, digest in found.items() if identities[index] not in recent}

    def _find_few(self, runs: list[SortedRun], identities: Sequence[bytes], asked: list[int]) -> dict[int, int]:
        found = {}
        for index in asked:
            for run in runs:
                row = run.find_one(identities[index], self._first_day)
                if row >= 0:
                    found[index] = run.digest(row)
                    break
        self._give_back_pages(len(asked) * len(runs))
        return found

    def _find_many(
        self, runs: list[SortedRun], keys: Keys, rests: Keys, passed: npt.NDArray[np.intp]
    ) -> dict[int, int]:
        found: dict[int, int] = {}
        # By key, so that neighbours are looked at together.
        passed = passed[np.argsort(keys.take(passed))]
        for start in range(0, len(passed), _LOOKED_AT_MAX):
            asked = passed[start : start + _LOOKED_AT_MAX]
            looked_at = len(asked)
            for run in runs:
                rows = run.find(keys.take(asked), rests.take(asked), self._first_day)
                hits = rows >= 0
                if hits.any():
                    found.update(zip(asked[hits].tolist(), run.digests(rows[hits]), strict=True))
                    asked = asked[~hits]
                if not len(asked):
                    break
            self._give_back_pages(looked_at * len(runs))
        return found

    def place_of(self, identity: bytes) -> Place | None:
        """Return where an identity's event stands, None if it is not remembered."""
        if identity in self.recent:
            for _, claimed in self._unsaved:
                place = place_in(claimed, identity)
                if place is not None:
                    return place
        for run in self._runs:
            row = run.find_one(identity, self._first_day)
            if row >= 0:
                offset, index_plus_one = run.place(row)
                return Place(offset, index_plus_one - 1)
        return None

    def forget_before(self, day: int) -> None:
        """Forget identities received before that day."""
        if day <= self._first_day:
            return
        self._first_day = day
        for _, claimed in (*self._saved, *self._unsaved):
            if claimed.day < day:
                _take_out(self.recent, identities_of(claimed))
        # An identity that comes again belongs to its new entry only: the old one must not take it away once more.
        self._saved = deque(item for item in self._saved if item[1].day >= day)
        self._unsaved = deque(item for item in self._unsaved if item[1].day >= day)
        self._unsaved_count = sum(count_of(claimed) for _, claimed in self._unsaved)
        self._replace(self._runs, [run for run in self._runs if run.meta.alive(day)])

    def checkpoint_due(self) -> bool:
        """Say whether enough is only in memory that a checkpoint is worth its cost."""
        return self._unsaved_count >= self._due_at or len(self._unsaved) >= _ENTRIES_MAX

    def checkpoint(self, journal_offset: int, entry: bytes, state: bytes) -> Coroutine[Any, Any, None]:
        """Make everything up to `journal_offset` durable, together with the caller's `state`.

        What was added when this is called is in it, no matter when the coroutine it returns begins to run.
        A disk that refuses is logged, and the next checkpoint tries again. Raises `IdentityDiskError` when too much
        is in memory only, `BrokenInvariantError` when a file was damaged since it was opened (a new start rebuilds).
        """
        return self._save(self._entries_added, journal_offset, entry, state)

    async def _save(self, covered: int, journal_offset: int, entry: bytes, state: bytes) -> None:
        async with self._turn:
            folder = self._opened()
            if self._writing is not None:
                # One whose caller was cancelled; a manifest must not be overtaken by an older one.
                await asyncio.wait([self._writing])
            must_hold(journal_offset >= self._journal_offset, "checkpoints must ascend")
            entries = [claimed for number, claimed in self._unsaved if number <= covered]
            path = self._new_file()
            discarded, self._discarded = self._discarded, []
            manifest = Manifest(
                FORMAT,
                journal_offset,
                digest_of(entry),
                self._first_day,
                self._next_number,
                [run.meta for run in self._runs],
                state,
            )
            try:
                self._writing = _in_thread(self._write, folder.path, path, entries, manifest)
                run = await asyncio.shield(self._writing)
            except OSError as error:
                self._discarded += discarded
                self._refused(error)
                return
            self._journal_offset = journal_offset
            self._install(covered, run)
            _remove(discarded)
        self._keep_up()

    async def load(self, entry_at: Callable[[int], Awaitable[bytes | None]]) -> Loaded | None:
        """Open the disk and return where to go on; None if there is nothing usable, and then the memory is empty."""
        must_hold(self._folder is None, "identities are loaded once")
        folder = self._folder = await take_folder(self._path, wait_seconds=self._lock_wait_seconds)
        if folder.private:
            log.warning("identities.folder_in_use", folder=str(self._path), private=str(folder.path))
            return None
        try:
            manifest = await _in_thread(read_manifest, folder.path)
            if manifest is not None:
                entry = await entry_at(manifest.journal_offset)
                if entry is None or digest_of(entry) != manifest.entry_digest:
                    raise ManifestError(f"the journal has no such entry at {manifest.journal_offset}")
                await _in_thread(self._open_runs, folder.path, manifest)
        except (ManifestError, RunDamagedError, OSError) as error:
            log.warning("identities.disk_not_used", folder=str(folder.path), reason=str(error))
            manifest = None
        if manifest is None:
            self._runs, self._filter = [], KeyFilter(_FILTER_SMALLEST)
            folder.clear()
            return None
        folder.clear(keep=frozenset({NAME, *(run.name for run in manifest.runs)}))
        self._first_day, self._next_number = manifest.first_day, manifest.next_number
        self._journal_offset = manifest.journal_offset
        return Loaded(manifest.journal_offset, manifest.state)

    async def close(self) -> None:
        """Give the disk up for the next owner; does not checkpoint."""
        self._stopping = True
        async with self._turn:
            if self._upkeep is not None:
                # What has not begun never will; what has is told to stop, and waited for: the next owner must be alone.
                if self._upkeep_work is not None:
                    self._upkeep_work.cancel()
                await self._upkeep
            if self._writing is not None:
                # One whose caller was cancelled may still be on its way.
                await asyncio.wait([self._writing])
            self._runs = []
            if self._folder is not None:
                self._folder.give_up()

    def _opened(self) -> Folder:
        must_hold(self._folder is not None and not self._stopping, "identities are used between load and close")
        if self._broken is not None:
            raise BrokenInvariantError(f"identities in {self._path.name}: {self._broken}")
        assert self._folder is not None
        return self._folder

    def _new_file(self) -> Path:
        path = self._opened().path / f"{self._next_number:08}.run"
        self._next_number += 1
        return path

    def _write(self, folder: Path, path: Path, entries: list[Claimed], manifest: Manifest) -> SortedRun | None:
        """Write entries as a run and the manifest that names it; leaves nothing of the run if that fails."""
        run = None
        if entries:
            rows = sorted_rows(entries)
            writer = RunWriter(path, len(rows))
            try:
                writer.write(rows)
                run = writer.finish(self._sync)
            except BaseException:
                writer.give_up()
                raise
        if run is not None:
            manifest = msgspec.structs.replace(manifest, runs=[*manifest.runs, run.meta])
        try:
            write_manifest(folder, manifest, self._sync)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return run

    def _install(self, covered: int, run: SortedRun | None) -> None:
        """Look new rows up in their run from now on, and let the oldest of `recent` go."""
        while self._unsaved and self._unsaved[0][0] <= covered:
            item = self._unsaved.popleft()
            self._unsaved_count -= count_of(item[1])
            self._saved.append(item)
        self._due_at = self._recent_kept
        if run is not None:
            self._runs.append(run)
            keys = run.keys()
            self._filter.add(keys)
            if self._keys_since is not None:
                self._keys_since.append(keys)
        dropped = 0
        while self._saved and (len(self.recent) - dropped > self._recent_kept or len(self._saved) > _ENTRIES_MAX):
            dropped += count_of(self._saved.popleft()[1])
        # A dict keeps the order in which it was filled, so these are theirs; as its own keys they need no hashing.
        _take_out(self.recent, list(itertools.islice(self.recent, dropped)))
        must_hold(
            len(self.recent) == self._unsaved_count + sum(count_of(claimed) for _, claimed in self._saved),
            "recent identities are those of the entries listed as such",
        )

    def _refused(self, error: OSError) -> None:
        """Go on in memory after the disk refused a checkpoint, up to a bound."""
        log.error("identities.disk_refused", folder=str(self._path), reason=str(error), unsaved=self._unsaved_count)
        if self._unsaved_count > self._unsaved_max:
            raise IdentityDiskError(f"{self._unsaved_count} identities are in memory only: {error}") from error
        self._due_at = self._unsaved_count + self._recent_kept

    def _replace(self, old: Sequence[SortedRun], new: list[SortedRun]) -> None:
        """Put runs in the place of `old`; files no run is in are removed when no manifest names them any more."""
        self._discarded += [run.path for run in old if run in self._runs and run not in new]
        self._runs = [*(run for run in self._runs if run not in old), *new]

    def _keep_up(self) -> None:
        """Merge and renew in the background until there is nothing to do."""
        if self._upkeep is None or self._upkeep.done():
            self._upkeep = asyncio.create_task(self._keep_up_to_date(), name=f"identities-{self._path.name}")

    async def _keep_up_to_date(self) -> None:
        try:
            while not self._stopping:
                if self._filter.added > self._filter.capacity:
                    await self._renew_filter()
                    continue
                chosen = choose_merge([run.meta for run in self._runs], self._first_day)
                if not chosen:
                    return
                await self._merge([run for run in self._runs if run.meta in chosen])
        except MergeStopped:
            return
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        except OSError as error:
            log.error("identities.merge_refused", folder=str(self._path), reason=str(error))
        except Exception as error:
            # Raised by the next checkpoint, for nobody waits for this task.
            log.exception("identities.upkeep_failed", folder=str(self._path))
            self._broken = str(error)

    async def _merge(self, runs: list[SortedRun]) -> None:
        merged = await self._in_background(
            merge_runs,
            [(run.path, run.meta) for run in runs],
            self._new_file(),
            self._first_day,
            sync=self._sync,
            stop=lambda: self._stopping,
        )
        self._replace(runs, [] if merged is None else [merged])

    async def _renew_filter(self) -> None:
        """Make a larger filter (or one without what was forgotten) while the old one goes on answering."""
        self._keys_since = []
        try:
            renewed = await self._in_background(self._filter_of, [(run.path, run.meta) for run in self._runs])
            for keys in self._keys_since:
                renewed.add(keys)
        finally:
            self._keys_since = None
        self._filter = renewed

    async def _in_background(self, work: Callable[..., _T], *arguments: object, **named: object) -> _T:
        submitted = self._upkeep_work = _merging.submit(work, *arguments, **named)
        return await asyncio.wrap_future(submitted)

    def _filter_of(self, runs: list[tuple[Path, RunMeta]]) -> KeyFilter:
        renewed = _filter_for(sum(meta.rows for _, meta in runs))
        for path, meta in runs:
            for rows in read_rows(path, meta):
                if self._stopping:
                    raise MergeStopped
                renewed.add(np.ascontiguousarray(rows["key"]))
        return renewed

    def _open_runs(self, folder: Path, manifest: Manifest) -> None:
        self._filter = _filter_for(sum(meta.rows for meta in manifest.runs))
        self._runs = [open_run(folder / meta.name, meta, self._filter.add) for meta in manifest.runs]

    def _give_back_pages(self, looked_at: int) -> None:
        self._looked_at += looked_at
        if self._looked_at > _RELEASE_ABOVE:
            self._looked_at = 0
            for run in self._runs:
                run.release()


def _in_thread(work: Callable[..., _T], *arguments: object) -> asyncio.Future[_T]:
    return asyncio.get_running_loop().run_in_executor(_saving, functools.partial(work, *arguments))


def _filter_for(rows: int) -> KeyFilter:
    return KeyFilter(max(_FILTER_SMALLEST, rows + rows // 2))


def _take_out(recent: dict[bytes, int], identities: list[bytes]) -> None:
    deque(map(recent.pop, identities), maxlen=0)


def _remove(paths: list[Path]) -> None:
    for path in paths:
        # What stays is removed by the next load.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _leave_to_the_system(descriptor: int) -> None:
    """Write to disk when the system likes."""
