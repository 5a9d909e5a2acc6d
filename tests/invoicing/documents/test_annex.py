"""The usage annex: every figure stands beside its day, whatever the size of the period and of the figures."""

from __future__ import annotations

import io
import re
from datetime import date, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Any
from zoneinfo import ZoneInfo

import pypdfium2
import pytest
from babel.localedata import locale_identifiers
from fontTools.ttLib import TTFont
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing.document_annex import UsageTable, usage_tables
from invoicing.document_figures import ADVANCES, DIGIT
from invoicing.document_html import templates_folder
from invoicing.document_words import Writer, load_words
from invoicing.domain.document import LANGUAGES
from invoicing.render_document import render_document
from tests.invoicing.documents.samples import snapshot

pytestmark = pytest.mark.slow

WRITER = Writer(load_words("en"), "en_US", "EUR", ZoneInfo("UTC"))
MONTH = {"period_start": "2026-10-01T00:00:00Z", "period_end": "2026-11-01T00:00:00Z"}
YEAR = {"period_start": "2026-01-01T00:00:00Z", "period_end": "2027-01-01T00:00:00Z"}


def column(days: dict[date, Decimal]) -> dict[str, Any]:
    total = sum(days.values(), Decimal(0))
    listed = [[day.isoformat(), f"{quantity:f}"] for day, quantity in days.items()]
    return {"title": "CPU", "dimensions": [], "unit": "GB", "total": f"{total:f}", "events": "1", "days": listed}


def read(table: UsageTable) -> dict[tuple[int, str], str]:
    """Return what stands in a column beside a day's label."""
    found: dict[tuple[int, str], str] = {}
    for block in table.blocks:
        for day, figures in zip(block.days, block.figures, strict=True):
            shown = re.split("[ \N{EN SPACE}\N{THIN SPACE}]+", figures)
            assert not shown[0], "a gap comes first"
            assert len(shown) == len(table.columns) + 1
            found |= {(number, day): quantity for number, quantity in enumerate(shown[1:])}
    return found


quantities = st.decimals(min_value=0, max_value=10**18, places=6, allow_nan=False)
in_month = st.dictionaries(st.dates(date(2026, 10, 1), date(2026, 10, 31)), quantities, max_size=31)
in_year = st.dictionaries(st.dates(date(2025, 12, 1), date(2026, 12, 31)), quantities, min_size=1, max_size=90)


@settings(max_examples=25)
@given(st.lists(in_month, min_size=1, max_size=9))
def test_a_month_has_a_row_for_each_day_and_nothing_is_lost(months: list[dict[date, Decimal]]) -> None:
    columns = [column(days) for days in months]
    tables = list(usage_tables(columns, MONTH, WRITER))
    assert [one for table in tables for one in table.columns] == columns
    rest = list(months)
    for table in tables:
        assert table.width_mm <= 174, "it fits the page"
        shown = read(table)
        for number, days in enumerate(rest[: len(table.columns)]):
            for offset in range(31):
                day = date(2026, 10, 1) + timedelta(days=offset)
                expected = WRITER.number(f"{days[day]:f}") if day in days else "–"
                assert shown[number, WRITER.weekday(day)] == expected
        rest = rest[len(table.columns) :]


@settings(max_examples=25)
@given(in_year)
def test_a_longer_period_has_rows_for_days_with_usage_that_stay_together_by_weeks(days: dict[date, Decimal]) -> None:
    (table,) = usage_tables([column(days)], YEAR, WRITER)
    assert [label for block in table.blocks for label in block.days] == [WRITER.weekday(day) for day in sorted(days)]
    if len(days) > 31:
        assert max(len(block.days) for block in table.blocks) <= 7


def test_a_year_fills_its_pages_and_every_figure_is_on_its_days_line() -> None:
    days = [date(2026, 1, 1) + timedelta(days=offset) for offset in range(365)]
    shown = snapshot()
    shown["invoice"] |= YEAR
    wide = column({days[6]: Decimal("123456789012345.123456789012")})
    narrow = column({day: Decimal(1000 + number) for number, day in enumerate(days)})
    shown["annex"]["tables"] = [narrow, wide]
    pages = lines_of_pages(render_document(shown).pdf)
    assert len(pages) <= 9
    for day, line in (("Thu, Jan 1", "1,000 –"), ("Wed, Jan 7", "1,006 123,456,789,012,345.123456789012")):
        assert f"{day} {line}" in pages[1]
    assert "Thu, Dec 31 1,364 –" in pages[-1] + pages[-2]


