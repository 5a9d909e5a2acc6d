"""Mail by SMTP. Owns how the server's URL is read and which replies are worth another try (RFC 5321 §4.2.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from email.message import EmailMessage
from enum import Enum
from urllib.parse import unquote, urlsplit

import aiosmtplib


class Outcome(Enum):
    """What became of a mail: taken, refused for good, or worth another try."""

    SENT = "sent"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"


class SmtpServer:
    """One SMTP server: `smtp://user:password@host:port` (STARTTLS if offered) or `smtps://…`."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        self._tls = parts.scheme == "smtps"
        self._host, self._port = parts.hostname, parts.port or (465 if self._tls else 25)
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._timeout_seconds = timeout_seconds

    async def transmit(self, message: EmailMessage) -> str:
        """Send a mail once; returns which of several recipients were refused, else "".

        Raises what aiosmtplib raises, `OSError` and `TimeoutError`.
        """
        # The library's timeout counts per command; a row may be locked meanwhile, so the whole is bounded too.
        async with asyncio.timeout(3 * self._timeout_seconds):
            refused, _ = await aiosmtplib.send(
                message,
                hostname=self._host,
                port=self._port,
                username=self._user,
                password=self._password,
                use_tls=self._tls,
                timeout=self._timeout_seconds,
            )
        # Some got it: sending again would tell those twice, so the others stand in the record.
        return "; ".join(f"{address}: {reply.code} {reply.message}" for address, reply in refused.items())[:500]

    async def send(self, message: EmailMessage) -> tuple[Outcome, str]:
        """Send a mail once; returns what became of it, and what the server said."""
        try:
            return Outcome.SENT, await self.transmit(message)
        except aiosmtplib.SMTPRecipientsRefused as error:
            return _judge((refusal.code, refusal.message) for refusal in error.recipients)
        except aiosmtplib.SMTPResponseException as error:
            return _judge([(error.code, error.message)])
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            return Outcome.UNAVAILABLE, f"no answer: {type(error).__name__}: {str(error)[:200]}"


def _judge(replies: Iterable[tuple[int, str]]) -> tuple[Outcome, str]:
    known = list(replies)
    for_good = all(500 <= code < 600 for code, _ in known)
    said = "; ".join(f"{code} {message}" for code, message in known)[:500]
    return (Outcome.REFUSED if for_good else Outcome.UNAVAILABLE), said
