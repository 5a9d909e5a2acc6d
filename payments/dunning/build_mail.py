"""Puts a mail of dunning into words: text and HTML in four languages. Owns formats of amounts and days in them."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from babel.dates import format_date
from babel.numbers import format_currency

from core.errors import must_hold
from core.read_yaml import read_yaml
from payments.dunning.domain.reminder import LANGUAGES, Reminder

_LOCALES = {"en": "en_US", "es": "es_ES", "pt": "pt_PT", "de": "de_DE"}


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
    mail.set_content(_render("reminder.txt", words))
    mail.add_alternative(_render("reminder.html", words), subtype="html")
    # Only now: what is said of the content before moves into its first part.
    mail["Content-Language"] = reminder.language
    return mail


def _words(reminder: Reminder) -> dict[str, Any]:
    texts, locale = texts_of(reminder.language), _LOCALES[reminder.language]
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
        "greeting": texts["greeting"].format(name=_one_line(reminder.name)),
        "paragraphs": [one.format(**facts) for one in paragraphs],
        "rows": rows,
        "width": max(len(name) for name, _ in rows) + 2,
    }


@cache
def texts_of(language: str) -> dict[str, Any]:
    """Return a language's texts."""
    name = f"{language}.yaml"
    document, _ = read_yaml((resources.files("payments.dunning") / "texts" / name).read_bytes(), name)
    must_hold(isinstance(document, dict), f"{name} has no texts")
    found: dict[str, Any] = document
    return found


@cache
def _template(name: str) -> jinja2.Template:
    source = (resources.files("payments.dunning") / "templates" / name).read_text()
    environment = jinja2.Environment(
        autoescape=name.endswith(".html"), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    return environment.from_string(source)


def _render(name: str, words: dict[str, Any]) -> str:
    return _template(name).render(words)


def _day(text: str, locale: str) -> str:
    return format_date(date.fromisoformat(text), format="long", locale=locale) if text else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def check_texts() -> None:
    """Stop loudly if a language lacks a text that another has."""
    keys = {language: _keys(texts_of(language)) for language in LANGUAGES}
    for language, own in keys.items():
        must_hold(own == keys["en"], f"{language}: {sorted(own ^ keys['en'])} differ from English")


def _keys(texts: Any, path: str = "") -> set[str]:
    if not isinstance(texts, dict):
        return {path}
    return {key for name, inner in texts.items() for key in _keys(inner, f"{path}.{name}")}
