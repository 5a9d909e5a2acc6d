"""The form of VAT numbers, by country."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.tax_places import EU_MEMBER_STATES, read_vat_number


@pytest.mark.parametrize(
    ("text", "country", "compact"),
    [
        ("DE136695976", "DE", "DE136695976"),
        ("de 136 695 976", "DE", "DE136695976"),
        ("136.695.976", "DE", "DE136695976"),
        ("ATU12345675", "AT", "ATU12345675"),
        ("U12345675", "AT", "ATU12345675"),
        ("FR40303265045", "FR", "FR40303265045"),
        ("FR40303265045", "MC", "FR40303265045"),
        ("EL094259216", "GR", "EL094259216"),
        ("094259216", "GR", "EL094259216"),
        ("GR094259216", "GR", "EL094259216"),
        ("IE6433435F", "IE", "IE6433435F"),
        ("CHE-107.787.577 MWST", "CH", "CHE107787577MWST"),
        ("GODE561231GR8", "MX", "GODE561231GR8"),
    ],
)
def test_a_number_is_kept_in_its_compact_form(text: str, country: str, compact: str) -> None:
    assert read_vat_number(text, country) == compact


@pytest.mark.parametrize(
    ("text", "country", "code"),
    [
        ("FR40303265045", "DE", "vat_number_of_another_country"),
        ("DE136695976", "US", "vat_number_of_another_country"),
        ("XI980780684", "GB", "vat_number_of_another_country"),
        ("DE136695977", "DE", "malformed_vat_number"),
        ("DE123", "DE", "malformed_vat_number"),
        ("", "DE", "malformed_vat_number"),
        ("---", "DE", "malformed_vat_number"),
        ("DE13669597٦", "DE", "malformed_vat_number"),
        ("1" * 400, "JP", "malformed_vat_number"),
        ("not a number", "MX", "malformed_vat_number"),
    ],
)
def test_what_is_no_number_of_the_country_is_refused_with_its_reason(text: str, country: str, code: str) -> None:
    found = read_vat_number(text, country)
    assert isinstance(found, tuple)
    assert found[0] == code


@given(st.text(max_size=40), st.sampled_from([*sorted(EU_MEMBER_STATES), "MC", "GB", "US", "MX", "CH", "JP", "XX"]))
def test_any_text_is_a_number_or_refused_and_reading_it_again_changes_nothing(text: str, country: str) -> None:
    found = read_vat_number(text, country)
    if isinstance(found, str):
        assert found.isascii()
        assert found.isalnum()
        assert read_vat_number(found, country) == found
