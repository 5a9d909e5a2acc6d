"""Documents in a folder. A file appears whole or not at all, and survives a crash right after."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path


class FolderDocuments:
    """A `DocumentStore` below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    async def write(self, name: str, content: bytes) -> str:
        """Keep the bytes under a name such as `acme/MB-2026-000001.pdf`, durably; returns the location."""
        return await asyncio.to_thread(self._write, name, content)

    async def read(self, location: str) -> bytes | None:
        """Return the bytes of a location of this store; None for any other, and where nothing is."""
        return await asyncio.to_thread(self._read, location)

    def _read(self, location: str) -> bytes | None:
        # As written (with the folder's own path in front, maybe from another working directory), or a name within it.
        for candidate in (Path(location).resolve(), (self._folder / location).resolve()):
            # Whatever a row says, nothing outside of the folder is ever handed out.
            if candidate.is_relative_to(self._folder) and candidate.is_file():
                return candidate.read_bytes()
        return None

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
