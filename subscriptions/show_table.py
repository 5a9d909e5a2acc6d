"""Prints tables for people: coupons and credits at a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

# In a file or a pipe there is no width to fit: lines stay whole.
_WIDTH_WITHOUT_TERMINAL = 500
_FOLDED_WIDTH = 16


def show_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[str] = (),
    folded: Collection[str] = (),
) -> None:
    """Print rows under headings, nothing taken for markup.

    Columns named in `right` are figures; those in `folded` are broken where the terminal is narrow, all others stay
    whole, so that ids can be copied.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, heading in enumerate(headings):
        width = max((len(row[place]) for row in rows), default=0)
        table.add_column(
            heading,
            justify="right" if heading in right else "left",
            no_wrap=heading not in folded,
            min_width=min(width, _FOLDED_WIDTH) if heading in folded else max(width, len(heading)),
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    needed = console.measure(table, options=console.options.update(width=_WIDTH_WITHOUT_TERMINAL)).minimum
    # Too narrow a terminal breaks lines itself: better than to lose half an id.
    width = max(console.width, needed) if console.is_terminal else _WIDTH_WITHOUT_TERMINAL
    Console(highlight=False, width=width).print(table)
