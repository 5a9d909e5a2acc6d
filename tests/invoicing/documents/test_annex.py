"""The usage annex: every figure stands beside its day, whatever the size of the period and of the figures."""

from __future__ import annotations

import io
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pypdfium2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing.document_annex import UsageTable, usage_tables
from invoicing.document_words import Writer, load_words
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
        for number, shown in enumerate(block.columns):
            assert len(shown) == len(block.days)
            found |= {(number, day): quantity for day, quantity in zip(block.days, shown, strict=True)}
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
        found.append([" ".join(one for _, one in sorted(row)) for row in rows.values()])
    return found
