"""Foreign tables of prices to be imported, and what the books made of them say."""

from __future__ import annotations

import functools
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from catalogues.import_price_book import PriceFormat, import_price_book
from catalogues.load_catalogue import CatalogueFile, load_catalogue
from catalogues.price_books.sheet import EVERYTHING, Selection
from catalogues.price_books.write_book import Book
from core.errors import InvalidInputError
from rating.domain.plan import Plan
from rating.domain.price import Grain, UsageEntry, plain
from rating.rate_charges import rate_charge

LITELLM, GENAI = PriceFormat.LITELLM, PriceFormat.GENAI_PRICES
MILLION = Decimal(1_000_000)
NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)


def litellm(**models: dict[str, Any]) -> bytes:
    """A table of LiteLLM's shape; `__` stands for `-` in names."""
    return json.dumps({name.replace("__", "-"): entry for name, entry in models.items()}).encode()


def genai(*models: dict[str, Any], provider: str = "acme") -> bytes:
    """A table of genai-prices' shape with one provider."""
    named = [{"match": {"equals": model["id"]}, **model} for model in models]
    return json.dumps([{"id": provider, "models": named}]).encode()


def book_of(table: bytes, price_format: PriceFormat = LITELLM, selection: Selection = EVERYTHING) -> Book:
    return import_price_book(table, price_format, selection)


def plan_of(book: Book) -> Plan:
    return read_book(book.content)


@functools.cache
def read_book(content: bytes) -> Plan:
    ((_, plan),) = load_catalogue([CatalogueFile("book.yaml", content)]).plans
    return plan


def price(book: Book, meter: str, at: datetime = NOON, **data: str) -> str | None:
    """What a million units of a meter cost under the book, by our engine; None if they are unpriced."""
    (charge,) = [charge for charge in plan_of(book).charges if charge.charge_id == meter]
    dimensions = tuple(sorted(data.items()))
    entries = [UsageEntry(at, MILLION, dimensions)] if charge.price.grain is Grain.SLOT else []
    lines, unpriced = rate_charge(charge, "USD", {dimensions: MILLION}, entries)
    return None if unpriced else plain(sum((line.exact_amount for line in lines), Decimal(0)))


def refused(
    table: bytes, price_format: PriceFormat = LITELLM, selection: Selection = EVERYTHING
) -> list[tuple[str, str]]:
    """Return code and path of every fault."""
    with pytest.raises(InvalidInputError) as refusal:
        import_price_book(table, price_format, selection, file="t.json")
    return [(fault.code, fault.path.removeprefix("t.json").removeprefix(": ")) for fault in refusal.value.faults]


def left_out(book: Book) -> list[tuple[str, str]]:
    return [(one.code, one.path) for one in book.unexpressed]
