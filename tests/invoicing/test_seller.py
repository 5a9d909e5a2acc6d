"""The seller's file: the example is fine, a wrong one is refused with all faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import InvalidInputError
from invoicing.adapters.seller_file import load_seller
from runtime.settings import Settings


def settings_with(path: Path | None) -> Settings:
    return Settings.model_construct(seller_file=path)


def test_the_example_that_ships_is_well_formed() -> None:
    seller = load_seller(settings_with(None))
    assert (seller.number_prefix, seller.country) == ("MB", "US")


def test_all_faults_of_a_sellers_file_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "seller.yaml"
    file.write_text("name: X\naddress: nowhere\nnumber_prefix: ../x\ncolour: red\nemail: a@b.co\nfax: 1\n")
    with pytest.raises(InvalidInputError) as refused:
        load_seller(settings_with(file))
    places = {fault.path.removeprefix(f"{file}: ") for fault in refused.value.faults}
    expected = {"address", "number_prefix", "colour", "fax", "country", "tax_id", "payment_terms", "footer", "tax"}
    assert places == expected


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as refused:
        load_seller(settings_with(tmp_path / "absent.yaml"))
    assert refused.value.faults[0].code == "unreadable_file"
