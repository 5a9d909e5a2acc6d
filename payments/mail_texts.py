"""What mails to payers are put together from: a catalogue of texts per language, and templates for text and HTML.

Owns how both are read, and that no language lacks a text that another has.
"""

from __future__ import annotations

from email.message import EmailMessage
from functools import cache
from importlib import resources
from typing import Any

import jinja2

from core.errors import must_hold
from core.read_yaml import read_yaml
from payments.domain.language import LANGUAGES

# As Babel writes amounts and days in each language.
LOCALES = {"en": "en_US", "es": "es_ES", "pt": "pt_PT", "de": "de_DE"}


@cache
def texts_of(package: str, language: str) -> dict[str, Any]:
    """Return a language's texts, from the folder `texts` of a package."""
    name = f"{language}.yaml"
    document, _ = read_yaml((resources.files(package) / "texts" / name).read_bytes(), name)
    must_hold(isinstance(document, dict), f"{package}: {name} has no texts")
    found: dict[str, Any] = document
    return found


def check_texts(package: str) -> None:
    """Stop loudly if a language lacks a text that another has."""
    keys = {language: _keys(texts_of(package, language)) for language in LANGUAGES}
    for language, own in keys.items():
        must_hold(own == keys["en"], f"{package}, {language}: {sorted(own ^ keys['en'])} differ from English")


def add_content(mail: EmailMessage, package: str, template: str, words: dict[str, Any]) -> None:
    """Give a mail its text and its HTML, from the templates of a package and words in `words["language"]`."""
    mail.set_content(_template(package, f"{template}.txt").render(words))
    mail.add_alternative(_template(package, f"{template}.html").render(words), subtype="html")
    # Only now: what is said of the content before moves into its first part.
    mail["Content-Language"] = words["language"]


def one_line(text: str) -> str:
    """Return a name as a greeting can bear it."""
    return " ".join(text.split())


@cache
def _template(package: str, name: str) -> jinja2.Template:
    source = (resources.files(package) / "templates" / name).read_text()
    environment = jinja2.Environment(
        autoescape=name.endswith(".html"), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    return environment.from_string(source)


def _keys(texts: Any, path: str = "") -> set[str]:
    if not isinstance(texts, dict):
        return {path}
    return {key for name, inner in texts.items() for key in _keys(inner, f"{path}.{name}")}
