"""Sets figures flush right in one line of text. Owns what the glyphs of the annex are wide.

A page with six columns takes a sixth less time with a line of figures for each day than with a cell for each column.
Columns end where they shall because the gaps before them are made of three kinds of spaces, to within a twentieth of a
millimetre. Widths are those of Inter with tabular figures (`tnum`), where a space is as wide as a comma; a test reads
them from the bundled font.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

# Units of the font to the em, the size it is set in (`.days td` of the stylesheet), millimetres of a point.
_EM, _POINTS, _POINT_MM = 2048, 6.8, 25.4 / 72
_UNIT_MM = _POINTS * _POINT_MM / _EM
DIGIT, EN_SPACE, SPACE, THIN_SPACE = "0", "\N{EN SPACE}", " ", "\N{THIN SPACE}"
# All digits are as wide as this one, and so is for the gaps what is not here.
ADVANCES = {
    DIGIT: 1328,
    EN_SPACE: 1024,
    SPACE: 550,
    THIN_SPACE: 372,
    ",": 550,
    ".": 550,
    "\N{NO-BREAK SPACE}": 550,
    "\N{RIGHT SINGLE QUOTATION MARK}": 534,
    "\N{EN DASH}": 1024,
}
# No font of ours has it; a line of figures is never broken, so another thin space will do.
_NARROW = "\N{NARROW NO-BREAK SPACE}"
# Beyond so many en spaces any gap is made of a few more of them.
_FINE = 3 * ADVANCES[EN_SPACE]
_FINE_GAPS = [
    (
        EN_SPACE * en + SPACE * plain + THIN_SPACE * thin,
        en * ADVANCES[EN_SPACE] + plain * ADVANCES[SPACE] + thin * ADVANCES[THIN_SPACE],
    )
    for en, plain, thin in product(range(4), range(6), range(9))
    if en + plain + thin
]


def figures_line(figures: Sequence[str], ends_mm: Sequence[float]) -> str:
    """Return figures with gaps before them, so that each ends so many millimetres from where the line begins.

    A figure that is too wide for its place ends later, after a space.
    """
    line, at = "", 0
    for figure, end in zip(figures, ends_mm, strict=True):
        shown = figure.replace(_NARROW, THIN_SPACE)
        width = sum(ADVANCES.get(one, ADVANCES[DIGIT]) for one in shown)
        gap, gap_width = _gap(round(end / _UNIT_MM - width - at))
        line += gap + shown
        at += gap_width + width
    return line


@lru_cache(maxsize=10_000)
def _gap(width: int) -> tuple[str, int]:
    """Return the spaces that come nearest to a width, at least one, and how wide they are."""
    wide = max(0, (width - _FINE) // ADVANCES[EN_SPACE] + 1)
    left = width - wide * ADVANCES[EN_SPACE]
    gap, fine = min(_FINE_GAPS, key=lambda one: (abs(one[1] - left), len(one[0])))
    return EN_SPACE * wide + gap, wide * ADVANCES[EN_SPACE] + fine
