"""The examples of docs/price-models.md are what the engine answers, and every model has one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rating.answer_request import answer_line
from rating.domain.registry import PRICE_MODELS

PAGE = (Path(__file__).parents[2] / "docs" / "price-models.md").read_text()
EXAMPLES = re.findall(r"```json\n(.*?)```\n```text\n(.*?)```", PAGE, re.DOTALL)


def shown(answer: dict[str, Any]) -> list[str]:
    """Write an answer as the page does: a line for each line with its sum, and the total; or the refusal."""
    if "error" in answer:
        return [f"refused: {answer['error']['code']} at {answer['error']['path']}: {answer['error']['reason']}"]
    lines = [
        f"{line['amount']:>9}  {line['description'] or line['kind']} [{line['kind']}]: {'; '.join(line['steps'])}"
        for line in answer["lines"]
    ]
    unpriced = [f"  no price  for {row['quantity']} of {row['dimensions']}" for row in answer.get("unpriced", [])]
    return [*lines, f"{answer['total']:>9}  in all", *unpriced]


@pytest.mark.parametrize(("request_", "answer"), EXAMPLES, ids=lambda text: text[:30])
def test_an_example_is_what_the_engine_answers(request_: str, answer: str) -> None:
    assert shown(answer_line(json.dumps(json.loads(request_)).encode())) == answer.splitlines()


def test_every_model_has_a_row_and_an_example() -> None:
    shown_models = set()
    for request, _ in EXAMPLES:
        document = json.loads(request)
        shown_models |= {price["model"] for price in document.get("charges", [document.get("price")])}
    assert shown_models == set(PRICE_MODELS)
    assert set(re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE)) == set(PRICE_MODELS)
