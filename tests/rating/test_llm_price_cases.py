"""509 usage bodies of six providers, priced by our engine under a book imported from the table they were priced with.

The cases are genai-prices' own: provider's body, the prices that project computes for 2025-11-06T12:00Z. We import its
table, read the body by the provider's rules, and rate each kind of token like any other usage.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from catalogues.import_price_book import PriceFormat, import_price_book
from catalogues.load_catalogue import CatalogueFile, load_catalogue
from catalogues.price_books.sheet import Selection
from rating.domain.models.matrix import Matrix
from rating.domain.models.scheduled_matrix import ScheduledMatrix
from rating.domain.plan import Charge, Plan
from rating.domain.price import Grain, UsageEntry
from rating.rate_charges import rate_charge
from tests.rating.llm_bodies import read_body
from tests.shared_data import SHARED_DATA

pytestmark = pytest.mark.shared_data

PRICED_AT = datetime(2025, 11, 6, 12, tzinfo=UTC)
Prices = dict[str, Decimal]


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    path = SHARED_DATA / "llm" / "genai_usage_price_cases.json.gz"
    found: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["cases"]
    return found


@pytest.fixture(scope="module")
def books(cases: list[dict[str, Any]]) -> dict[str, Plan]:
    """One imported book for each provider, with the models of the cases under the names the bodies use."""
    table = (SHARED_DATA / "prices" / "genai_prices_native.json.gz").read_bytes()
    plans = {}
    for provider in sorted({case["provider"] for case in cases}):
        names = sorted({case["model"] for case in cases if case["provider"] == provider})
        book = import_price_book(table, PriceFormat.GENAI_PRICES, Selection((provider,), tuple(names)))
        assert book.unexpressed == ()
        ((_, plan),) = load_catalogue([CatalogueFile("book.yaml", book.content)]).plans
        plans[provider] = plan
    return plans


def test_every_case_comes_to_the_expected_price_exactly(cases: list[dict[str, Any]], books: dict[str, Plan]) -> None:
    differences = {}
    for case in cases:
        found, expected = price_case(case, books[case["provider"]]), expected_prices(case)
        if found != expected:
            differences[case["case_id"]] = (found, expected)
    assert differences == {}
    assert len(cases) == 509


def test_the_cases_reach_what_is_hard(cases: list[dict[str, Any]], books: dict[str, Plan]) -> None:
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


def price_case(case: Mapping[str, Any], book: Plan) -> Prices:
    """Rate a case's usage charge by charge; exact amounts, for a single request is far below a cent."""
    usage, total_input = read_body(case["provider"], case["api_flavor"], case["provider_body"])
    data = {"model": case["model"], "context": context_of(book, case["model"], total_input)}
    amounts = {"input": Decimal(0), "output": Decimal(0), "total": Decimal(0)}
    for charge in book.charges:
        assert charge.meter is not None
        quantity = usage.get(charge.meter.value_property or "", 0)
        assert quantity >= 0, f"{case['case_id']}: {charge.meter.value_property} is {quantity}"
        if not quantity:
            continue
        amount = rate_one(charge, Decimal(quantity), data)
        amounts["total"] += amount
        if charge.meter.unit == "token":
            amounts["output" if is_output(charge) else "input"] += amount
    reported = {charge.meter.value_property for charge in book.charges if charge.meter}
    assert {name for name, quantity in usage.items() if quantity} <= reported, "usage that no meter counts"
    return amounts


def rate_one(charge: Charge, quantity: Decimal, data: Mapping[str, str]) -> Decimal:
    assert charge.meter is not None
    dimensions = tuple(sorted((name, data[name]) for name in charge.meter.dimensions if data.get(name)))
    entries = [UsageEntry(PRICED_AT, quantity, dimensions)] if charge.price.grain is Grain.SLOT else []
    lines, unpriced = rate_charge(charge, "USD", {dimensions: quantity}, entries)
    assert list(unpriced) == []
    return sum((line.exact_amount for line in lines), Decimal(0))


def is_output(charge: Charge) -> bool:
    return charge.charge_id in ("llm_output_tokens", "llm_reasoning_tokens") or "_output_" in charge.charge_id


def context_of(book: Plan, model: str, total_input: int) -> str:
    """Return what a producer reports: the highest bound the book knows for the model that the request is above."""
    above = [0]
    for charge in book.charges:
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
