"""ClickHouse's HTTP interface as an ASGI application over the engine. Owns requests, responses and who may wait.

The engine's calls block, so each runs in a thread of a pool; the event loop moves bytes. A request that finds every
thread taken is refused with ClickHouse's own code for too many queries, it does not queue up.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from runtime.stack.clickhouse.codecs import Encoder, encoder
from runtime.stack.clickhouse.engine import Engine, Insert, Lease, Summary
from runtime.stack.clickhouse.exceptions import (
    READONLY,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    UNKNOWN_EXCEPTION,
    ClickHouseError,
)
from runtime.stack.clickhouse.request import ClientGoneError, Receive, Request
from runtime.stack.clickhouse.statement import Kind, Statement, parse_statement, takes_data

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_T = TypeVar("_T")

QUERIES_AT_ONCE = 100
_PIECE = 1024 * 1024
# A result that ends within this much and this time is sent in one go, with its length and its summary.
_WHOLE_BYTES = 1024 * 1024
_WHOLE_SECONDS = 0.05
_OK = b"Ok.\n"
_CONTENT_TYPES = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8; header=present",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONCompactEachRow": "application/x-ndjson; charset=UTF-8",
    "XML": "application/xml; charset=UTF-8",
}


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
            await self._serve(Request(scope, receive), _Response(self.engine, send))

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

    async def _serve(self, request: Request, response: _Response) -> None:
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

    async def _admit(self, request: Request, response: _Response) -> None:
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

    async def _run(self, request: Request, response: _Response) -> None:
        if request.is_form:
            await request.read_form()
        statement, rest = await _read_statement(request)
        if request.method != "POST" and not statement.reads_only:
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
        self, lease: Lease, statement: Statement, request: Request, response: _Response, rest: AsyncIterator[bytes]
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

    async def _send_result(self, lease: Lease, statement: Statement, request: Request, response: _Response) -> None:
        format_name = statement.format_name or response.default_format
        read_end, write_end = os.pipe()
        fcntl.fcntl(read_end, fcntl.F_SETPIPE_SZ, _PIECE)
        query = asyncio.ensure_future(
            self._in_thread(
                lease.write_result, statement.head, statement.tail, request.bind_parameters, format_name, write_end
            )
        )
        gone = asyncio.ensure_future(request.wait_until_gone())
        pipe = await _open_pipe(read_end)
        try:
            await self._relay(lease, pipe, query, gone, request.flag("wait_end_of_query"), response, format_name)
        finally:
            gone.cancel()
            if not query.done():
                await asyncio.shield(self._stop(lease))
            pipe.close()
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
        response: _Response,
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
        await response.send_piece(bytes(collected))
        while piece := await pipe.read(gone, None):
            await response.send_piece(piece)
        try:
            await query
        except ClickHouseError as error:
            await response.break_stream(error)
        else:
            await self._in_thread(lease.release)
            await response.end_stream()

    async def _stop(self, lease: Lease) -> None:
        await asyncio.get_running_loop().run_in_executor(self._stoppers, self.engine.cancel, lease.marker)

    async def _in_thread(self, call: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)


class _Pipe:
    """The reading end of a result's pipe."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.BaseTransport) -> None:
        self._reader = reader
        self._transport = transport
        self._pending: asyncio.Task[bytes] | None = None

    async def read(self, gone: asyncio.Future[None], patience: float | None) -> bytes | None:
        """The next piece, b"" at the end, None when none came in `patience` seconds; `ClientGoneError` if nobody waits."""
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._reader.read(_PIECE))
        await asyncio.wait({self._pending, gone}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise ClientGoneError
        if not self._pending.done():
            return None
        piece, self._pending = self._pending.result(), None
        return piece

    def close(self) -> None:
        """Stop reading; a query that still writes finds nobody and goes on without waiting."""
        if self._pending is not None:
            self._pending.cancel()
        self._transport.close()


class _Response:
    """One response: its headers as ClickHouse's server sends them, and its body, compressed if the client asked."""

    def __init__(self, engine: Engine, send: Send) -> None:
        self._engine = engine
        self._send = send
        self._encoder: Encoder | None = None
        self._tag = uuid.uuid4().hex[:16]
        self._head_only = False
        self.query_id = ""
        self.default_format = ""

    def begin(self, request: Request) -> None:
        """Take from the request what the response depends on."""
        self.query_id = request.text("query_id") or str(uuid.uuid4())
        self.default_format = request.text("default_format", "x-clickhouse-format") or "TabSeparated"
        self._head_only = request.method == "HEAD"
        if request.arguments.get("enable_http_compression", "1") not in ("0", "false"):
            self._encoder = encoder(request.headers.get("accept-encoding", ""))

    async def send_plain(self, status: int, body: bytes) -> None:
        """A short text that is no query's result."""
        headers = [(b"content-type", b"text/html; charset=UTF-8"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"" if self._head_only else body})

    async def send_whole(self, body: bytes, summary: Summary, format_name: str) -> None:
        """A statement's whole answer."""
        headers = self._headers(format_name, summary, len(body))
        if self._encoder is not None and body:
            body = self._encoder.encode(body) + self._encoder.finish()
            headers["content-encoding"] = self._encoder.name
        headers["content-length"] = str(len(body))
        await self._start(200, headers)
        await self._send({"type": "http.response.body", "body": b"" if self._head_only else body})

    async def send_error(self, error: ClickHouseError) -> None:
        """A statement's failure, before anything of its result was sent."""
        body = (error.body(self._engine.version) + "\n").encode(errors="replace")
        headers = self._headers("", None, 0)
        headers["x-clickhouse-exception-code"] = str(error.code)
        headers["content-type"] = "text/plain; charset=UTF-8"
        headers["content-length"] = str(len(body))
        if error.status == 401:
            headers["www-authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
        await self._start(error.status, headers)
        await self._send({"type": "http.response.body", "body": b"" if self._head_only else body})

    async def begin_stream(self, format_name: str) -> None:
        """Begin an answer whose end is not known yet."""
        headers = self._headers(format_name, Summary(), 0)
        if self._encoder is not None:
            headers["content-encoding"] = self._encoder.name
        await self._start(200, headers)

    async def send_piece(self, piece: bytes) -> None:
        """The next piece of such an answer."""
        encoded = self._encoder.encode(piece) if self._encoder is not None else piece
        await self._send({"type": "http.response.body", "body": encoded, "more_body": True})

    async def end_stream(self) -> None:
        """End such an answer."""
        last = self._encoder.finish() if self._encoder is not None else b""
        await self._send({"type": "http.response.body", "body": last})

    async def break_stream(self, error: ClickHouseError) -> None:
        """Tell of a failure in the middle: the marked message as ClickHouse's server writes it (25.11 and later).

        The response is left without its end, so that a client which does not know the mark sees that it is broken.
        """
        text = error.body(self._engine.version)
        message = (
            f"\r\n__exception__\r\n{self._tag}\r\n{text}\n{len(text.encode()) + 1} {self._tag}\r\n__exception__\r\n"
        )
        encoded = message.encode(errors="replace")
        if self._encoder is not None:
            encoded = self._encoder.encode(encoded) + self._encoder.finish()
        await self._send({"type": "http.response.body", "body": encoded, "more_body": True})

    async def _start(self, status: int, headers: dict[str, str]) -> None:
        raw = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    def _headers(self, format_name: str, summary: Summary | None, result_bytes: int) -> dict[str, str]:
        headers = {
            "x-clickhouse-server-display-name": self._engine.display_name,
            "x-clickhouse-query-id": self.query_id,
            "x-clickhouse-timezone": self._engine.timezone,
            "x-clickhouse-exception-tag": self._tag,
            "content-type": _CONTENT_TYPES.get(format_name, "application/octet-stream")
            if format_name
            else "text/plain; charset=UTF-8",
        }
        if format_name:
            headers["x-clickhouse-format"] = format_name
        if summary is not None:
            figures = {
                "read_rows": summary.read_rows,
                "read_bytes": summary.read_bytes,
                "written_rows": summary.written_rows,
                "written_bytes": summary.written_bytes,
                "total_rows_to_read": summary.read_rows,
                "result_rows": summary.result_rows,
                "result_bytes": result_bytes,
                "elapsed_ns": summary.elapsed_ns,
            }
            headers["x-clickhouse-summary"] = json.dumps({name: str(figure) for name, figure in figures.items()})
        return headers


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
    for piece in ():
        yield piece


async def _open_pipe(read_end: int) -> _Pipe:
    reader = asyncio.StreamReader(limit=_PIECE)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
    )
    return _Pipe(reader, transport)


def _prepare(lease: Lease, request: Request) -> None:
    lease.apply(request.text("database", "x-clickhouse-database"), request.settings)
    for table in request.external_tables:
        lease.create_temporary_table(table.name, table.structure, table.format_name, table.data)
