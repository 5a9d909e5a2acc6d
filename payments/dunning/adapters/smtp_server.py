"""The mail server that alerts use too, for mails of dunning. Owns which replies are final (RFC 5321 §4.2.1)."""

from __future__ import annotations

import asyncio
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

import aiosmtplib

from payments.dunning.ports import Answer

_TIMEOUT_SECONDS = 10


class SmtpServer:
    """`MailServer` by SMTP: `smtp://user:password@host:port` (STARTTLS if offered) or `smtps://…`."""

    def __init__(self, url: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        parts = urlsplit(url)
        self._tls = parts.scheme == "smtps"
        self._host, self._port = parts.hostname, parts.port or (465 if self._tls else 25)
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._timeout_seconds = timeout_seconds

    async def send(self, message: EmailMessage) -> tuple[Answer, str]:
        """Send a mail once."""
        try:
            # The library's timeout counts per command; the row is locked meanwhile, so the whole is bounded too.
            async with asyncio.timeout(3 * self._timeout_seconds):
                await aiosmtplib.send(
                    message,
                    hostname=self._host,
                    port=self._port,
                    username=self._user,
                    password=self._password,
                    use_tls=self._tls,
                    timeout=self._timeout_seconds,
                )
        except aiosmtplib.SMTPRecipientsRefused as error:
            return _judge([(refusal.code, refusal.message) for refusal in error.recipients])
        except aiosmtplib.SMTPResponseException as error:
            return _judge([(error.code, error.message)])
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            return Answer.UNAVAILABLE, f"no answer: {type(error).__name__}: {str(error)[:200]}"
        return Answer.SENT, ""


def _judge(replies: list[tuple[int, str]]) -> tuple[Answer, str]:
    error = "; ".join(f"{code} {message}" for code, message in replies)[:500]
    for_good = all(500 <= code < 600 for code, _ in replies)
    return (Answer.REFUSED if for_good else Answer.UNAVAILABLE), error
