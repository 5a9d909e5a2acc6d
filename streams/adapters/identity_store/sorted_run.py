"""A run: identities in a file, sorted, never changed. Owns the row's form and how rows are found.

The file is rows of 32 bytes, nothing else; what describes it (how many, checksum, days) stands in the manifest. Rows
are sorted by `key`, the identity's first eight bytes as a number; `rest` is the other eight, so a match is exact. Keys
are digests and spread evenly: the top bits lead to a bucket of some 32 rows, a binary search goes on from there.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from streams.adapters.identity_store.key_filter import Keys

ROW = np.dtype(
    [("key", "<u8"), ("rest", "<u8"), ("offset", "<u8"), ("digest", "<u4"), ("index", "<u2"), ("day", "<u2")]
)
Rows = npt.NDArray[np.void]
Positions = npt.NDArray[np.int64]
# Half a megabyte: what a merge holds at once is some ten times that.
ROWS_AT_ONCE = 1 << 14
_ROWS_PER_BUCKET = 32
# A row as four words: key, rest, offset, and (from the lowest bit) digest, index, day.
_WORDS = ROW.itemsize // 8
_DIGEST_MASK = np.uint64(0xFFFF_FFFF)
_DAY_SHIFT = np.uint64(48)


class RunMeta(msgspec.Struct, array_like=True, frozen=True):
    """What the manifest says of a run: file name, rows, CRC-32 of the file, and rows by day of receipt."""

    name: str
    rows: int
    checksum: int
    days: dict[int, int]

    def alive(self, first_day: int) -> int:
        """Return how many rows are not forgotten, if days before `first_day` are."""
        return sum(rows for day, rows in self.days.items() if day >= first_day)


class RunDamagedError(Exception):
    """A run's file is not what was written."""


