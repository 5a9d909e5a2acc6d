"""Prices by dimension: one or several, wildcards, defaults, and tables that are refused."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from itertools import permutations
from typing import Any

import pytest

from core.errors import InvalidInputError
from rating.domain.price import Dimensions, Inputs, plain
from tests.rating.price_generators import DIMENSIONS, read_price
from tests.rating.priced import faults_of, rate_price


def usage_of(**quantities: str) -> Inputs:
    """Usage by model and region, `gpt4_eu="10"`; "none" is a dimension that is not named."""
    usage: dict[Dimensions, Decimal] = {}
    for name, quantity in quantities.items():
        values = zip(DIMENSIONS, name.split("_"), strict=True)
        usage[tuple((dimension, value) for dimension, value in values if value != "none")] = Decimal(quantity)
    return Inputs(usage, Fraction(1), Decimal(0))


def by_values(document: dict[str, Any], inputs: Inputs) -> dict[tuple[str, ...], str]:
    parts = rate_price(document, inputs).parts
    return {tuple(value for _, value in part.dimensions): plain(part.exact_amount) for part in parts}


CELLS = [
    {"match": {"model": "gpt4"}, "unit_amount": "3"},
    {"match": {"model": "*", "region": "eu"}, "unit_amount": "2"},
    {"match": {"model": "gpt4", "region": "eu"}, "unit_amount": "5"},
    {"match": {"model": "claude", "region": "us"}, "unit_amount": "7"},
]
MATRIX = {"model": "matrix", "dimensions": ["model", "region"], "cells": CELLS, "unit_amount": "1"}


def test_the_most_specific_cell_wins() -> None:
    inputs = usage_of(gpt4_eu="10", gpt4_us="10", claude_eu="10", claude_us="10", claude_asia="10", none_none="10")
    assert by_values(MATRIX, inputs) == {
        ("gpt4", "eu"): "50",  # its own cell, though both wildcards match
        ("gpt4", "us"): "30",
        ("claude", "eu"): "20",
        ("claude", "us"): "70",
        ("claude", "asia"): "10",  # the default
        ("", ""): "10",
    }


def test_the_order_of_cells_decides_nothing() -> None:
    inputs = usage_of(gpt4_eu="1", gpt4_us="1", claude_eu="1", claude_us="1", none_eu="1")
    expected = by_values(MATRIX, inputs)
    for cells in permutations(CELLS):
        assert by_values({**MATRIX, "cells": list(cells), "dimensions": ["region", "model"]}, inputs) == expected


def test_usage_that_no_cell_matches_is_reported() -> None:
    document = {name: value for name, value in MATRIX.items() if name != "unit_amount"}
    rated = rate_price(document, usage_of(claude_asia="4", gpt4_asia="1", none_none="0"))
    assert [plain(part.exact_amount) for part in rated.parts] == ["3"]
    assert rated.unpriced == (((("model", "claude"), ("region", "asia")), Decimal(4)),)


def test_other_dimensions_add_up() -> None:
    document = {"model": "matrix", "dimension": "model", "unit_amounts": {"gpt4": "2"}, "unit_amount": "1"}
    inputs = usage_of(gpt4_eu="1.5", gpt4_us="1", claude_eu="4", none_us="8")
    assert by_values(document, inputs) == {("gpt4",): "5", ("claude",): "4", ("",): "8"}  # 2.5 × 2
    assert read_price(document).split_by == ("model",)
    assert read_price({**MATRIX, "dimensions": ["region", "model"]}).split_by == ("model", "region")


def test_a_correction_lowers_its_own_combination_and_no_further() -> None:
    eu, us = (("model", "gpt4"), ("region", "eu")), (("model", "gpt4"), ("region", "us"))
    of_model = {"model": "matrix", "dimension": "model", "unit_amounts": {"gpt4": "2"}}
    taken = Inputs({eu: Decimal(10), us: Decimal(-4)}, Fraction(1), Decimal(0))
    assert by_values(of_model, taken) == {("gpt4",): "12"}  # (10 - 4) × 2: regions have no prices of their own
    with pytest.raises(InvalidInputError) as refused:
        rate_price(MATRIX, taken)
    assert [(fault.code, "gpt4 / us" in fault.reason) for fault in refused.value.faults] == [("negative_usage", True)]


def test_a_part_says_which_values_it_is_of() -> None:
    part = rate_price({**MATRIX, "transform_quantity": {"divide_by": 1000}}, usage_of(none_eu="1500")).parts[0]
    assert (part.key, part.label, part.dimensions) == ("", "not named / eu", (("model", ""), ("region", "eu")))
    assert part.steps == ("1500 × 2 ÷ 1000 = 3",)


def cells(*matches: dict[str, str]) -> dict[str, Any]:
    return {
        "model": "matrix",
        "dimensions": ["model", "region", "tier"],
        "cells": [{"match": match, "unit_amount": "1"} for match in matches],
    }


THREE = ("model", "region", "tier")


@pytest.mark.parametrize(
    ("matches", "paths"),
    [
        ([{"model": "a"}, {"region": "eu"}], ["cells[1].match"]),
        ([{"model": "a"}, {"model": "b"}], []),
        ([{"model": "a"}, {"region": "eu"}, {"model": "a", "region": "eu"}], []),
        # Decided for region eu, not for us.
        ([{"model": "a"}, {"region": "eu"}, {"region": "us"}, {"model": "a", "region": "eu"}], ["cells[2].match"]),
        # Any two of three tie; the crossing of all three decides only the one combination.
        (
            [
                {"model": "a", "region": "eu"},
                {"region": "eu", "tier": "1"},
                {"model": "a", "region": "eu", "tier": "1"},
            ],
            [],
        ),
        (
            [{"model": "a", "region": "eu"}, {"region": "us", "tier": "1"}, {"model": "a", "tier": "1"}],
            ["cells[2].match", "cells[2].match"],
        ),
        # A wildcard spelled out is the same as one left out.
        ([{"model": "a", "region": "*"}, {"region": "eu"}], ["cells[1].match"]),
    ],
)
def test_a_table_in_which_two_cells_tie_is_refused(matches: list[dict[str, str]], paths: list[str]) -> None:
    if paths:
        assert faults_of(cells(*matches), THREE) == [("ambiguous_price", path) for path in paths]
    else:
        read_price(cells(*matches), THREE)


def test_a_cell_between_the_two_and_their_crossing_decides() -> None:
    tie = [{"a": "1", "b": "1"}, {"c": "1", "d": "1"}]
    document = {"model": "matrix", "dimensions": ["a", "b", "c", "d"]}

    def table(*matches: dict[str, str]) -> dict[str, Any]:
        return {**document, "cells": [{"match": match, "unit_amount": str(at)} for at, match in enumerate(matches)]}

    assert faults_of(table(*tie), ("a", "b", "c", "d")) == [("ambiguous_price", "cells[1].match")]
    # Three of the four: it beats both wherever both match.
    price = read_price(table(*tie, {"a": "1", "b": "1", "c": "1"}), ("a", "b", "c", "d"))
    assert price.price_of((("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"))) == 2  # type: ignore[attr-defined]


def test_the_refusal_names_the_combination() -> None:
    with pytest.raises(InvalidInputError, match=r"model gpt4, region eu matches cells\[0\] just as well"):
        read_price({**MATRIX, "cells": CELLS[:2]})


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({"cells": [*CELLS, CELLS[0]]}, [("duplicate_id", "cells[4].match")]),
        ({"cells": [{"match": {"model": "*"}, "unit_amount": "1"}]}, [("contradiction", "cells[0].match")]),
        (
            {"cells": [{"match": {"colour": "red"}, "unit_amount": "1"}]},
            [("unknown_dimension", "cells[0].match.colour")],
        ),
        ({"cells": [{"match": {"model": ""}, "unit_amount": "1"}]}, [("invalid_text", "cells[0].match.model")]),
        ({"cells": [{"match": {"model": 4}, "unit_amount": "1"}]}, [("invalid_text", "cells[0].match.model")]),
        ({"cells": [{"match": {"model": "a"}}]}, [("missing_field", "cells[0].unit_amount")]),
        ({"cells": [{"match": {"model": "a"}, "unit_amount": 0.1}]}, [("float_amount", "cells[0].unit_amount")]),
        ({"cells": [{"match": {"model": "a"}, "unit_amount": "-1"}]}, [("negative_amount", "cells[0].unit_amount")]),
        (
            {"cells": [{"match": {"model": "a"}, "unit_amount": "1", "per": 5}]},
            [("unknown_field", "cells[0].per")],
        ),
        ({"dimensions": ["model", "colour"]}, [("unknown_dimension", "dimensions[1]")]),
        ({"dimensions": ["model", "region", "model"]}, [("duplicate_id", "dimensions[2]")]),
        ({"unit_amounts": {"gpt4": "1"}}, [("contradiction", "cells")]),
    ],
)
def test_a_matrix_that_makes_no_sense_is_refused(changes: dict[str, Any], faults: list[tuple[str, str]]) -> None:
    found = faults_of({**MATRIX, **changes})
    assert set(faults) <= set(found), found


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({"dimension": "colour", "unit_amount": "1"}, ("unknown_dimension", "dimension")),
        ({"dimension": "model"}, ("missing_field", "unit_amounts")),
        ({"dimension": "model", "unit_amounts": {"*": "1"}}, ("contradiction", "unit_amounts.*")),
        ({"dimension": "model", "unit_amounts": {"": "1"}}, ("invalid_name", "unit_amounts")),
        ({"dimension": "model", "unit_amounts": {"gpt4": 0.03}}, ("float_amount", "unit_amounts.gpt4")),
        ({"dimension": "model", "unit_amounts": ["gpt4"]}, ("invalid_type", "unit_amounts")),
        ({"dimensions": [], "unit_amount": "1"}, ("missing_field", "dimensions")),
        ({"dimensions": ["model"]}, ("missing_field", "cells")),
    ],
)
def test_a_matrix_without_what_it_needs_is_refused(document: dict[str, Any], fault: tuple[str, str]) -> None:
    assert fault in faults_of({"model": "matrix", **document})


def test_a_large_table_is_checked_quickly() -> None:
    # 8,000 cells: comparing each with each would be 32 million pairs.
    by_model = {
        "model": "matrix",
        "dimensions": ["model", "region"],
        "cells": [
            {"match": {"model": f"m{model}", "region": f"r{region}"}, "unit_amount": "1"}
            for model in range(2_000)
            for region in range(4)
        ],
    }
    assert len(read_price(by_model).cells) == 8_000  # type: ignore[attr-defined]
