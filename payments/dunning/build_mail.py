"""Puts a mail of dunning into words: text and HTML in four languages. Owns formats of amounts and days in them."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Any

from babel.dates import format_date
from babel.numbers import format_currency

from payments import mail_texts
from payments.dunning.domain.reminder import Reminder
from payments.mail_texts import LOCALES, add_content, one_line, texts_of

_PACKAGE = "payments.dunning"


def build_mail(reminder: Reminder, *, message_id: str, sender: str, dated: datetime) -> EmailMessage:
    """Return the message; `dated` is when its step was taken, so that a repeat is the same."""
    words = _words(reminder)
    host = parseaddr(sender)[1].rpartition("@")[2] or "meterbook.invalid"
    mail = EmailMessage()
    mail["Subject"] = words["subject"]
    mail["From"] = sender
    mail["To"] = reminder.email
    mail["Date"] = format_datetime(dated)
    mail["Message-ID"] = f"<{message_id}@{host}>"
    # RFC 3834: no out-of-office replies to a machine.
    mail["Auto-Submitted"] = "auto-generated"
    add_content(mail, _PACKAGE, "reminder", words)
    return mail


def _words(reminder: Reminder) -> dict[str, Any]:
    texts, locale = texts_of(_PACKAGE, reminder.language), LOCALES[reminder.language]
    facts = {
        "number": reminder.number,
        "amount": format_currency(Decimal(reminder.amount_open), reminder.currency, locale=locale),
        "due": _day(reminder.due_on, locale),
        "next": _day(reminder.next_on, locale),
        "reference": reminder.reference,
    }
    own = texts["kinds"][reminder.kind]
    paragraphs = [own["lead"]]
    if reminder.next_on and "next" in own:
        paragraphs.append(own["next"])
    paragraphs.append(texts["by_transfer"] if reminder.reference else texts["by_method"])
    if reminder.kind != "suspension":
        paragraphs.append(texts["ignore"])
    rows = [(texts["rows"][name], facts[name]) for name in ("number", "amount", "due", "reference") if facts[name]]
    return {
        "language": reminder.language,
        "subject": own["subject"].format(**facts),
        "greeting": texts["greeting"].format(name=one_line(reminder.name)),
        "paragraphs": [one.format(**facts) for one in paragraphs],
        "rows": rows,
        "width": max(len(name) for name, _ in rows) + 2,
    }


def _day(text: str, locale: str) -> str:
    return format_date(date.fromisoformat(text), format="long", locale=locale) if text else ""


def check_texts() -> None:
    """Stop loudly if a language lacks a text that another has."""
    mail_texts.check_texts(_PACKAGE)
