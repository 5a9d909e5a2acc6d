"""A pool of processes that render, each shut in (`sandbox`); one that hangs, dies or grows is replaced.

A child gets the snapshot and gives back bytes; it has no secrets, because it begins with an empty environment. What a
kernel without Landlock or seccomp leaves open is logged once: then only the fetcher and the empty environment stand.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import structlog

import invoicing
from invoicing.adapters.facturx import EInvoice
from invoicing.adapters.render_child import LENGTH, Answer, Ready, Request
from invoicing.domain.document import Mark
from invoicing.render_document import Rendered
from invoicing.render_invoice import RenderingFailedError

_TIMEOUT_SECONDS = 30.0
_START_SECONDS = 120.0
_MEMORY_BYTES = 1 << 30
# Libraries keep what they cache; a fresh process costs a second.
_RENDERS_MAX = 500
log = structlog.get_logger()


class _Child:
    def __init__(self, process: asyncio.subprocess.Process, folder: TemporaryDirectory[str]) -> None:
        self._process, self._folder, self.renders = process, folder, 0

    @classmethod
    async def start(cls, memory_bytes: int) -> _Child:
        folder = TemporaryDirectory(prefix="meterbook-render-")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "invoicing.adapters.render_child",
            str(memory_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_environment(folder.name),
        )
        child = cls(process, folder)
        try:
            async with asyncio.timeout(_START_SECONDS):
                ready = msgspec.msgpack.decode(await child._receive(), type=Ready)
        except (TimeoutError, asyncio.IncompleteReadError) as error:
            await child.end()
            raise RenderingFailedError("a rendering process did not start") from error
        if not (ready.files and ready.network):
            log.warning("renderer.fences_missing", files=ready.files, network=ready.network)
        return child

    async def ask(self, request: bytes) -> Answer:
        assert self._process.stdin is not None
        self._process.stdin.write(LENGTH.pack(len(request)) + request)
        await self._process.stdin.drain()
        self.renders += 1
        return msgspec.msgpack.decode(await self._receive(), type=Answer)

    async def _receive(self) -> bytes:
        assert self._process.stdout is not None
        (length,) = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
        return await self._process.stdout.readexactly(length)

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._folder.cleanup()


class RenderWorkers:
    """Renders in child processes; `render` may be called by many tasks at once."""

    def __init__(
        self, processes: int, *, timeout_seconds: float = _TIMEOUT_SECONDS, memory_bytes: int = _MEMORY_BYTES
    ) -> None:
        self._timeout_seconds, self._memory_bytes = timeout_seconds, memory_bytes
        self._places = asyncio.Semaphore(processes)
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()

    async def render(self, snapshot: Mapping[str, Any], mark: Mark = "") -> Rendered:
        """Return the files; raises `RenderingFailedError` with the reason. A child that is no good is replaced."""
        request = msgspec.msgpack.encode(Request(dict(snapshot), mark))
        async with self._places:
            child = self._idle.pop() if self._idle else await _Child.start(self._memory_bytes)
            self._busy.add(child)
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    answer = await child.ask(request)
            except BaseException as error:
                self._busy.discard(child)
                await child.end()
                if isinstance(error, TimeoutError):
                    raise RenderingFailedError(f"rendering took longer than {self._timeout_seconds:g} s") from error
                if isinstance(error, (asyncio.IncompleteReadError, ConnectionError)):
                    raise RenderingFailedError("the rendering process died; it may have run out of memory") from error
                raise
            self._busy.discard(child)
            if child.renders < _RENDERS_MAX:
                self._idle.append(child)
            else:
                await child.end()
        if answer.error:
            raise RenderingFailedError(answer.error)
        e_invoice = EInvoice(answer.cii, answer.ubl) if answer.cii else None
        return Rendered(answer.pdf, e_invoice, answer.refusal, answer.glyphs_missing)

    async def close(self) -> None:
        """End the child processes."""
        children, self._idle = [*self._idle, *self._busy], []
        for child in children:
            await child.end()


def _environment(folder: str) -> dict[str, str]:
    """Return what a child begins with: where its code lies and how text is written, and none of our secrets."""
    root = Path(invoicing.__file__).parent.parent
    environment = {"PYTHONPATH": str(root), "TMPDIR": folder, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    if fonts := os.environ.get("METERBOOK_FONTS_DIR"):
        environment["METERBOOK_FONTS_DIR"] = fonts
    return environment
