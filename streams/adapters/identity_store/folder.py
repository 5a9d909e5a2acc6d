"""Who may use a store's folder: one process at a time. Owns the lock, and the private folders of who came too late."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import time
import uuid
from pathlib import Path

_LOCK = "lock"
_PRIVATE = ".private-"
_RETRY_SECONDS = 0.05


class Folder:
    """A folder that is held until `give_up`; `private` if the one asked for was in use: it is removed at the end."""

    def __init__(self, path: Path, descriptor: int, *, private: bool) -> None:
        self.path, self.private = path, private
        self._descriptor = descriptor

    def clear(self, keep: frozenset[str] = frozenset()) -> None:
        """Remove every file but the lock and those named."""
        for file in self.path.iterdir():
            if file.name != _LOCK and file.name not in keep:
                file.unlink()

    def give_up(self) -> None:
        """Let the next owner in."""
        if self._descriptor < 0:
            return
        if self.private:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)
        self._descriptor = -1


async def take_folder(path: Path, *, wait_seconds: float) -> Folder:
    """Take a folder, made if missing; while another process holds it, wait, then take a private one beside it."""
    _prepare(path)
    deadline = time.monotonic() + wait_seconds
    while (descriptor := _lock(path)) is None:
        if time.monotonic() >= deadline:
            return _take_private(path)
        await asyncio.sleep(_RETRY_SECONDS)
    return Folder(path, descriptor, private=False)


def _take_private(path: Path) -> Folder:
    while True:
        private = path.with_name(f"{path.name}{_PRIVATE}{uuid.uuid4().hex}")
        private.mkdir()
        # Who looks for orphans this very moment may hold it; the next one is ours.
        descriptor = _lock(private)
        if descriptor is not None:
            return Folder(private, descriptor, private=True)


def _lock(path: Path) -> int | None:
    descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _prepare(path: Path) -> None:
    """Make the folder, and remove private folders whose owner was killed."""
    path.mkdir(parents=True, exist_ok=True)
    for private in path.parent.glob(f"{path.name}{_PRIVATE}*"):
        if not (private / _LOCK).exists():
            # Being made this moment, or being removed; a leftover without a lock file is empty.
            continue
        descriptor = _lock(private)
        if descriptor is not None:
            shutil.rmtree(private, ignore_errors=True)
            os.close(descriptor)
