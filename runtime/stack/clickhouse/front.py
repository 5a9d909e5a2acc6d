"""ClickHouse's HTTP interface as an ASGI application over the engine. Owns requests, responses and who may wait.

The engine's calls block, so each runs in a thread of a pool; the event loop moves bytes. A request that finds every
thread taken is refused with ClickHouse's own code for too many queries, it does not queue up.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from runtime.stack.clickhouse.engine import Engine, Insert, Lease, Summary
from runtime.stack.clickhouse.exceptions import (
    READONLY,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    UNKNOWN_EXCEPTION,
    ClickHouseError,
)
from runtime.stack.clickhouse.request import ClientGoneError, Receive, Request
from runtime.stack.clickhouse.response import Response, Send
from runtime.stack.clickhouse.statement import Kind, Statement, parse_statement, takes_data

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
_T = TypeVar("_T")

QUERIES_AT_ONCE = 100
_PIECE = 1024 * 1024
# A result that ends within this much and this time is sent in one go, with its length and its summary.
_WHOLE_BYTES = 1024 * 1024
_WHOLE_SECONDS = 0.05
_OK = b"Ok.\n"


class Front:
    """The application; `password` is that of the user `default`, "" for none."""

    def __init__(self, open_engine: Callable[[], Engine], password: str = "") -> None:
        self._open_engine = open_engine
        self._password = password
        self._threads = ThreadPoolExecutor(QUERIES_AT_ONCE, thread_name_prefix="query")
        # Stopping a query must not wait for a thread that queries have taken.
        self._stoppers = ThreadPoolExecutor(2, thread_name_prefix="stop")
        self._running = 0
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine; only between start and shutdown."""
        if self._engine is None:
            raise RuntimeError("the front has not been started")
        return self._engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(Request(scope, receive), Response(self.engine, send))

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            self._engine = self._open_engine()
        # The server's log says why: another process may have the folder, or its files are damaged.
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": f"the engine does not open: {error}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.get_running_loop().run_in_executor(self._stoppers, self._engine.stop_queries)
        self._threads.shutdown(wait=True)
        self._engine.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, request: Request, response: Response) -> None:
        if request.path in ("/ping", "/replicas_status"):
            await response.send_plain(200, _OK)
            return
        if request.path not in ("/", "/query"):
            await response.send_plain(404, f"There is no handle {request.path}\n".encode())
            return
        if request.method not in ("GET", "HEAD", "POST"):
            await response.send_plain(501, b"Only GET, HEAD and POST are supported\n")
            return
        if request.method in ("GET", "HEAD") and not request.arguments.get("query"):
            await response.send_plain(200, _OK)
            return
        response.begin(request)
        try:
            try:
                await self._admit(request, response)
            except ClickHouseError as error:
                await request.drain()
                await response.send_error(error)
            except ClientGoneError:
                raise
            except Exception:
                logger.exception("request %s failed", response.query_id)
                await request.drain()
                await response.send_error(ClickHouseError(UNKNOWN_EXCEPTION, "The server's own mistake: see its log"))
        except ClientGoneError:
            logger.info("the client of %s is gone", response.query_id)

    async def _admit(self, request: Request, response: Response) -> None:
        request.check_user(self._password)
        request.check_supported()
        if self._running >= QUERIES_AT_ONCE:
            raise ClickHouseError(
                TOO_MANY_SIMULTANEOUS_QUERIES, f"Too many simultaneous queries. Maximum: {QUERIES_AT_ONCE}"
            )
        self._running += 1
        try:
            await self._run(request, response)
        finally:
            self._running -= 1

    async def _run(self, request: Request, response: Response) -> None:
        if request.is_form:
            await request.read_form()
        statement, rest = await _read_statement(request)
        if not statement.reads_only and (request.method != "POST" or request.settings.get("readonly", "0") != "0"):
            raise ClickHouseError(
                READONLY,
                "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. "
                "You should use method POST for modifying queries",
            )
        session = (request.text("session_id"), request.session_seconds, request.flag("session_check"))
        lease = await self._in_thread(self.engine.lease, *session)
        try:
            await self._in_thread(_prepare, lease, request)
            if statement.kind is Kind.INSERT:
                await self._insert(lease, statement, request, response, rest)
            elif statement.kind is Kind.RESULT:
                await self._send_result(lease, statement, request, response)
            else:
                sql = statement.head + b"".join([piece async for piece in rest])
                body, summary = await self._in_thread(lease.execute, sql, request.bind_parameters, "")
                await self._in_thread(lease.release)
                await response.send_whole(body, summary, "TabSeparated" if body else "")
        finally:
            # Released before the answer's last byte, so that the client's next request finds its session free; here
            # for whatever went wrong. A cancelled request does not wait for it, but it is always done.
            await asyncio.shield(self._in_thread(lease.release))

    async def _insert(
        self, lease: Lease, statement: Statement, request: Request, response: Response, rest: AsyncIterator[bytes]
    ) -> None:
        insert: Insert = await self._in_thread(
            lease.begin_insert, statement.head, request.bind_parameters, statement.format_name
        )
        try:
            pending = bytearray(statement.data)
            async for piece in rest:
                pending += piece
                if len(pending) >= _PIECE:
                    await self._in_thread(insert.append, bytes(pending))
                    pending.clear()
            if pending:
                await self._in_thread(insert.append, bytes(pending))
            summary = await self._in_thread(insert.finish)
        except BaseException:
            await asyncio.shield(self._in_thread(insert.cancel))
            raise
        await self._in_thread(lease.release)
        await response.send_whole(b"", summary, "")

    async def _send_result(self, lease: Lease, statement: Statement, request: Request, response: Response) -> None:
        format_name = statement.format_name or response.default_format
        read_end, write_end = os.pipe()
        query = asyncio.ensure_future(
            self._in_thread(
                lease.write_result, statement.head, statement.tail, request.bind_parameters, format_name, write_end
            )
        )
        gone = asyncio.ensure_future(request.wait_until_gone())
        pipe = _Pipe(read_end)
        try:
            await self._relay(lease, pipe, query, gone, request.flag("wait_end_of_query"), response, format_name)
        finally:
            gone.cancel()
            # Nobody reads any more: a query that writes goes on without waiting, and is told to stop.
            pipe.close()
            if not query.done():
                await asyncio.shield(self._stop(lease))
            # The lease is given back after this, so the query must have let go of it.
            await asyncio.wait([query])
            if not query.cancelled() and query.exception() is not None:
                logger.debug("query %s: %s", response.query_id, query.exception())

    async def _relay(
        self,
        lease: Lease,
        pipe: _Pipe,
        query: asyncio.Future[Summary],
        gone: asyncio.Future[None],
        whole: bool,
        response: Response,
        format_name: str,
    ) -> None:
        """Send what comes out of the pipe: in one go when it ends soon or the client wants that, else as it comes."""
        collected = bytearray()
        while whole or len(collected) < _WHOLE_BYTES:
            patience = None if whole or not collected else _WHOLE_SECONDS
            piece = await pipe.read(gone, patience)
            if piece is None:
                break
            if not piece:
                summary = await query
                await self._in_thread(lease.release)
                await response.send_whole(bytes(collected), summary, format_name)
                return
            collected += piece
        await response.begin_stream(format_name)
        try:
            await response.send_piece(bytes(collected))
            while piece := await pipe.read(gone, None):
                await response.send_piece(piece)
            await query
            await self._in_thread(lease.release)
            await response.end_stream()
        except ClickHouseError as error:
            await response.break_stream(error)

    async def _stop(self, lease: Lease) -> None:
        await asyncio.get_running_loop().run_in_executor(self._stoppers, self.engine.cancel, lease.marker)

    async def _in_thread(self, call: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)


