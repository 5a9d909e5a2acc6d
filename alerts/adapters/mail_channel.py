"""The e-mail channel: alerts to the addresses that the settings name."""

from __future__ import annotations

from datetime import datetime

from alerts.domain.alert import Alert
from alerts.domain.alert_mail import build_alert_mail
from alerts.domain.retry import Answer, Attempt
from runtime.smtp import SmtpServer

_TIMEOUT_SECONDS = 10.0


class MailChannel:
    """Sends to one SMTP server."""

    name = "email"

    def __init__(
        self, url: str, *, sender: str, recipients: tuple[str, ...], timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> None:
        self._server = SmtpServer(url, timeout_seconds=timeout_seconds)
        self._sender, self._recipients = sender, recipients

    async def send(self, alert: Alert, claimed_at: datetime) -> Attempt:
        """Send the mail once."""
        mail = build_alert_mail(alert, sender=self._sender, recipients=self._recipients, dated=claimed_at)
        outcome, said = await self._server.send(mail)
        return Attempt(Answer(outcome.value), said)

    async def close(self) -> None:
        """Nothing stays open between mails."""
