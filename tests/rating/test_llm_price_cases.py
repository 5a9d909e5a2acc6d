"""509 usage bodies of six providers, priced by our engine under a book imported from the table they were priced with.

The cases are genai-prices' own: provider's body, the prices that project computes for 2025-11-06T12:00Z. We import its
table, make an event of the body by the provider's rules, meter the event by the book's meters, and rate what they say.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from catalogues.import_price_book import PriceFormat, import_price_book
from catalogues.load_catalogue import CatalogueFile, load_catalogue
from catalogues.price_books.kinds import EVENT_TYPE
from catalogues.price_books.sheet import Selection
from core.meters import Registry
from core.quantity import UNIT, unscale
from core.usage_event import IngestLimits, UsageEvent, parse_event
from rating.domain.models.matrix import Matrix
from rating.domain.models.scheduled_matrix import ScheduledMatrix
from rating.domain.plan import Charge
from rating.domain.price import Grain, UsageEntry
from rating.rate_charges import rate_charge
from tests.rating.llm_bodies import read_body
from tests.shared_data import SHARED_DATA

pytestmark = pytest.mark.shared_data

PRICED_AT = datetime(2025, 11, 6, 12, tzinfo=UTC)
Prices = dict[str, Decimal]


@dataclass(frozen=True)
class Book:
    """An imported book: its meters as events are judged by them, its charges by meter."""

    registry: Registry
    charges: dict[str, Charge]


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    path = SHARED_DATA / "llm" / "genai_usage_price_cases.json.gz"
    found: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["cases"]
    return found


@pytest.fixture(scope="module")
def books(cases: list[dict[str, Any]]) -> dict[str, Book]:
    """One imported book for each provider, with the models of the cases under the names the bodies use."""
    table = (SHARED_DATA / "prices" / "genai_prices_native.json.gz").read_bytes()
    found = {}
    for provider in sorted({case["provider"] for case in cases}):
        names = sorted({case["model"] for case in cases if case["provider"] == provider})
        book = import_price_book(table, PriceFormat.GENAI_PRICES, Selection((provider,), tuple(names)))
        assert book.unexpressed == ()
        catalogue = load_catalogue([CatalogueFile("book.yaml", book.content)])
        ((_, plan),) = catalogue.plans
        charges = {charge.charge_id: charge for charge in plan.charges}
        found[provider] = Book(Registry.of(["acme"], catalogue.meters), charges)
    return found


def test_every_case_comes_to_the_expected_price_exactly(cases: list[dict[str, Any]], books: dict[str, Book]) -> None:
    differences = {}
    for case in cases:
        found, expected = price_case(case, books[case["provider"]]), expected_prices(case)
        if found != expected:
            differences[case["case_id"]] = (found, expected)
    assert differences == {}
    assert len(cases) == 509


def test_the_cases_reach_what_is_hard(cases: list[dict[str, Any]], books: dict[str, Book]) -> None:
    """Otherwise 509 exact prices would say little."""
    kinds: Counter[str] = Counter()
    contexts: Counter[str] = Counter()
    for case in cases:
        usage, total = read_body(case["provider"], case["api_flavor"], case["provider_body"])
        kinds.update(name for name, quantity in usage.items() if quantity)
        contexts[context_of(books[case["provider"]], case["model"], total)] += 1
    assert {name: kinds[name] for name in ("cached_input_tokens", "cache_write_tokens", "input_audio_tokens")} == {
        "cached_input_tokens": 24,
        "cache_write_tokens": 8,
        "input_audio_tokens": 23,
    }
    assert {name: kinds[name] for name in ("web_searches", "output_image_tokens", "input_video_tokens")} == {
        "web_searches": 5,
        "output_image_tokens": 3,
        "input_video_tokens": 14,
    }
    assert contexts == {"": 507, "above_200000": 2}


def price_case(case: Mapping[str, Any], book: Book) -> Prices:
    """Meter a case's event and rate each kind; exact amounts, for a single request is far below a cent."""
    usage, total_input = read_body(case["provider"], case["api_flavor"], case["provider_body"])
    data = {"model": case["model"], "context": context_of(book, case["model"], total_input), **usage}
    event = parse_event(
        event_of(case["case_id"], data), book.registry, IngestLimits(), int(PRICED_AT.timestamp()) * 1_000_000
    )
    assert isinstance(event, UsageEvent), event
    amounts = {"input": Decimal(0), "output": Decimal(0), "total": Decimal(0)}
    metered = 0
    for meter_id, values, scaled in event.measures:
        charge = book.charges[meter_id]
        amount = rate_one(charge, unscale(scaled), values)
        metered += scaled // UNIT
        amounts["total"] += amount
        if charge.meter is not None and charge.meter.unit == "token":
            amounts["output" if is_output(charge) else "input"] += amount
    assert metered == sum(usage.values()), "every token is metered, and by one meter"
    return amounts


def event_of(event_id: str, data: Mapping[str, Any]) -> bytes:
    event = {"specversion": "1.0", "id": event_id, "source": "cases", "subject": "acme", "type": EVENT_TYPE}
    return json.dumps(event | {"time": PRICED_AT.isoformat(), "data": data}).encode()


def rate_one(charge: Charge, quantity: Decimal, values: tuple[str, ...]) -> Decimal:
    assert charge.meter is not None
    named = sorted(zip(charge.meter.dimensions, values, strict=True))
    dimensions = tuple((name, value) for name, value in named if value)
    entries = [UsageEntry(PRICED_AT, quantity, dimensions)] if charge.price.grain is Grain.SLOT else []
    lines, unpriced = rate_charge(charge, "USD", {dimensions: quantity}, entries)
    assert [row for row in unpriced if row[1]] == []
    return sum((line.exact_amount for line in lines), Decimal(0))


def is_output(charge: Charge) -> bool:
    return charge.charge_id in ("llm_output_tokens", "llm_reasoning_tokens") or "_output_" in charge.charge_id


def context_of(book: Book, model: str, total_input: int) -> str:
    """Return what a producer reports: the highest bound the book knows for the model that the request is above."""
    above = [0]
    for charge in book.charges.values():
        matrix = charge.price.matrix if isinstance(charge.price, ScheduledMatrix) else charge.price
        assert isinstance(matrix, Matrix)
        for pattern in matrix.cells:
            values = dict(pattern)
            if values.get("model") == model and "context" in values:
                bound = int(values["context"].removeprefix("above_"))
                above += [bound] if total_input > bound else []
    return f"above_{max(above)}" if max(above) else ""


def expected_prices(case: Mapping[str, Any]) -> Prices:
    given, answered = Decimal(case["input_price_usd"]), Decimal(case["output_price_usd"])
    total = Decimal(case["total_price_usd"]) if "total_price_usd" in case else given + answered
    return {"input": given, "output": answered, "total": total}
