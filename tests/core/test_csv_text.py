"""A CSV that people open in a spreadsheet: what it holds comes back, and nothing in it runs."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from core.csv_text import safe_cell, write_csv

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@given(st.lists(st.lists(texts, min_size=2, max_size=2), max_size=5))
def test_cells_come_back_and_none_begins_like_a_formula(rows: list[list[str]]) -> None:
    read = list(csv.reader(io.StringIO(write_csv(["a", "b"], rows), newline="")))
    assert read == [["a", "b"], *([safe_cell(cell) for cell in row] for row in rows)]
    for row in read:
        for cell in row:
            assert not cell.strip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "＝"))


def test_a_formula_becomes_text_and_plain_text_stays() -> None:
    assert [safe_cell(text) for text in ("=1+1", " @SUM(A1)", "-2", "gpt-4", "1.5", "")] == [
        "'=1+1", "' @SUM(A1)", "'-2", "gpt-4", "1.5", ""
    ]  # fmt: skip
