"""Sends the mails that carry documents."""

from __future__ import annotations

from invoicing.domain.delivery import Answer, Attempt
from invoicing.domain.invoice_mail import InvoiceMail
from runtime.smtp import SmtpServer

_TIMEOUT_SECONDS = 20.0


class SmtpMailer:
    """Sends through one SMTP server."""

    def __init__(self, url: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._server = SmtpServer(url, timeout_seconds=timeout_seconds)

    async def send(self, mail: InvoiceMail) -> Attempt:
        """Send a mail once."""
        try:
            outcome, said = await self._server.send(mail.as_message())
        except (ValueError, UnicodeError) as error:
            # An address that no message can be written to, such as one without a domain.
            return Attempt(Answer.REFUSED, f"not sendable: {error}"[:500])
        return Attempt(Answer(outcome.value), said)
