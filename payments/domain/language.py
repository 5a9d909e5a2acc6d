"""The languages that payers are written to in. Pure."""

from __future__ import annotations

LANGUAGES = ("en", "es", "pt", "de")


def language_of(wanted: str) -> str:
    """Return the language to write in; English where there are no texts."""
    return wanted if wanted in LANGUAGES else "en"
