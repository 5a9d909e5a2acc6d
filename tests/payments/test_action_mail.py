"""The mail that asks a payer to act: in the payer's language and time, one Message-ID per cause."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.message import EmailMessage

import pytest

from core.money import Money
from payments.adapters.action_mail import build_action_mail, check_action_texts
from payments.domain.language import LANGUAGES
from payments.domain.payment import Payment, PaymentStatus
from payments.ports import Payer, PayerAction

NOW = datetime(2026, 11, 4, 10, 0, tzinfo=UTC)
LINK = "https://hooks.stripe.example/a?b=1&c=2"


def mail(
    language: str = "en", *, provider: str = "stripe", name: str = "Zoë", zone: str = "UTC", **how: bool
) -> EmailMessage:
    amount = Money(Decimal("1234.50"), "EUR")
    payment = Payment("pay_1", "inv_1", "acme", 1, provider, amount, NOW, PaymentStatus.REQUIRES_ACTION)
    return build_action_mail(
        Payer("acme", name, "zoe@acme.example", language, zone),
        payment,
        PayerAction("pay_1", LINK, NOW + timedelta(days=3)),
        sender="Meterbook <billing@meterbook.example>",
        **how,
    )


def text_of(message: EmailMessage, kind: str = "plain") -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def test_no_language_lacks_a_text() -> None:
    check_action_texts()


@pytest.mark.parametrize(
    ("language", "zone", "subject", "amount", "until"),
    [
        ("en", "UTC", "Your bank asks you", "€1,234.50", "November 7, 2026, 10:00\u202fAM UTC"),
        ("de", "Europe/Berlin", "Ihre Bank bittet Sie", "1.234,50\xa0€", "7. November 2026, 11:00 MEZ"),
        ("es", "Europe/Madrid", "Su banco le pide", "1234,50\xa0€", "7 de noviembre de 2026, 11:00 CET"),
        ("pt", "Europe/Lisbon", "O seu banco pede-lhe", "1234,50\xa0€", "7 de novembro de 2026, 10:00 WET"),
    ],
)
def test_it_is_in_the_payers_language_and_time(language: str, zone: str, subject: str, amount: str, until: str) -> None:
    message = mail(language, zone=zone)
    assert message["Subject"].startswith(subject)
    assert message["Content-Language"] == language
    text = text_of(message)
    # Spanish and Portuguese group four digits or not, by the version of the locale's data.
    assert amount in text.replace("1.234", "1234" if language == "es" else "1.234").replace("1\xa0234", "1234")
    assert until in " ".join(text.split(" "))
    assert LINK in text.splitlines(), "the link stands alone, so that no program breaks it"
    assert f'lang="{language}"' in text_of(message, "html")
    assert LINK.replace("&", "&amp;") in text_of(message, "html")


def test_a_language_without_texts_is_written_to_in_english() -> None:
    assert mail("fr")["Subject"] == mail("en")["Subject"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_cause_has_its_words_and_its_id(language: str) -> None:
    messages = [
        mail(language, provider=provider, is_reminder=again)
        for provider in ("stripe", "paypal")
        for again in (False, True)
    ]
    assert len({message["Subject"] for message in messages}) == 4
    assert [message["Message-ID"] for message in messages[:2]] == [message["Message-ID"] for message in messages[2:]]
    assert messages[0]["Message-ID"] != messages[1]["Message-ID"]
    assert "PayPal" in text_of(messages[2])


def test_a_name_cannot_bring_lines_or_markup_in() -> None:
    message = mail(name="Eve\n\nPay to: <b>evil</b> {amount}")
    assert "Dear Eve Pay to: <b>evil</b> {amount}," in text_of(message)
    assert "&lt;b&gt;evil" in text_of(message, "html")
