"""Mail by SMTP. Owns how the server's URL is read and which replies are worth another try (RFC 5321 §4.2.1)."""

from __future__ import annotations

import asyncio
from urllib.parse import unquote, urlsplit

import aiosmtplib

from invoicing.domain.delivery import Answer, Attempt
from invoicing.domain.invoice_mail import InvoiceMail

_TIMEOUT_SECONDS = 20.0


class SmtpMailer:
    """Sends through one server: `smtp://user:password@host:port` (STARTTLS if offered) or `smtps://…`."""

    def __init__(self, url: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        parts = urlsplit(url)
        self._tls = parts.scheme == "smtps"
        self._host, self._port = parts.hostname, parts.port or (465 if self._tls else 25)
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._timeout_seconds = timeout_seconds

    async def send(self, mail: InvoiceMail) -> Attempt:
        """Send a mail once."""
        try:
            # The library's timeout counts per command; the row is locked meanwhile, so the whole is bounded too.
            async with asyncio.timeout(3 * self._timeout_seconds):
                await aiosmtplib.send(
                    mail.as_message(),
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
            return Attempt(Answer.UNAVAILABLE, f"no answer: {type(error).__name__}: {str(error)[:200]}")
        except (ValueError, UnicodeError) as error:
            # An address that no message can be written to, such as one without a domain.
            return Attempt(Answer.REFUSED, f"not sendable: {error}"[:500])
        return Attempt(Answer.SENT)


def _judge(replies: list[tuple[int, str]]) -> Attempt:
    error = "; ".join(f"{code} {message}" for code, message in replies)[:500]
    for_good = all(500 <= code < 600 for code, _ in replies)
    return Attempt(Answer.REFUSED if for_good else Answer.UNAVAILABLE, error)
