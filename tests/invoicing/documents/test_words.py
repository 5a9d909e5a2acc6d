"""The words of documents: complete in every language, and figures and dates as its readers write them."""

from __future__ import annotations

import re
from datetime import UTC
from decimal import Decimal
from importlib import resources
from string import Formatter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BrokenInvariantError
from core.read_yaml import read_yaml
from invoicing.document_html import templates_folder
from invoicing.document_words import _PHRASES, Writer, direction_of, load_words, locale_of
from invoicing.domain.document import LANGUAGES
from tests.invoicing.documents.samples import ARABIC, EMOJI, HEBREW, LONG


def catalogue(language: str) -> dict[str, Any]:
    path = resources.files("invoicing") / "locales" / f"{language}.yaml"
    document, _ = read_yaml(path.read_bytes(), path.name)
    assert isinstance(document, dict)
    return document


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_there_is_a_catalogue_for_every_language_and_no_other() -> None:
    found = {path.name.removesuffix(".yaml") for path in (resources.files("invoicing") / "locales").iterdir()}
    assert found == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_language_lacks_a_text_or_says_less(language: str) -> None:
    english, other = catalogue("en"), catalogue(language)
    for part in ("texts", "units", "labels"):
        assert set(other[part]) == set(english[part]), part
    for part in ("texts", "labels"):
        for key, text in english[part].items():
            assert other[part][key].strip(), f"{language} {key} is empty"
            assert placeholders(other[part][key]) == placeholders(text), f"{language} {key}"
    assert all(len(forms) == 2 for forms in other["units"].values())
    assert set(other["labels"]) == set(_PHRASES)


@pytest.mark.parametrize("language", [one for one in LANGUAGES if one != "en"])
def test_a_text_is_not_left_in_english(language: str) -> None:
    english, other = catalogue("en")["texts"], catalogue(language)["texts"]
    # Words that are the same in both: names of standards, and what languages share.
    shared = {"iban", "bic", "bank", "plan", "total", "subtotal", "reference", "total_in", "tax_name_iva",
              "corrects_dated", "tax_name_AE", "tax_name_sales", "tax_name_S", "page_of", "note_export"}  # fmt: skip
    left = {key for key, text in other.items() if text == english[key]} - shared
    assert left == set()


def test_every_text_that_templates_ask_for_exists_and_every_text_is_asked_for() -> None:
    sources = "".join(path.read_text() for path in templates_folder().rglob("*.html"))
    sources += "".join((resources.files("invoicing") / name).read_text() for name in (
        "document_html.py", "document_words.py", "invoice_mail_text.py", "render_document.py", "adapters/pdf.py",
    ))  # fmt: skip
    asked = set(re.findall(r'"([a-z][A-Za-z_-]+)"', sources)) | set(re.findall(r"'([a-z][A-Za-z_-]+)'", sources))
    composed = ("note_", "tax_name_", "group_", "draft", "void")
    texts = catalogue("en")["texts"]
    assert {key for key in texts if key not in asked and not key.startswith(composed)} == set()
    in_templates = set(re.findall(r'\bt\("([a-z_A-Z]+)"', sources))
    assert in_templates
    assert in_templates <= set(texts)


def writer(language: str, country: str, currency: str = "EUR") -> Writer:
    return Writer(load_words(language), locale_of(language, country), currency, UTC)


@pytest.mark.parametrize(
    ("language", "country", "currency", "amount", "shown"),
    [
        ("en", "US", "USD", "1234.50", "$1,234.50"),
        ("de", "DE", "EUR", "1234.5", "1.234,50 €"),
        ("de", "CH", "CHF", "1234.50", "CHF 1’234.50"),
        ("es", "MX", "MXN", "1234.50", "$1,234.50"),
        ("es", "ES", "EUR", "12345.60", "12.345,60 €"),
        ("pt", "BR", "BRL", "-1234.50", "-R$ 1.234,50"),
        ("pt", "PT", "EUR", "12345.60", "12 345,60 €"),
        ("en", "JP", "JPY", "1234", "¥1,234"),
        ("en", "US", "KWD", "1.234", "KWD 1.234"),
        ("de", "XX", "EUR", "0", "0,00 €"),
        ("en", "DE", "EUR", "1234.50", "€1,234.50"),
        ("en", "IE", "EUR", "1234.50", "€1,234.50"),
        ("es", "US", "USD", "1234.50", "$1,234.50"),
        ("pt", "DE", "EUR", "12345.60", "12 345,60 €"),
    ],
)
def test_amounts_are_written_as_their_readers_do(
    language: str, country: str, currency: str, amount: str, shown: str
) -> None:
    assert re.sub(r"\s", " ", writer(language, country, currency).money(amount)) == shown


