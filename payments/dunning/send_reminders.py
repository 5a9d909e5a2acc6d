"""Sends the mails of dunning: each until the server has it, with one Message-ID however often it is tried.

The mail is held from the try to its record, so two workers never send the same one. Only a crash between the server's
answer and our record sends it twice, as one message by its id. What was paid meanwhile is not reminded of any more.
"""

from __future__ import annotations

from datetime import timedelta

import structlog
from prometheus_client import Counter

from core.clock import Clock
from payments.dunning.build_mail import build_mail
from payments.dunning.domain.reminder import is_given_up, retry_pause_seconds
from payments.dunning.ports import Answer, MailQueue, MailServer, WaitingMail

_MAILS = Counter("meterbook_dunning_mails_total", "Tries to send a mail of dunning", ["outcome"])
log = structlog.get_logger()


async def send_next_reminder(*, queue: MailQueue, server: MailServer, sender: str, clock: Clock) -> bool:
    """Try the most overdue mail; False if none was due."""
    async with queue.hold_due(clock.now()) as held:
        if held is None:
            return False
        mail = held.mail
        if not mail.is_wanted:
            status, error = "dropped", "the invoice is open no more"
        else:
            status, error = await _try(mail, server, sender, clock)
        now = clock.now()
        pause = timedelta(seconds=retry_pause_seconds(mail.attempts + 1))
        await held.record(status, now + pause if status == "pending" else now, error, now)
    _MAILS.labels(status).inc()
    level = log.info if status in {"sent", "dropped"} else log.error if status == "refused" else log.warning
    level("dunning.mail", message_id=mail.message_id, invoice=mail.invoice_id, status=status, error=error[:300])
    return True


async def _try(mail: WaitingMail, server: MailServer, sender: str, clock: Clock) -> tuple[str, str]:
    try:
        message = build_mail(mail.reminder, message_id=mail.message_id, sender=sender, dated=mail.created_at)
    except ValueError as error:
        # An address or a name that no header can hold: it blocks nobody behind it.
        return "refused", f"no mail can be made of it: {error}"
    answer, error_text = await server.send(message)
    if answer is Answer.REFUSED and is_given_up(mail.created_at, mail.attempts + 1, clock.now()):
        return "refused", error_text
    return ("sent" if answer is Answer.SENT else "pending"), error_text
