"""CSV (RFC 4180) that is safe to open in a spreadsheet. Owns what a text cell may begin with."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

# A spreadsheet takes a cell that begins so for a formula and runs it; also in full width, as some of them read it.
_FORMULA_STARTS = tuple("=+-@\t\r\n\0＝＋－＠")


def safe_cell(text: str) -> str:
    """Return the text with an apostrophe before it if a spreadsheet would take it for a formula (OWASP's rule)."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA_STARTS) else text


def write_csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the rows under their header, every cell made safe."""
    written = io.StringIO()
    writer = csv.writer(written)
    for row in (header, *rows):
        writer.writerow([safe_cell(cell) for cell in row])
    return written.getvalue()