class _Pipe:
    """The reading end of a result's pipe.

    Watched as a bare file descriptor that is closed here and only here. uvloop's own pipe transport closes its
    descriptor twice, and the second time hits whatever was opened under that number meanwhile (seen under load).
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)
        # The largest that a plain user may have; past the user's share of pipe memory it stays at 64 KiB.
        with contextlib.suppress(PermissionError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIECE)

    async def read(self, gone: asyncio.Future[None], patience: float | None) -> bytes | None:
        """The next piece, b"" at the end, None when none came in `patience` seconds.

        Raises `ClientGoneError` when nobody waits for it any more.
        """
        while True:
            if gone.done():
                raise ClientGoneError
            try:
                return os.read(self._descriptor, _PIECE)
            except BlockingIOError:
                if not await self._wait_readable(gone, patience):
                    return None

    async def _wait_readable(self, gone: asyncio.Future[None], patience: float | None) -> bool:
        """Whether there is something to read, or the client is gone, within `patience` seconds."""
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._descriptor, _set_done, readable)
        try:
            done, _ = await asyncio.wait({readable, gone}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(self._descriptor)
        return bool(done)

    def close(self) -> None:
        """Stop reading."""
        os.close(self._descriptor)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _read_statement(request: Request) -> tuple[Statement, AsyncIterator[bytes]]:
    """The statement from the `query` parameter and the body, and what of the body is left to read as its data."""
    pieces = request.pieces() if not request.is_form else _nothing()
    text = bytearray(request.arguments.get("query", "").encode(errors="surrogateescape"))
    if text and takes_data(bytes(text) + b"\n"):
        return parse_statement(bytes(text) + b"\n"), pieces
    if text:
        text += b"\n"
    async for piece in pieces:
        text += piece
        if takes_data(bytes(text)):
            return parse_statement(bytes(text)), pieces
    default_format = request.headers.get("x-clickhouse-format") or request.arguments.get("default_format", "Values")
    return parse_statement(bytes(text), default_format), _nothing()


async def _nothing() -> AsyncIterator[bytes]:
    no_pieces: tuple[bytes, ...] = ()
    for piece in no_pieces:
        yield piece


def _prepare(lease: Lease, request: Request) -> None:
    lease.apply(request.text("database", "x-clickhouse-database"), request.settings)
    for table in request.external_tables:
        lease.create_temporary_table(table.name, table.structure, table.format_name, table.data)
