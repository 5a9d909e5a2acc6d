"""The usage annex of a document: a row for each day, a column for each table. Owns how its tables are cut to the page.

The days are one cell of many lines, the figures another with all columns in a line, and what is drawn behind the lines
is one picture. A cell for every figure takes half of the time of a document.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate
from math import ceil
from typing import Any

from invoicing.document_figures import figures_line
from invoicing.document_words import Writer

_SATURDAY = 5
_DAYS_MAX, _WEEK = 31, 7
_PAGE_MM, _DAY_MM, _COLUMN_MM = 174, 20, 25
# Of a table's 6.8 pt: what a letter of a day's name takes, and a digit of a total, which is set bolder and larger.
_LETTER_MM, _DIGIT_MM, _GAP_MM = 1.25, 1.7, 3
_NO_USAGE = "–"
# As part of a row: .5 pt of 11.46 pt.
_RULE = 0.0436
_WASH, _LINE = "#f6f8fa", "#e3e7ec"


@dataclass(frozen=True, slots=True)
class Block:
    """Days that stay together on a page: for each its label and a line of figures; and what is drawn behind them."""

    days: Sequence[str]
    figures: Sequence[str]
    grid: str


@dataclass(frozen=True, slots=True)
class UsageTable:
    """As many columns as fit beside each other, with their widths in millimetres."""

    columns: Sequence[Mapping[str, Any]]
    widths_mm: Sequence[int]
    day_mm: int
    blocks: Sequence[Block]

    @property
    def width_mm(self) -> int:
        """All columns and the days."""
        return self.day_mm + sum(self.widths_mm)


def usage_tables(
    columns: Sequence[Mapping[str, Any]], invoice: Mapping[str, Any], writer: Writer
) -> Iterator[UsageTable]:
    """Yield the tables of the annex: one row per day of the period, and `–` where there was no usage.

    A longer period than a month, or usage of another one, gets rows only for days with usage.
    """
    widths = [_width(column, writer) for column in columns]
    first = 0
    while first < len(columns):
        last = first + 1
        while last < len(columns) and _DAY_MM + sum(widths[first : last + 1]) <= _PAGE_MM:
            last += 1
        yield _table(columns[first:last], widths[first:last], invoice, writer)
        first = last


def _width(column: Mapping[str, Any], writer: Writer) -> int:
    shown = (column["total"], column["events"], *(quantity for _, quantity in column["days"]))
    longest = max(len(writer.number(quantity)) for quantity in shown)
    return min(_PAGE_MM - _DAY_MM, max(_COLUMN_MM, ceil(longest * _DIGIT_MM) + _GAP_MM))


def _table(
    columns: Sequence[Mapping[str, Any]], widths: Sequence[int], invoice: Mapping[str, Any], writer: Writer
) -> UsageTable:
    used = [{date.fromisoformat(row[0]): row[1] for row in column["days"]} for column in columns]
    days = sorted(set(_days_of(invoice, writer)).union(*used))
    labels = {day: writer.weekday(day) for day in days}
    size = _DAYS_MAX if len(days) <= _DAYS_MAX else _WEEK
    blocks = [days[at : at + size] for at in range(0, len(days), size)]
    ends = list(accumulate(widths))
    return UsageTable(
        columns,
        widths,
        max(_DAY_MM, ceil(max(map(len, labels.values()), default=0) * _LETTER_MM)),
        [
            Block(
                [labels[day] for day in block],
                [
                    figures_line(
                        [writer.number(quantities[day]) if day in quantities else _NO_USAGE for quantities in used],
                        ends,
                    )
                    for day in block
                ],
                _grid(block, is_last=block is blocks[-1]),
            )
            for block in blocks
        ],
    )


def _days_of(invoice: Mapping[str, Any], writer: Writer) -> list[date]:
    """Return the days of the period if they are a month's at most, else none."""
    first, last = writer.local_day(invoice["period_start"]), writer.last_day(invoice["period_end"])
    count = (last - first).days + 1
    return [first + timedelta(days=offset) for offset in range(count)] if count <= _DAYS_MAX else []


def _grid(days: Sequence[date], *, is_last: bool) -> str:
    """Return the picture behind a block: weekends in a wash, a rule below each day but the one above the total."""
    weekends = "".join(f"M0 {row}h1v1H0z" for row, day in enumerate(days) if day.weekday() >= _SATURDAY)
    ruled = len(days) - 1 if is_last else len(days)
    rules = "".join(f"M0 {row - _RULE:.4f}h1v{_RULE}H0z" for row in range(1, ruled + 1))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 {len(days)}" preserveAspectRatio="none">'
        f'<path fill="{_WASH}" d="{weekends}"/><path fill="{_LINE}" d="{rules}"/></svg>'
    )
    return "data:image/svg+xml;base64," + b64encode(svg.encode()).decode()
