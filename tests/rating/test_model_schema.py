"""The JSON Schema of `meterbook rate` knows every field that price models read, and no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

import rating
from tests.rating.price_generators import MODELS, Document, prices

SCHEMA = json.loads((Path(rating.__file__).parent / "rate_input.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)


def request(price: Document) -> dict[str, Any]:
    return {"id": 1, "currency": "USD", "price": price, "usage": {"quantity": "1"}}


@pytest.mark.parametrize("model", MODELS)
def test_what_a_model_reads_is_in_the_schema(model: str) -> None:
    @settings(max_examples=20)
    @given(prices(model))
    def law(document: Document) -> None:
        assert list(VALIDATOR.iter_errors(request(document))) == []
        assert list(VALIDATOR.iter_errors(request({**document, "unit_price": "1"})))

    law()
