"""A price that stands alone, rated for a quantity: for figures of others that come without a plan."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from core.errors import Fault, InvalidInputError
from rating.domain.extent import WHOLE, Extent
from rating.domain.plan import Charge, read_price
from rating.domain.price import Dimensions, UsageEntry
from rating.rate_charges import RatedLine, rate_charge


def charge_of(**document: Any) -> Charge:
    """Return the price of a document; raises `InvalidInputError` with every fault."""
    faults: list[Fault] = []
    charge = read_price(document, "price", faults, "USD")
    if charge is None:
        raise InvalidInputError(faults)
    return charge


def lines_of(
    charge: Charge,
    used: Decimal | int | dict[Dimensions, Decimal] = 0,
    extent: Extent = WHOLE,
    entries: Sequence[UsageEntry] = (),
) -> list[RatedLine]:
    """Return the lines for a quantity or for totals by dimension values; nothing may be left unpriced."""
    usage = used if isinstance(used, dict) else {(): Decimal(used)}
    lines, unpriced = rate_charge(charge, "USD", usage, entries, extent)
    assert list(unpriced) == []
    return lines