class BucketIndex:
    """Where each bucket of keys begins; made of keys that come in ascending order."""

    def __init__(self, rows_expected: int) -> None:
        self._bits = max(1, (rows_expected // _ROWS_PER_BUCKET).bit_length())
        self.shift = np.uint64(64 - self._bits)
        # starts[b + 1] counts bucket b until `finish` adds up.
        self.starts: npt.NDArray[np.uint32] = np.zeros((1 << self._bits) + 1, dtype=np.uint32)

    def add(self, keys: Keys) -> None:
        """Count keys, sorted and not below those counted before."""
        buckets = keys >> self.shift
        firsts = np.flatnonzero(np.concatenate(([True], buckets[1:] != buckets[:-1])))
        counts = np.diff(np.append(firsts, len(keys)))
        self.starts[buckets[firsts].view(np.int64) + 1] += counts.astype(np.uint32)

    def finish(self) -> BucketIndex:
        """Turn counts into starts."""
        np.cumsum(self.starts, out=self.starts)
        return self


class RunWriter:
    """Writes rows that come in ascending order of key, and knows at the end what the manifest must say."""

    def __init__(self, path: Path, rows_expected: int) -> None:
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._rows = 0
        self._checksum = 0
        self._days: dict[int, int] = {}
        self._index = BucketIndex(rows_expected)

    def write(self, rows: Rows) -> None:
        """Append rows; raises `OSError` if the disk does not take them."""
        if not len(rows):
            return
        raw = _bytes_of(rows)
        self._checksum = zlib.crc32(raw, self._checksum)
        while raw:
            raw = raw[self._file.write(raw) :]
        self._rows += len(rows)
        self._index.add(np.ascontiguousarray(rows["key"]))
        days, counts = np.unique(rows["day"], return_counts=True)
        for day, count in zip(days.tolist(), counts.tolist(), strict=True):
            self._days[day] = self._days.get(day, 0) + count

    def finish(self, sync: Callable[[int], None]) -> SortedRun | None:
        """Close the file after `sync` of its descriptor and return the run; without rows there is none, and no file."""
        if not self._rows:
            self.give_up()
            return None
        sync(self._file.fileno())
        self._file.close()
        meta = RunMeta(self._path.name, self._rows, self._checksum, self._days)
        return SortedRun(self._path, meta, self._index.finish())

    def give_up(self) -> None:
        """Close and remove what was written."""
        # What closing cannot write is not wanted any more.
        with contextlib.suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


class SortedRun:
    """A finished run, mapped into memory but kept out of it: `release` gives looked-at pages back."""

    def __init__(self, path: Path, meta: RunMeta, index: BucketIndex) -> None:
        self.path, self.meta = path, meta
        self._index = index
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), meta.rows * ROW.itemsize, access=mmap.ACCESS_READ)
        self._map.madvise(mmap.MADV_RANDOM)
        self._words: Keys = np.frombuffer(self._map, dtype="<u8")
        # Where the last row begins.
        self._last = (meta.rows - 1) * _WORDS
        self._shift = int(index.shift)
        self._longest_step = 1 << (int(np.diff(index.starts).max()).bit_length() - 1)
        self._oldest_day = min(meta.days)

    @property
    def index_bytes(self) -> int:
        """Memory of the bucket index."""
        return self._index.starts.nbytes

    def find(self, keys: Keys, rests: Keys, first_day: int) -> Positions:
        """Return the row of each identity, -1 where there is none received on `first_day` or later."""
        found = np.full(len(keys), -1, dtype=np.int64)
        at = self._first_not_below(keys)
        asked = np.flatnonzero(self._words.take(np.minimum(at, self._last)) == keys)
        while len(asked):
            at = at[asked] if len(at) != len(asked) else at
            match = self._words.take(at + 1) == rests[asked]
            if self._oldest_day < first_day:
                match &= (self._words.take(at + 3) >> _DAY_SHIFT) >= np.uint64(first_day)
            found[asked[match]] = at[match] // _WORDS
            # Hardly ever: another identity that shares half its digest, or the same one, forgotten and received again.
            asked, at = asked[~match], at[~match] + _WORDS
            same_key = (at <= self._last) & (self._words.take(np.minimum(at, self._last)) == keys[asked])
            asked, at = asked[same_key], at[same_key]
        return found

    def find_one(self, identity: bytes, first_day: int) -> int:
        """Return the row of one identity, -1 if there is none received on `first_day` or later."""
        bucket = int.from_bytes(identity[:8], "little") >> self._shift
        first = int(self._index.starts[bucket])
        # All rows of a key lie in its bucket, and a row begins with its identity.
        rows = self._map[first * ROW.itemsize : int(self._index.starts[bucket + 1]) * ROW.itemsize]
        at = rows.find(identity)
        while at >= 0:
            row = first + at // ROW.itemsize
            if at % ROW.itemsize == 0 and int(self._words[row * _WORDS + 3]) >> 48 >= first_day:
                return row
            at = rows.find(identity, at + 1)
        return -1

    def keys(self) -> Keys:
        """Return all keys, ascending; meant for a run that was just written."""
        return self._words[::_WORDS].copy()

    def digests(self, rows: Positions) -> list[int]:
        """Return the digests of rows."""
        digests: list[int] = (self._words.take(rows * _WORDS + 3) & _DIGEST_MASK).tolist()
        return digests

    def digest(self, row: int) -> int:
        """Return a row's digest."""
        return int(self._words[row * _WORDS + 3]) & 0xFFFF_FFFF

    def place(self, row: int) -> tuple[int, int]:
        """Return a row's offset and index + 1."""
        offset, tail = int(self._words[row * _WORDS + 2]), int(self._words[row * _WORDS + 3])
        return offset, (tail >> 32) & 0xFFFF

    def release(self) -> None:
        """Give mapped pages back; they stay in the page cache as long as the system likes."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def _first_not_below(self, keys: Keys) -> Positions:
        """Return for each key the first word of the first row whose key is not smaller, or a place beyond the end.

        Beyond the end the last row stands in: its key is then smaller than the one asked for, so it is no match either.
        """
        at = self._index.starts.take((keys >> self._index.shift).view(np.int64)).astype(np.int64) * _WORDS
        step = self._longest_step
        while step:
            # Rows beyond the bucket have greater keys, so nothing steps out of it.
            probe = np.minimum(at + (step - 1) * _WORDS, self._last)
            at += (self._words.take(probe) < keys) * np.int64(step * _WORDS)
            step >>= 1
        return at


def read_rows(path: Path, meta: RunMeta) -> Iterator[Rows]:
    """Yield a run's rows in pieces, and raise `RunDamagedError` at the end unless the file is what was written.

    Reads the file rather than a mapping of it, so that passing over a large run leaves nothing in the process's memory.
    """
    checksum = rows = 0
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size != meta.rows * ROW.itemsize:
            raise RunDamagedError(f"{path.name} has another length")
        while rows < meta.rows:
            piece = np.empty(min(ROWS_AT_ONCE, meta.rows - rows), dtype=ROW)
            raw = _bytes_of(piece)
            while raw:
                read = file.readinto(raw)
                if not read:
                    raise RunDamagedError(f"{path.name} ends early")
                raw = raw[read:]
            checksum = zlib.crc32(_bytes_of(piece), checksum)
            rows += len(piece)
            yield piece
    if checksum != meta.checksum:
        raise RunDamagedError(f"{path.name} has another checksum")


def open_run(path: Path, meta: RunMeta, see: Callable[[Keys], None]) -> SortedRun:
    """Check a run's file from end to end and open it; `see` is handed its keys. Raises `RunDamagedError`, `OSError`."""
    index = BucketIndex(meta.rows)
    for rows in read_rows(path, meta):
        keys = np.ascontiguousarray(rows["key"])
        index.add(keys)
        see(keys)
    return SortedRun(path, meta, index.finish())


def _bytes_of(rows: Rows) -> memoryview:
    return memoryview(rows.view(np.uint8).data)
