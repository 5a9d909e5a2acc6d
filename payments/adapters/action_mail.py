"""Tells payers by e-mail, in their own language, where to authenticate or approve.

Owns words, Message-ID and which replies are final.
"""

from __future__ import annotations

from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Any
from zoneinfo import ZoneInfo

import aiosmtplib
from babel.dates import format_date, format_time
from babel.dates import format_datetime as format_instant
from babel.numbers import format_currency

from core.errors import Fault, InvalidInputError, UnavailableError
from core.ids import derive_id
from payments.domain.language import language_of
from payments.domain.payment import Payment
from payments.mail_texts import LOCALES, add_content, check_texts, one_line, texts_of
from payments.ports import Payer, PayerAction
from runtime.smtp import SmtpServer

_TIMEOUT_SECONDS = 10.0
_PACKAGE = "payments"
# Words are by provider, because the payer must recognise whose page the link leads to; cards are confirmed at the bank.
_BANK = "bank"


class ActionMail:
    """Implements `payments.ports.PayerNotice` over SMTP."""

    def __init__(self, url: str, *, sender: str, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._server, self._sender = SmtpServer(url, timeout_seconds=timeout_seconds), sender

    async def send_action_link(
        self, payer: Payer, payment: Payment, action: PayerAction, *, is_reminder: bool = False
    ) -> None:
        """Send the link; a server that refuses the address for good raises `InvalidInputError` (`mail_refused`)."""
        mail = build_action_mail(payer, payment, action, sender=self._sender, is_reminder=is_reminder)
        try:
            await self._server.transmit(mail)
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = [refusal.code for refusal in error.recipients]
            if all(500 <= code < 600 for code in codes):
                raise InvalidInputError([Fault("mail_refused", f"the address was refused: {codes}")]) from error
            raise UnavailableError(f"the mail server said {codes}") from error
        except aiosmtplib.SMTPResponseException as error:
            if 500 <= error.code < 600:
                raise InvalidInputError([Fault("mail_refused", f"{error.code} {error.message}"[:300])]) from error
            raise UnavailableError(f"the mail server said {error.code}") from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise UnavailableError(f"the mail server did not answer: {type(error).__name__}") from error


def build_action_mail(
    payer: Payer, payment: Payment, action: PayerAction, *, sender: str, is_reminder: bool = False
) -> EmailMessage:
    """Return the mail; the same payment always has the same Message-ID, so a second copy is seen as one."""
    ask = payment.provider if payment.provider in texts_of(_PACKAGE, "en")["asks"] else _BANK
    words = _words(payer, payment, action, ask)
    host = parseaddr(sender)[1].rpartition("@")[2] or "meterbook.invalid"
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = payer.email
    mail["Subject"] = words["reminder" if is_reminder else "subject"]
    cause = "reminder" if is_reminder else "action"
    mail["Message-ID"] = f"<{derive_id(cause, payment.payment_id)}@{host}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["Date"] = format_datetime(payment.created_at)
    add_content(mail, _PACKAGE, "action", words)
    return mail


def check_action_texts() -> None:
    """Stop loudly if a language lacks a text that another has."""
    check_texts(_PACKAGE)


def _words(payer: Payer, payment: Payment, action: PayerAction, ask: str) -> dict[str, Any]:
    language = language_of(payer.language)
    texts, locale = texts_of(_PACKAGE, language), LOCALES[language]
    amount = format_currency(payment.amount.amount, payment.amount.currency, locale=locale)
    until = _until(action.expires_at, payer.time_zone, locale)
    own = texts["asks"][ask]
    return {
        "language": language,
        "subject": own["subject"],
        "reminder": own["reminder"],
        "greeting": texts["greeting"].format(name=one_line(payer.name)),
        "lead": own["lead"].format(amount=amount),
        "link": texts["link"].format(until=until),
        "rows": [(texts["rows"]["amount"], amount), (texts["rows"]["until"], until)],
        "button": texts["button"][ask],
        "otherwise": texts["otherwise"],
        "url": action.url,
    }


def _until(instant: datetime, time_zone: str, locale: str) -> str:
    """Return an instant as the payer's clock shows it, with the zone: `4. November 2026, 11:00 MEZ`."""
    zone = ZoneInfo(time_zone)
    local = instant.astimezone(zone)
    day, hour = format_date(local, "long", locale=locale), format_time(local, "short", tzinfo=zone, locale=locale)
    return f"{day}, {hour} {format_instant(local, 'zzz', tzinfo=zone, locale=locale)}"
