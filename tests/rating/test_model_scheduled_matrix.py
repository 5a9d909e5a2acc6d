"""Prices by value and time: which cell decides, and when; what a table may not say."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidInputError
from rating.domain.price import UsageEntry, plain
from tests.rating.price_generators import inputs_of, of_quantity, prices, read_price, usages
from tests.rating.priced import event, faults_of, rate_price

pytestmark = pytest.mark.slow

# Two models on one meter: one costs less at night and less again in the EU, the other got dearer in October.
PRICE: dict[str, Any] = {
    "model": "scheduled_matrix",
    "time_zone": "UTC",
    "dimensions": ["model", "region"],
    "cells": [
        {
            "match": {"model": "gpt4"},
            "unit_amount": "0.135",
            "windows": [{"from": "00:30", "to": "16:30", "unit_amount": "0.55"}],
        },
        {"match": {"model": "gpt4", "region": "eu"}, "unit_amount": "0.1"},
        {
            "match": {"model": "claude"},
            "unit_amount": "2",
            "spot_prices": [{"from": "2026-10-15T00:00:00Z", "unit_amount": "3"}],
        },
    ],
}
NIGHT, DAY, LATER = "2026-10-01T00:15:00Z", "2026-10-01T12:00:00Z", "2026-10-15T00:00:00Z"


def used(model: str, at: str, region: str = "", quantity: str = "10") -> UsageEntry:
    values = (("model", model), ("region", region))
    return event(quantity, at, dimensions=tuple((name, value) for name, value in values if value))


@pytest.mark.parametrize(
    ("entry", "amount"),
    [
        (used("gpt4", NIGHT), "1.35"),  # 10 × 0.135
        (used("gpt4", "2026-10-01T00:30:00Z"), "5.5"),  # 10 × 0.55: the border belongs to the later price
        (used("gpt4", "2026-10-01T16:30:00Z"), "1.35"),
        (used("gpt4", DAY, "us"), "5.5"),  # no cell of its own
        (used("gpt4", DAY, "eu"), "1"),  # the more specific cell has no hours: 10 × 0.1
        (used("claude", DAY), "20"),
        (used("claude", LATER), "30"),
    ],
)
def test_the_most_specific_cell_decides_and_then_the_time(entry: UsageEntry, amount: str) -> None:
    (part,) = rate_price(PRICE, [entry]).parts
    assert plain(part.exact_amount) == amount
    assert dict(part.dimensions) == {"model": "", "region": ""} | dict(entry.dimensions)
    assert part.steps


def test_each_window_of_each_combination_is_a_part() -> None:
    rated = rate_price(PRICE, [used("gpt4", NIGHT), used("gpt4", DAY), used("gpt4", DAY, "us"), used("claude", DAY)])
    assert {(part.key, part.label): plain(part.exact_amount) for part in rated.parts} == {
        ("window-1", "gpt4 / not named / 00:30-16:30"): "5.5",
        ("other", "gpt4 / not named / other times"): "1.35",
        ("window-1", "gpt4 / us / 00:30-16:30"): "5.5",
        ("other", "claude / not named / other times"): "20",
    }


def test_what_no_cell_matches_is_reported() -> None:
    rated = rate_price(PRICE, [used("other", DAY, quantity="7"), used("gpt4", DAY)])
    assert rated.unpriced == (((("model", "other"), ("region", "")), 7),)
    assert len(rated.parts) == 1


def test_the_price_is_for_as_many_units_as_it_says() -> None:
    (part,) = rate_price(PRICE | {"transform_quantity": {"divide_by": 1000}}, [used("gpt4", DAY)]).parts
    assert (part.per, plain(part.exact_amount)) == (1000, "0.0055")


def test_totals_without_times_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="entries_needed"):
        rate_price(PRICE, of_quantity("1", (("model", "gpt4"),)))


def cell(**fields: Any) -> dict[str, Any]:
    return {"match": {"model": "gpt4"}, "unit_amount": "1", "windows": PRICE["cells"][0]["windows"]} | fields


@pytest.mark.parametrize(
    ("document", "faults"),
    [
        ({"cells": [{"match": {"model": "gpt4"}, "unit_amount": "1"}]}, [("missing_field", "cells")]),
        ({"cells": [cell(), cell()]}, [("duplicate_id", "cells[1].match")]),
        ({"cells": [cell(), cell(match={"region": "eu"})]}, [("ambiguous_price", "cells[1].match")]),
        ({"cells": [cell(match={"colour": "red"})]}, [("unknown_dimension", "cells[0].match.colour")]),
        ({"cells": [cell(unit_amount="-1")]}, [("negative_amount", "cells[0].unit_amount")]),
        ({"cells": [cell(unit_price="1")]}, [("unknown_field", "cells[0].unit_price")]),
        ({"cells": [cell(time_zone="UTC")]}, [("unknown_field", "cells[0].time_zone")]),
        ({"cells": [cell(windows=[])]}, [("missing_field", "cells[0].windows")]),
        (
            {"cells": [cell(windows=[{"from": "08:07", "to": "09:00", "unit_amount": "1"}])]},
            [("invalid_time", "cells[0].windows[0].from")],
        ),
        ({"time_zone": "Berlin"}, [("unknown_time_zone", "time_zone")]),
        ({"transform_quantity": {}}, [("missing_field", "transform_quantity.divide_by")]),
        ({"cells": "gpt4"}, [("invalid_type", "cells")]),
        ({"spot": []}, [("unknown_field", "spot")]),
    ],
)
def test_a_table_that_cannot_be_is_refused(document: dict[str, Any], faults: list[tuple[str, str]]) -> None:
    assert [fault for fault in faults_of(PRICE | document) if fault in faults] == faults
    assert len(faults_of(PRICE | document)) <= 2


@given(prices("scheduled_matrix"), usages("scheduled_matrix"))
def test_one_entry_at_a_time_adds_up_to_all_of_them(document: dict[str, Any], entries: tuple[UsageEntry, ...]) -> None:
    price = read_price(document)
    whole = price.rate(inputs_of(entries))
    alone = [price.rate(inputs_of([entry])) for entry in entries]
    apart = sum((part.exact_amount for rated in alone for part in rated.parts), Decimal(0))
    together = sum((part.exact_amount for part in whole.parts), Decimal(0))
    # A price for three units has no end in decimals: 60 digits are kept of each part.
    assert abs(apart - together) <= Decimal("1e-20")
    names = [(part.key, part.dimensions) for part in whole.parts]
    assert len(set(names)) == len(names)


@given(prices("scheduled_matrix"), usages("scheduled_matrix"), st.randoms(use_true_random=False))
def test_order_does_not_matter(document: dict[str, Any], entries: tuple[UsageEntry, ...], random: Any) -> None:
    shuffled = list(entries)
    random.shuffle(shuffled)
    assert read_price(document).rate(inputs_of(shuffled)) == read_price(document).rate(inputs_of(entries))
