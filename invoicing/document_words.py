"""The words of a document in its language, and how it writes figures and dates. Figures themselves are the snapshot's.

The catalogues (`locales/LANGUAGE.yaml`) hold texts, units, and the phrases that rating writes into lines; a name of a
plan or a charge is the seller's own and stays as it is. Numbers and dates are CLDR's, by Babel.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from importlib import resources
from typing import Any
from unicodedata import bidirectional

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_interval, format_skeleton
from babel.languages import get_official_languages
from babel.numbers import format_currency, format_decimal, format_percent

from core.errors import must_hold
from core.money import minor_units
from core.read_yaml import read_yaml

_CODE_BEFORE_DIGIT = re.compile(r"(?<=[A-Z])(?=\d)")
# What a language alone means. Portuguese and Spanish differ most between continents.
_REGIONS = {"en": "en_US", "es": "es_ES", "pt": "pt_PT", "de": "de_DE"}
_NUMBER = r"(\d+(?:,\d{3})*(?:\.\d+)?)"
# How rating words what it writes after a charge's name, by the key of its translation; `{}` is a number. The longer
# wording comes first where one begins like another.
_PHRASES = {
    "included": "included, up to {}",
    "beyond_limit": "beyond the limit of {}, not charged",
    "beyond_commitment": "beyond the commitment of {}, at {} %",
    "beyond": "beyond {}",
    "free": "free, up to {}",
    "off": "{} % off",
    "minimum": "up to the minimum of {}",
    "commitment": "up to the commitment of {}",
    "not_counted": "{} % not counted",
    "maximum": "above the maximum of {}",
    "all_range": "all units, total {} to {}",
    "all_above": "all units, total above {}",
    "packages": "packages of {}",
    "percent_of_range": "{} % of {} to {}",
    "percent_of_above": "{} % of above {}",
    "percent_of_events": "{} % of {} events?",
    "share": "{}/{} of the period",
    "range": "{} to {}",
    "above": "above {}",
    "not_named": "not named",
}
_PATTERNS = {key: re.compile(rf"(?<![\w.,]){phrase.replace('{}', _NUMBER)}(?!\w)") for key, phrase in _PHRASES.items()}


@dataclass(frozen=True, slots=True)
class Words:
    """One language's catalogue."""

    language: str
    texts: Mapping[str, str]
    units: Mapping[str, tuple[str, str]]
    labels: Mapping[str, str]

    def text(self, key: str, /, **values: object) -> str:
        """Return a text with its values filled in; a key that is missing is our own mistake and raises `KeyError`."""
        text = self.texts[key]
        return text.format(**values) if values else text

    def has(self, key: str) -> bool:
        """Tell whether there is such a text."""
        return key in self.texts

    def tax_note(self, tax: Mapping[str, Any]) -> str:
        """Say why a group of lines is not charged as usual: in this language where there is a text, else as stored.

        "" for ordinary tax. What a seller or a tenant's exemption says in own words is kept.
        """
        keys = (f"note_{tax.get('note_code') or ''}", f"note_{tax['category']}")
        own = tax.get("note") or ""
        if own and not self.has(keys[0]):
            return str(own)
        key = next((key for key in keys if self.has(key)), None)
        return self.text(key, place=tax.get("place") or "", note=own) if key else ""


@functools.cache
def load_words(language: str) -> Words:
    """Return the catalogue of a language."""
    name = f"{language}.yaml"
    document, _ = read_yaml((resources.files("invoicing") / "locales" / name).read_bytes(), name)
    assert isinstance(document, dict)
    units = {unit: (forms[0], forms[1]) for unit, forms in document["units"].items()}
    return Words(language, document["texts"], units, document["labels"])


def locale_of(language: str, country: str) -> str:
    """Return the locale in which a reader of the language in the country writes figures, such as `de_CH`.

    Where the language is not one of the country's own, its home's: an English invoice to Germany is written as at home.
    """
    own = get_official_languages(country, regional=True, de_facto=True)
    if language not in own:
        return _REGIONS[language]
    try:
        return str(Locale.parse(f"{language}_{country}"))
    except (UnknownLocaleError, ValueError):
        return _REGIONS[language]


