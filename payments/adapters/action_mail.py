"""Tells payers by e-mail where to authenticate or approve. Owns words, Message-ID and which replies are final."""

from __future__ import annotations

from email.message import EmailMessage
from email.utils import format_datetime, parseaddr

import aiosmtplib

from core.errors import Fault, InvalidInputError, UnavailableError
from core.ids import derive_id
from core.money import Money
from payments.domain.payment import Payment
from payments.ports import Payer, PayerAction
from runtime.smtp import SmtpServer

_TIMEOUT_SECONDS = 10.0
# Subject, and who wants what; by provider, because the payer must recognise whose page the link leads to.
_BANK = ("Your bank asks you to confirm a payment", "your bank wants you to confirm the payment of")
_WORDS = {"paypal": ("Please approve a payment at PayPal", "please approve at PayPal the payment of")}


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
    host = parseaddr(sender)[1].rpartition("@")[2] or "meterbook.invalid"
    subject, request = _WORDS.get(payment.provider, _BANK)
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = payer.email
    mail["Subject"] = f"Reminder: {subject[0].lower()}{subject[1:]}" if is_reminder else subject
    cause = "reminder" if is_reminder else "action"
    mail["Message-ID"] = f"<{derive_id(cause, payment.payment_id)}@{host}>"
    mail["Auto-Submitted"] = "auto-generated"
    until = action.expires_at.strftime("%Y-%m-%d %H:%M UTC")
    mail.set_content(
        f"Dear {payer.name},\n\n"
        f"{request} {_amount(payment.amount)}.\n"
        f"Please follow this link until {until}:\n\n"
        f"{action.url}\n\n"
        f"Without it the payment cannot be made, and we will ask you for another way to pay.\n"
    )
    mail["Date"] = format_datetime(payment.created_at)
    return mail


def _amount(amount: Money) -> str:
    return f"{amount.amount:f} {amount.currency}"
