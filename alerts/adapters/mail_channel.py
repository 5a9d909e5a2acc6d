"""E-mail by SMTP. Owns how the server's URL is read and which replies are worth another try (RFC 5321 §4.2.1)."""

from __future__ import annotations

import asyncio
from datetime import datetime
from urllib.parse import unquote, urlsplit

import aiosmtplib

from alerts.domain.alert import Alert
from alerts.domain.alert_mail import build_alert_mail
from alerts.domain.retry import Answer, Attempt

_TIMEOUT_SECONDS = 10.0


class MailChannel:
    """Sends to one SMTP server: `smtp://user:password@host:port` (STARTTLS if offered) or `smtps://…`."""

    name = "email"

    def __init__(
        self, url: str, *, sender: str, recipients: tuple[str, ...], timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> None:
        parts = urlsplit(url)
        self._tls = parts.scheme == "smtps"
        self._host, self._port = parts.hostname, parts.port or (465 if self._tls else 25)
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._sender, self._recipients, self._timeout_seconds = sender, recipients, timeout_seconds

    async def send(self, alert: Alert, claimed_at: datetime) -> Attempt:
        """Send the mail once."""
        mail = build_alert_mail(alert, sender=self._sender, recipients=self._recipients, dated=claimed_at)
        try:
            # The library's timeout counts per command; the row is locked meanwhile, so the whole is bounded too.
            async with asyncio.timeout(3 * self._timeout_seconds):
                refused, _ = await aiosmtplib.send(
                    mail,
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
        # Some got it: sending again would tell those twice, so the others stand in the record.
        missed = "; ".join(f"{address}: {reply.code} {reply.message}" for address, reply in refused.items())
        return Attempt(Answer.SENT, missed[:500])

    async def close(self) -> None:
        """Nothing stays open between mails."""


def _judge(replies: list[tuple[int, str]]) -> Attempt:
    error = "; ".join(f"{code} {message}" for code, message in replies)[:500]
    for_good = all(500 <= code < 600 for code, _ in replies)
    return Attempt(Answer.REFUSED if for_good else Answer.UNAVAILABLE, error)
