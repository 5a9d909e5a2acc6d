"""Documents in a folder. A file appears whole or not at all, and survives a crash right after."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from pathlib import Path


class FolderDocuments:
    """A `DocumentStore` below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def write(self, name: str, content: bytes) -> str:
        """Keep the bytes under a name such as `acme/MB-2026-000001.pdf`, durably; returns the location."""
        return await asyncio.to_thread(self._write, name, content)

    async def holds(self, location: str, sha256: str) -> bool:
        """Tell whether the location still holds exactly these bytes."""

        def compare() -> bool:
            try:
                return hashlib.sha256(Path(location).read_bytes()).hexdigest() == sha256
            except OSError:
                return False

        return await asyncio.to_thread(compare)

    def _write(self, name: str, content: bytes) -> str:
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".tmp-", suffix=target.suffix)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o640)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return str(target)
