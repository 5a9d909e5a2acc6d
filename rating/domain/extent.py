"""How much of a billing period is rated, for how many seats, and whether it is over."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Extent:
    """What a charge is rated for.

    `share` is the part of the period that is charged for amounts agreed for a whole one (1 is all of it), `licensed`
    the subscription's quantity (seats). Hours of the day are those of `time_zone`. `starts`: what is due once, at the
    start of the subscription, is due now. `closing` is false in a bill before the period's end: what is known only
    then, because more usage may come (minimums, true-ups), is left out.
    """

    share: Fraction = Fraction(1)
    licensed: Decimal = Decimal(1)
    time_zone: str = "UTC"
    starts: bool = False
    closing: bool = True


WHOLE = Extent()
