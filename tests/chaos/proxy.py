"""A TCP proxy in front of one dependency that delays, stalls, resets, goes silent, refuses, cuts, or answers itself.

Runs in a thread of its own, so a harness that is busy elsewhere does not slow the traffic through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Literal

Behaviour = Literal["pass", "delay", "stall", "half_open", "refuse", "cut_request", "cut_answer", "answer"]
_RST_ON_CLOSE = struct.pack("ii", 1, 0)
_PIECE = 262_144


class Proxy:
    """Listens on `port` and forwards to `target`; `set` changes what happens from now on."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self.injected = 0  # how many requests were cut or answered here
        self._behaviour: Behaviour = "pass"
        self._seconds = 0.0
        self._left = 0
        self._bytes = 0
        self._answer = b""
        self._pairs: dict[int, tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self._dead: set[int] = set()  # connections whose peer went silent for good
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._server: asyncio.Server | None = None
        threading.Thread(target=self._loop.run_forever, name=f"proxy-{port}", daemon=True).start()
        self._do(self._open)

    def set(
        self,
        behaviour: Behaviour,
        *,
        seconds: float = 0.0,
        times: int = 1 << 30,
        after_bytes: int = 0,
        answer: bytes = b"",
    ) -> None:
        """Change the behaviour.

        `delay` holds each answer back by `seconds`; `stall` holds everything, connections stay; `half_open` swallows
        everything and the connections of that time stay dead; `refuse` resets all and accepts none; `cut_request`
        resets a connection after `after_bytes` of what the client sends; `cut_answer` lets the request through and
        resets when the answer comes; `answer` reads an HTTP request and gives `answer` itself. The last three pass
        again after `times`.
        """

        async def change() -> None:
            self._behaviour, self._seconds, self._left = behaviour, seconds, times
            self._bytes, self._answer = after_bytes, answer
            if behaviour == "stall":
                self._flowing.clear()
            else:
                self._flowing.set()
            if behaviour == "half_open":
                self._dead |= set(self._pairs)
            if behaviour == "refuse":
                await self._close_listener()
                self._reset_all()
            elif self._server is None:
                await self._open()

        self._do(change)

    def reset(self) -> int:
        """Reset every open connection now, both ways; returns how many there were."""

        async def reset() -> int:
            return self._reset_all()

        found: int = self._do(reset)
        return found

    def close(self) -> None:
        """Stop."""

        async def stop() -> None:
            await self._close_listener()
            self._reset_all()
            await asyncio.sleep(0.05)  # lets the connections' tasks end

        self._do(stop)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _do(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def _open(self) -> None:
        self._flowing.set()
        for _ in range(100):
            with contextlib.suppress(OSError):
                self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_PIECE)
                return
            await asyncio.sleep(0.05)
        raise OSError(f"port {self.port} cannot be listened on")

    async def _close_listener(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _reset_all(self) -> int:
        pairs = list(self._pairs.values())
        for pair in pairs:
            for writer in pair:
                _abort(writer)
        return len(pairs)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, up = await asyncio.open_connection("127.0.0.1", self.target, limit=_PIECE)
        except OSError:
            _abort(writer)
            return
        name = id(writer)
        self._pairs[name] = (writer, up)
        if self._behaviour == "half_open":
            self._dead.add(name)
        ways = (self._requests(name, reader, writer, up), self._answers(name, upstream, writer))
        tasks = {asyncio.create_task(_until_broken(way)) for way in ways}
        try:
            while tasks:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if not all(task.result() for task in done):
                    break
        finally:
            for task in tasks:
                task.cancel()
            self._pairs.pop(name, None)
            self._dead.discard(name)
            for one in (writer, up):
                _abort(one)

    async def _requests(
        self, name: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up: asyncio.StreamWriter
    ) -> None:
        seen = 0
        while data := await reader.read(_PIECE):
            await self._flowing.wait()
            if name in self._dead:
                continue
            if self._behaviour == "answer" and self._left > 0:
                self._left -= 1
                self.injected += 1
                await _read_request(data, reader)
                writer.write(self._answer)
                await writer.drain()
                continue
            seen += len(data)
            if self._behaviour == "cut_request" and seen > self._bytes and self._left > 0:
                self._left -= 1
                self.injected += 1
                raise ConnectionResetError
            up.write(data)
            await up.drain()
        if up.can_write_eof() and name not in self._dead:
            up.write_eof()

    async def _answers(self, name: int, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await upstream.read(_PIECE):
            await self._flowing.wait()
            if name in self._dead:
                continue
            if self._behaviour == "cut_answer" and self._left > 0:
                self._left -= 1
                self.injected += 1
                _abort(writer)
                raise ConnectionResetError
            if self._behaviour == "delay":
                await asyncio.sleep(self._seconds)
            writer.write(data)
            await writer.drain()
        if name not in self._dead:
            raise ConnectionResetError


def clickhouse_refusal(code: int, name: str, message: str, status: int = 500) -> bytes:
    """Return the HTTP answer of a ClickHouse server that refuses a request."""
    body = f"Code: {code}. DB::Exception: {message}. ({name}) (version 26.9.1.1)\n".encode()
    head = (
        f"HTTP/1.1 {status} Internal Server Error\r\nContent-Type: text/plain; charset=UTF-8\r\n"
        f"X-ClickHouse-Exception-Code: {code}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _until_broken(way: Awaitable[None]) -> bool:
    """Return whether this way may end while the other goes on: only the client's end of its requests may."""
    try:
        await way
    except OSError:
        return False
    return True


async def _read_request(begun: bytes, reader: asyncio.StreamReader) -> None:
    while b"\r\n\r\n" not in begun:
        begun += await _more(reader)
    head, _, body = begun.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        while not body.endswith(b"0\r\n\r\n"):
            body += await _more(reader)
        return
    length = re.search(rb"content-length:\s*(\d+)", head, re.IGNORECASE)
    while length and len(body) < int(length[1]):
        body += await _more(reader)


async def _more(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(_PIECE)
    if not data:
        raise ConnectionResetError
    return data


def _abort(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
    writer.transport.abort()
