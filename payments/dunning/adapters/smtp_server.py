"""Sends the mails of dunning."""

from __future__ import annotations

from email.message import EmailMessage

from payments.dunning.ports import Answer
from runtime import smtp

_TIMEOUT_SECONDS = 10


class SmtpServer:
    """`MailServer` by SMTP."""

    def __init__(self, url: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._server = smtp.SmtpServer(url, timeout_seconds=timeout_seconds)

    async def send(self, message: EmailMessage) -> tuple[Answer, str]:
        """Send a mail once."""
        outcome, said = await self._server.send(message)
        return Answer(outcome.value), said