def test_an_amount_that_is_not_rounded_is_never_shown() -> None:
    with pytest.raises(BrokenInvariantError):
        writer("en", "US", "USD").money("1.005")
    with pytest.raises(BrokenInvariantError):
        writer("en", "US", "JPY").money("0.5")


@given(st.decimals(min_value=0, max_value=10**9, places=12))
def test_a_price_keeps_all_its_digits(price: Decimal) -> None:
    shown = writer("de", "DE").price(f"{price:f}")
    digits = shown.replace(".", "").replace("€", "").strip().replace(",", ".")
    assert Decimal(digits.strip()) == price


@pytest.mark.parametrize(
    ("language", "country", "shown"),
    [
        ("en", "US", "Oct 1 – 31, 2026"),
        ("de", "DE", "1.–31. Okt. 2026"),
        ("es", "ES", "1–31 oct 2026"),
        ("pt", "BR", "1 – 31 de out. de 2026"),
    ],
)
def test_a_period_is_written_from_its_first_day_to_its_last(language: str, country: str, shown: str) -> None:
    period = {"start": "2026-10-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"}
    assert writer(language, country).span(period) == shown
    day = {"start": "2026-10-01T00:00:00Z", "end": "2026-10-02T00:00:00Z"}
    assert "31" not in writer(language, country).span(day)


@pytest.mark.parametrize(
    ("label", "german"),
    [
        ("included, up to 100,000", "enthalten, bis 100.000"),
        ("beyond 10,000", "über 10.000 hinaus"),
        ("beyond the limit of 1,000, not charged", "über die Grenze von 1.000 hinaus, nicht berechnet"),
        ("0 to 1,000", "0 bis 1.000"),
        ("above 10,000.5", "über 10.000,5"),
        ("10 % off", "10 % Rabatt"),
        ("17/31 of the period", "17/31 des Zeitraums"),
        ("up to the minimum of 5,000, 17/31 of the period", "bis zum Mindestbetrag von 5.000, 17/31 des Zeitraums"),
        ("above the maximum of 99.5", "über dem Höchstbetrag von 99,5"),
        ("2.5 % of 1,000 to 2,000", "2,5 % von 1.000 bis 2.000"),
        ("gpt4", "gpt4"),
        ("region-007, eu", "region-007, eu"),
    ],
)
def test_what_rating_wrote_into_lines_is_translated_and_names_are_not(label: str, german: str) -> None:
    assert writer("de", "DE").label(label) == german
    assert writer("en", "US").label(label) == label


@pytest.mark.parametrize(
    ("name", "direction"),
    [(ARABIC, "rtl"), (HEBREW, "rtl"), (LONG, "ltr"), (EMOJI, "ltr"), ("🚀 12", "ltr"), ("🚀 אור", "rtl")],
)
def test_a_name_is_written_in_its_own_direction(name: str, direction: str) -> None:
    assert direction_of(name) == direction


def test_one_and_several_of_a_unit() -> None:
    german = writer("de", "DE")
    assert (german.unit("1", "execution"), german.unit("2", "execution")) == ("Ausführung", "Ausführungen")
    assert (german.unit("-1", "execution"), german.unit("2", "widget")) == ("Ausführung", "widget")
    assert (writer("en", "US").unit("2", "widget"), writer("en", "US").unit("2", "TB")) == ("widgets", "TB")
