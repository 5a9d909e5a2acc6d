"""One HTTP response of ClickHouse. Owns its headers, its compression, and how a failure in the middle is told."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from runtime.stack.clickhouse.codecs import Encoder, encoder
from runtime.stack.clickhouse.engine import Engine, Summary
from runtime.stack.clickhouse.exceptions import ClickHouseError
from runtime.stack.clickhouse.native import FIRST_REVISION, NativeRewriter
from runtime.stack.clickhouse.request import Request

logger = logging.getLogger(__name__)

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
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


class Response:
    """One response: its headers as ClickHouse's server sends them, and its body, compressed if the client asked."""

    def __init__(self, engine: Engine, send: Send) -> None:
        self._engine = engine
        self._send = send
        self._encoder: Encoder | None = None
        self._rewriter: NativeRewriter | None = None
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
        revision = request.arguments.get("client_protocol_version", "0")
        if revision.isdecimal() and int(revision) >= FIRST_REVISION:
            self._rewriter = NativeRewriter()

    async def send_plain(self, status: int, body: bytes) -> None:
        """A short text that is no query's result."""
        headers = [(b"content-type", b"text/html; charset=UTF-8"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"" if self._head_only else body})

    async def send_whole(self, body: bytes, summary: Summary, format_name: str) -> None:
        """A statement's whole answer."""
        if format_name == "Native" and self._rewriter is not None:
            body = self._rewriter.feed(body) + self._rewriter.finish()
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
        if format_name != "Native":
            self._rewriter = None
        headers = self._headers(format_name, Summary(), 0)
        if self._encoder is not None:
            headers["content-encoding"] = self._encoder.name
        await self._start(200, headers)

    async def send_piece(self, piece: bytes) -> None:
        """The next piece of such an answer."""
        if self._rewriter is not None:
            piece = self._rewriter.feed(piece)
        if not piece:
            return
        encoded = self._encoder.encode(piece) if self._encoder is not None else piece
        await self._send({"type": "http.response.body", "body": encoded, "more_body": True})

    async def end_stream(self) -> None:
        """End such an answer."""
        last = self._rewriter.finish() if self._rewriter is not None else b""
        if self._encoder is not None:
            last = (self._encoder.encode(last) if last else b"") + self._encoder.finish()
        await self._send({"type": "http.response.body", "body": last})

    async def break_stream(self, error: ClickHouseError) -> None:
        """Tell of a failure in the middle: the marked message as ClickHouse's server writes it (25.11 and later).

        The response is left without its end, so that a client which does not know the mark sees that it is broken.
        """
        text = error.body(self._engine.version)
        length = len(text.encode(errors="replace")) + 1
        message = f"\r\n__exception__\r\n{self._tag}\r\n{text}\n{length} {self._tag}\r\n__exception__\r\n"
        encoded = message.encode(errors="replace")
        if self._encoder is not None:
            encoded = self._encoder.encode(encoded) + self._encoder.finish()
        await self._send({"type": "http.response.body", "body": encoded, "more_body": True})
        logger.warning("query %s failed in the middle of its answer: %s", self.query_id, text)

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
