"""One HTTP request to ClickHouse. Owns reading its parameters, its body and who sends it."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl

from runtime.stack.clickhouse.codecs import decoder
from runtime.stack.clickhouse.exceptions import (
    AUTHENTICATION_FAILED,
    BAD_ARGUMENTS,
    INVALID_SESSION_TIMEOUT,
    NOT_IMPLEMENTED,
    ClickHouseError,
)

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
USER = "default"
# Parameters that ClickHouse's HTTP interface takes itself; all others are settings of the query.
_RESERVED = frozenset(
    {
        "buffer_size",
        "client_protocol_version",
        "close_session",
        "compress",
        "database",
        "decompress",
        "default_format",
        "password",
        "query",
        "query_id",
        "quota_key",
        "role",
        "session_check",
        "session_id",
        "session_timeout",
        "stacktrace",
        "user",
        "wait_end_of_query",
    }
)
_EXTERNAL_ENDINGS = ("_structure", "_types", "_format")
_SESSION_SECONDS_DEFAULT = 60.0
_SESSION_SECONDS_MAX = 3_600.0
_FORM_MAX_BYTES = 256 * 1024 * 1024


class ClientGoneError(Exception):
    """The client closed its connection before the request was done."""


@dataclass(frozen=True, slots=True)
class ExternalTable:
    """Data that came with a query, to be read as a table."""

    name: str
    structure: str
    format_name: str
    data: bytes


class Request:
    """A request's method, path, headers, parameters and body."""

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive) -> None:
        self._receive = receive
        self._ended = False
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        self.arguments = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        self.external_tables: list[ExternalTable] = []

    def text(self, name: str, header: str = "") -> str:
        """A parameter's value, or else a header's; "" when it has neither."""
        return self.arguments.get(name) or (self.headers.get(header, "") if header else "")

    def flag(self, name: str) -> bool:
        """Whether a parameter is on."""
        return self.arguments.get(name, "0").lower() in ("1", "true", "on", "yes")

    @property
    def bind_parameters(self) -> dict[str, str]:
        """Values of `{name:Type}` in the query."""
        return {name[6:]: value for name, value in self.arguments.items() if name.startswith("param_")}

    @property
    def settings(self) -> dict[str, str]:
        """Settings for this query only."""
        external = {table.name + ending for table in self.external_tables for ending in _EXTERNAL_ENDINGS}
        return {
            name: value
            for name, value in self.arguments.items()
            if name not in _RESERVED and name not in external and not name.startswith("param_")
        }

    @property
    def session_seconds(self) -> float:
        """How long a session may be idle; raises `ClickHouseError` for a time that is none, or too long."""
        given = self.arguments.get("session_timeout", "")
        try:
            seconds = float(given) if given else _SESSION_SECONDS_DEFAULT
        except ValueError:
            raise ClickHouseError(INVALID_SESSION_TIMEOUT, f"Invalid session timeout: '{given}'") from None
        if not 0 < seconds <= _SESSION_SECONDS_MAX:
            raise ClickHouseError(
                INVALID_SESSION_TIMEOUT,
                f"Session timeout '{given}' is larger than max_session_timeout: {_SESSION_SECONDS_MAX:.0f}",
            )
        return seconds

    def check_user(self, password: str) -> None:
        """Raise `ClickHouseError` unless the request names the one user there is, with the password."""
        user, key = self._credentials()
        if user != USER or not hmac.compare_digest(key.encode(), password.encode()):
            raise ClickHouseError(
                AUTHENTICATION_FAILED,
                f"{user}: Authentication failed: password is incorrect, or there is no user with such name",
            )

    def check_supported(self) -> None:
        """Raise `ClickHouseError` for what this front does not offer, rather than answer something else."""
        for name in ("compress", "decompress"):
            if self.flag(name):
                raise ClickHouseError(
                    NOT_IMPLEMENTED,
                    f"{name}=1 (ClickHouse's own block compression) is not supported here: "
                    "use Content-Encoding and Accept-Encoding",
                )

    @property
    def is_form(self) -> bool:
        """Whether the body is a multipart form."""
        kind: str = self.headers.get("content-type", "")
        return kind.lower().startswith("multipart/form-data")

    async def read_form(self) -> None:
        """Take parameters and external tables out of a multipart body."""
        kind = Message()
        kind["content-type"] = self.headers["content-type"]
        boundary = kind.get_param("boundary")
        if not isinstance(boundary, str) or not boundary:
            raise ClickHouseError(BAD_ARGUMENTS, "A multipart form without a boundary")
        body = b""
        async for piece in self.pieces():
            body += piece
            if len(body) > _FORM_MAX_BYTES:
                raise ClickHouseError(BAD_ARGUMENTS, f"A form of more than {_FORM_MAX_BYTES} bytes")
        files = []
        for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:-1]:
            head, _, content = part.partition(b"\r\n\r\n")
            about = Message()
            for line in head.decode(errors="replace").splitlines():
                name, _, value = line.partition(":")
                if value:
                    about[name.strip()] = value.strip()
            name = str(about.get_param("name", "", "content-disposition"))
            if about.get_param("filename", None, "content-disposition") is None:
                self.arguments[name] = content.decode(errors="surrogateescape")
            else:
                files.append((name, content))
        self.external_tables = [self._external_table(name, content) for name, content in files]

    def _external_table(self, name: str, data: bytes) -> ExternalTable:
        structure = self.arguments.get(f"{name}_structure", "")
        if not structure:
            kinds = self.arguments.get(f"{name}_types", "")
            if not kinds:
                raise ClickHouseError(BAD_ARGUMENTS, f"Neither {name}_structure nor {name}_types is given")
            structure = ", ".join(f"_{place} {kind}" for place, kind in enumerate(kinds.split(","), start=1))
        return ExternalTable(name, structure, self.arguments.get(f"{name}_format", "TabSeparated"), data)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, decompressed, piece by piece; raises `ClientGoneError` when it breaks off."""
        encoding = decoder(self.headers.get("content-encoding", ""))
        async for raw in self._raw_pieces():
            plain = encoding.decode(raw)
            if plain:
                yield plain
        encoding.finish()

    async def drain(self) -> None:
        """Read the rest of the body and drop it: a client that is still sending would not see an answer."""
        async for _ in self._raw_pieces():
            pass

    async def wait_until_gone(self) -> None:
        """Return when the client has closed its connection; only once the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _raw_pieces(self) -> AsyncIterator[bytes]:
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._ended = True
                raise ClientGoneError
            self._ended = not message.get("more_body", False)
            if message.get("body"):
                yield message["body"]

    def _credentials(self) -> tuple[str, str]:
        authorization = self.headers.get("authorization", "")
        if authorization.lower().startswith("basic "):
            try:
                user, _, key = base64.b64decode(authorization[6:], validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise ClickHouseError(BAD_ARGUMENTS, "Invalid HTTP Basic authorization") from None
            return user or USER, key
        return (
            self.text("user", "x-clickhouse-user") or USER,
            self.text("password", "x-clickhouse-key"),
        )