def lines_of_pages(pdf: bytes) -> list[list[str]]:
    """Return what stands on one height as a line, from left to right, for each page."""
    found = []
    for page in pypdfium2.PdfDocument(io.BytesIO(pdf)):
        text = page.get_textpage()
        rows: dict[int, list[tuple[float, str]]] = {}
        for number in range(text.count_rects()):
            left, bottom, right, top = text.get_rect(number)
            middle = round((bottom + top) / 2 / 4)
            rows.setdefault(middle, []).append((left, text.get_text_bounded(left, bottom, right, top).strip()))
        found.append([" ".join(" ".join(one for _, one in sorted(row)).split()) for row in rows.values()])
    return found


def test_widths_of_glyphs_are_those_of_the_bundled_font() -> None:
    font = TTFont(templates_folder() / "fonts/inter-latin-400-normal.ttf")
    substitutions = font["GSUB"].table
    (tabular,) = {
        index
        for record in substitutions.FeatureList.FeatureRecord
        if record.FeatureTag == "tnum"
        for index in record.Feature.LookupListIndex
    }
    (lookup,) = substitutions.LookupList.Lookup[tabular].SubTable
    tabular_of, named, widths = getattr(lookup, "ExtSubTable", lookup).mapping, font.getBestCmap(), font["hmtx"]
    assert font["head"].unitsPerEm == 2048

    def advance(character: str) -> int:
        glyph = named[ord(character)]
        return int(widths[tabular_of.get(glyph, glyph)][0])

    assert {character: advance(character) for character in ADVANCES} == ADVANCES
    assert {advance(str(digit)) for digit in range(10)} == {ADVANCES[DIGIT]}


def test_every_locale_of_a_language_writes_figures_with_glyphs_whose_width_is_known() -> None:
    locales = [one for one in locale_identifiers() if one.split("_")[0] in LANGUAGES]
    assert len(locales) > 100
    known = set(ADVANCES) | set("0123456789") | {"\N{NARROW NO-BREAK SPACE}"}
    for locale in locales:
        shown = Writer(load_words("en"), locale, "EUR", ZoneInfo("UTC")).number("1234567.25")
        assert set(shown) <= known, locale


@pytest.mark.parametrize(("language", "country"), [("en", "US"), ("de", "CH"), ("pt", "PT"), ("es", "ES")])
def test_figures_end_where_their_columns_do(language: str, country: str) -> None:
    days = [date(2026, 10, 1) + timedelta(days=offset) for offset in range(31)]
    sizes = [Decimal(number**7) / 64 for number in range(1, 32)]
    columns = [column(dict(zip(days, sizes[at:] + sizes[:at], strict=True))) for at in (0, 7, 20)]
    shown = snapshot(bill_to={**snapshot()["bill_to"], "country": country}, language=language)
    shown["annex"]["tables"] = columns
    ends: dict[int, int] = {}
    for _, right in figures_of_page(render_document(shown).pdf, 1):
        ends[round(right * 10)] = ends.get(round(right * 10), 0) + 1
    # Widths as the table asks for them: the days, then each column.
    (table,) = usage_tables(
        columns, MONTH, Writer(load_words(language), f"{language}_{country}", "EUR", ZoneInfo("UTC"))
    )
    for end in accumulate(table.widths_mm, initial=table.day_mm):
        if end == table.day_mm:
            continue
        near = sum(count for tenth, count in ends.items() if abs(tenth / 10 - end) <= 0.15)
        assert near >= 33, f"31 days, total and events end at {end} mm: {ends}"


def figures_of_page(pdf: bytes, number: int) -> list[tuple[str, float]]:
    """Return words of a page with the millimetres from its left margin to where they end."""
    text = pypdfium2.PdfDocument(io.BytesIO(pdf))[number].get_textpage()
    words: list[tuple[str, float]] = []
    word, end, line = "", 0.0, 0.0
    for index in range(text.count_chars()):
        character = text.get_text_range(index, 1)
        _, bottom, right, _ = text.get_charbox(index, loose=True)
        if word and (character in " \r\n\N{EN SPACE}\N{THIN SPACE}" or abs(bottom - line) > 1):
            words.append((word, end * 25.4 / 72 - 18))
            word = ""
        if character.strip():
            word, end, line = word + character, right, bottom
    return words
