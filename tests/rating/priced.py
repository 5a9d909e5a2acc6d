"""What a price makes of usage, in a form that a table of cases can state."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from core.errors import InvalidInputError
from rating.domain.price import Dimensions, Inputs, Rated, UsageEntry, plain
from tests.rating.price_generators import DIMENSIONS, inputs_of, of_quantity, read_price


def rate_price(document: dict[str, Any], usage: str | Inputs | list[UsageEntry]) -> Rated:
    """Return the parts of a price (a document of a catalogue) for a quantity, entries, or inputs."""
    if isinstance(usage, str):
        usage = of_quantity(usage)
    elif not isinstance(usage, Inputs):
        usage = inputs_of(usage)
    return read_price(document).rate(usage)


def exact(document: dict[str, Any], usage: str | Inputs | list[UsageEntry]) -> dict[str, str]:
    """Return the exact amounts by part key."""
    return {part.key: plain(part.exact_amount) for part in rate_price(document, usage).parts}


def exact_total(document: dict[str, Any], usage: str | Inputs | list[UsageEntry]) -> str:
    """Return the sum of the exact amounts."""
    return plain(sum((part.exact_amount for part in rate_price(document, usage).parts), Decimal(0)))


def event(
    quantity: str, at: str = "2026-10-01T00:00:00Z", amount: str | None = None, dimensions: Dimensions = ()
) -> UsageEntry:
    """Return one event."""
    moment = datetime.fromisoformat(at).astimezone(UTC)
    return UsageEntry(moment, Decimal(quantity), dimensions, 1, None if amount is None else Decimal(amount))


def events(*quantities: str) -> list[UsageEntry]:
    """Return events, one a minute, in this order."""
    return [event(quantity, f"2026-10-01T00:{minute:02}:00Z") for minute, quantity in enumerate(quantities)]


def faults_of(document: dict[str, Any], dimensions: tuple[str, ...] = DIMENSIONS) -> list[tuple[str, str]]:
    """Return code and path of every fault of a price that must be refused."""
    with pytest.raises(InvalidInputError) as refused:
        read_price(document, dimensions)
    return [(fault.code, fault.path) for fault in refused.value.faults]
