"""A mail server that keeps what it gets (RFC 5321 by aiosmtpd), with a small HTTP control beside it."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import hashlib
import time
from email.message import EmailMessage, MIMEPart
from functools import partial
from typing import Any

from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.standins.faults import Fault, FaultPlan
from tests.standins.loopback import HOST, LoopbackServer, add_fault_routes

FAULT_KINDS = frozenset({"refuse", "cut_after", "slow"})
SIZE_MAX_BYTES = 32 * 1024 * 1024


class SmtpStandIn:
    """The SMTP server, the messages it took, and its HTTP control."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.faults = FaultPlan(FAULT_KINDS)
        self._smtp: asyncio.Server | None = None
        app = web.Application()
        add_fault_routes(app, self.faults)
        app.router.add_get("/_control/messages", self._show)
        app.router.add_post("/_control/reset", self._reset)
        self._server = LoopbackServer(app)

    @property
    def url(self) -> str:
        """The server as `smtp://host:port`."""
        assert self._smtp is not None, "the server is started first"
        return f"smtp://{HOST}:{self._smtp.sockets[0].getsockname()[1]}"

    @property
    def control_url(self) -> str:
        """Base URL of the control surface."""
        return f"{self._server.url}/_control"

    async def start(self) -> None:
        """Listen on loopback ports for SMTP and for the control."""
        loop = asyncio.get_running_loop()
        protocol = partial(
            SMTP, self, hostname="standin.invalid", data_size_limit=SIZE_MAX_BYTES, enable_SMTPUTF8=True, loop=loop
        )
        self._smtp = await loop.create_server(protocol, HOST, 0)
        await self._server.start()

    async def stop(self) -> None:
        """Stop listening."""
        if self._smtp is not None:
            self._smtp.close()
            await asyncio.sleep(0)
        await self._server.stop()

    async def _show(self, _: web.Request) -> web.Response:
        return web.json_response({"messages": self.messages})

    async def _reset(self, _: web.Request) -> web.Response:
        self.messages.clear()
        self.faults.clear()
        return web.json_response({})

    def _refusal(self, stage: str) -> str | None:
        """Return the reply to give instead of 250, if a fault is planned for this command."""
        fault = self.faults.planned[0] if self.faults.planned else None
        if fault is None or fault.kind != "refuse" or fault.stage != stage:
            return None
        self.faults.take("", "")
        text = "Requested action aborted, try again later" if fault.code < 500 else "Requested action not taken"
        return f"{fault.code} {text}"

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Answer MAIL FROM."""
        if (refusal := self._refusal("mail")) is not None:
            return refusal
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Answer RCPT TO."""
        if (refusal := self._refusal("rcpt")) is not None:
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Take the message; `cut_after` keeps it but drops the connection before the reply."""
        if (refusal := self._refusal("data")) is not None:
            return refusal
        fault: Fault | None = self.faults.take("", "") if self.faults.planned else None
        if fault is not None and fault.kind == "slow":
            await self._server.pause(fault.seconds)
        self.messages.append(_describe(envelope))
        if fault is not None and fault.kind == "cut_after" and server.transport is not None:
            server.transport.abort()
        return "250 OK"


def _describe(envelope: Envelope) -> dict[str, Any]:
    content = envelope.content if isinstance(envelope.content, bytes) else (envelope.content or "").encode()
    parsed = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage), "the default policy makes EmailMessage"
    plain, html = parsed.get_body(("plain",)), parsed.get_body(("html",))
    return {
        "message_id": parsed["Message-ID"],
        "from": parsed["From"],
        "to": parsed["To"],
        "subject": parsed["Subject"],
        "envelope_from": envelope.mail_from,
        "envelope_to": list(envelope.rcpt_tos),
        "text": _text(plain),
        "html": _text(html),
        "attachments": [_describe_attachment(part) for part in parsed.iter_attachments()],
        "size_bytes": len(content),
        "received_at": time.time(),
    }


def _text(part: MIMEPart | None) -> str | None:
    """Return a text part with the line ends of its writer: SMTP carries CRLF."""
    if part is None:
        return None
    content: str = part.get_content()
    return content.replace("\r\n", "\n")


def _describe_attachment(part: EmailMessage) -> dict[str, Any]:
    content = part.get_payload(decode=True)
    raw = content if isinstance(content, bytes) else b""
    return {
        "filename": part.get_filename(),
        "content_type": part.get_content_type(),
        "size_bytes": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
        "content_base64": base64.b64encode(raw).decode(),
    }
