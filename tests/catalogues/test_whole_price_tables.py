"""The tables of prices that others publish, whole: what becomes of them is known to the entry."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

import pytest

from catalogues.price_books.read_genai_prices import read_genai_prices
from catalogues.price_books.read_json import read_json, unpack
from catalogues.price_books.sheet import EVERYTHING, Selection
from catalogues.price_books.write_book import write_book
from tests.catalogues.price_books import (
    GENAI,
    book_of,
    left_out,
    price,
)
from tests.shared_data import SHARED_DATA

PRICES = SHARED_DATA / "prices"


@pytest.mark.shared_data
def test_litellms_own_table() -> None:
    table = (PRICES / "litellm_prices_extract.json").read_bytes()
    book = book_of(table)
    assert (book.models, left_out(book)) == (39, [("priced_twice", "models.whisper-1.output_cost_per_second")])
    assert (
        price(book, "llm_output_tokens", model="gemini/gemini-2.5-pro", context="above_200000", service_tier="batch")
        == "7.5"
    )
    assert price(book, "llm_input_tokens", model="dashscope/qwen3-coder-plus", context="above_256000") == "6"
    assert price(book, "llm_cache_write_1h_tokens", model="claude-opus-4-5") == "10"
    assert price(book, "llm_input_audio_seconds", model="whisper-1") == "100"
    assert price(book, "llm_web_searches", model="perplexity/sonar-pro", search_context="low") == "6000"


@pytest.mark.shared_data
def test_every_price_of_genai_prices_own_table_is_expressed() -> None:
    """Written, but not read back: 468 kB of YAML take their time."""
    table = read_json(unpack((PRICES / "genai_prices_native.json.gz").read_bytes(), "table"), "table")
    names = {}
    for provider in table["providers"]:
        sheet = read_genai_prices(table, Selection((provider["id"],)))
        book = write_book(sheet, plan_id="book", name="Book", source="a test")
        assert {one.code for one in book.unexpressed} <= {"name_pattern"}
        assert {model["id"] for model in provider["models"]} <= {model.model for model in sheet.models}
        names[provider["id"]] = book.models
    assert names == {
        "anthropic": 24,
        "cohere": 9,
        "deepseek": 9,
        "google": 58,
        "groq": 32,
        "mistral": 43,
        "openai": 213,
        "x-ai": 44,
    }
    whole = write_book(read_genai_prices(table, EVERYTHING), plan_id="book", name="Book", source="a test")
    codes = Counter(one.code for one in whole.unexpressed)
    assert (whole.models, whole.cells, codes) == (416, 6_090, {"name_pattern": 84, "ambiguous_model": 8})


@pytest.mark.shared_data
def test_a_provider_of_genai_prices_own_table_reads_back() -> None:
    book = book_of((PRICES / "genai_prices_native.json.gz").read_bytes(), GENAI, Selection(("anthropic",)))
    in_force = {"2026-03-12T23:45:00Z": "6", "2026-03-13T00:00:00Z": "3"}
    for at, expected in in_force.items():
        moment = datetime.fromisoformat(at)
        data = {"model": "claude-sonnet-4-6", "context": "above_200000"}
        assert price(book, "llm_input_tokens", moment, **data) == expected