class Writer:
    """Writes amounts, quantities, dates and names the way readers of one locale do."""

    def __init__(self, words: Words, locale: str, currency: str, zone: tzinfo) -> None:
        self._words, self._locale, self._currency, self._zone = words, locale, currency, zone
        self._territories = Locale.parse(locale).territories

    def money(self, amount: str, currency: str | None = None) -> str:
        """Write an amount. It must be rounded to the minor unit already: nothing is rounded for the eye."""
        unit = currency or self._currency
        exponent = Decimal(amount).normalize().as_tuple().exponent
        must_hold(isinstance(exponent, int) and -exponent <= minor_units(unit), f"{amount} {unit} is not rounded")
        return self._money(f"{Decimal(amount):.{minor_units(unit)}f}", unit)

    def price(self, amount: str) -> str:
        """Write a price with all its digits."""
        return self._money(amount, self._currency)

    def _money(self, amount: str, currency: str) -> str:
        shown = format_currency(Decimal(amount), currency, locale=self._locale, decimal_quantization=False)
        # CLDR sets a space between a code and its digits ("KWD 1.234"), which Babel leaves out.
        return _CODE_BEFORE_DIGIT.sub("\N{NO-BREAK SPACE}", shown)

    def number(self, quantity: str | int) -> str:
        """Write a quantity with all its digits."""
        return format_decimal(Decimal(quantity), locale=self._locale, decimal_quantization=False)

    def rate(self, percent: str) -> str:
        """Write a rate in percent with all its digits."""
        return format_percent(Decimal(percent) / 100, locale=self._locale, decimal_quantization=False)

    def day(self, instant: str) -> str:
        """Write the day that holds an instant."""
        return format_date(self.local_day(instant), format="long", locale=self._locale)

    def calendar_day(self, day: str) -> str:
        """Write a calendar day (`2026-10-31`)."""
        return format_date(date.fromisoformat(day), format="medium", locale=self._locale)

    def span(self, period: Mapping[str, Any]) -> str:
        """Write a half-open period from its first day to its last."""
        first, last = self.local_day(period["start"]), self.last_day(period["end"])
        if first == last:
            return format_date(first, format="medium", locale=self._locale)
        return str(format_interval(first, last, "yMMMd", locale=self._locale)).replace("\N{THIN SPACE}", " ")

    def weekday(self, day: date) -> str:
        """Write a day of the usage annex, with its weekday."""
        return str(format_skeleton("MMMEd", day, locale=self._locale))

    def country(self, code: str) -> str:
        """Return a country's name."""
        return str(self._territories.get(code, code))

    def plural(self, unit: str) -> str:
        """Say several of a unit; abbreviations stay as they are, and so do units that no catalogue knows."""
        if unit in self._words.units:
            return self._words.units[unit][1]
        return unit if unit.isupper() or self._words.language != "en" else f"{unit}s"

    def unit(self, quantity: str, unit: str) -> str:
        """Say a unit as it stands after a quantity."""
        return self.one(unit) if abs(Decimal(quantity)) == 1 else self.plural(unit)

    def one(self, unit: str) -> str:
        """Say one of a unit."""
        return self._words.units[unit][0] if unit in self._words.units else unit

    def label(self, text: str) -> str:
        """Translate what rating wrote after a charge's name; what is not its wording stays as it is."""
        for key, pattern in _PATTERNS.items():
            text = pattern.sub(functools.partial(self._phrase, key), text)
        return text

    def _phrase(self, key: str, found: re.Match[str]) -> str:
        numbers = [self.number(number.replace(",", "")) for number in found.groups()]
        return self._words.labels[key].format(**dict(zip("abc", numbers, strict=False)))

    def local_day(self, instant: str) -> date:
        """Return the day that holds an instant."""
        return datetime.fromisoformat(instant).astimezone(self._zone).date()

    def last_day(self, end: str) -> date:
        """Return the day that holds the last moment before a period's end."""
        return (datetime.fromisoformat(end) - timedelta(minutes=1)).astimezone(self._zone).date()


def direction_of(text: str) -> str:
    """Return `rtl` where a text begins in a script that is written from the right, else `ltr` (UAX #9, P2 and P3)."""
    for char in text:
        kind = bidirectional(char)
        if kind in ("L", "R", "AL"):
            return "ltr" if kind == "L" else "rtl"
    return "ltr"
