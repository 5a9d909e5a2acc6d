"""The seller's tax section: read as it stands, refused with every fault."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from core.errors import Fault
from core.read_yaml import read_yaml
from invoicing.adapters.seller_file import load_seller
from invoicing.domain.seller import read_seller
from invoicing.domain.tax.seller_tax import Registration, SellerTax, read_seller_tax
from invoicing.domain.tax.treatment import TaxBehavior
from rating.domain.fields import Fields
from runtime.settings import Settings

BERLIN = {
    "regime": "registered",
    "currency": "EUR",
    "registrations": [{"country": "DE", "number": "DE 136 695 976"}, {"country": "US", "state": "CA"}],
    "one_stop_shop": "DE",
    "prices": "inclusive",
    "unchecked_vat_number": "reverse_charge",
}

SHORT = {"country": "DE", "number": "DE1"}


def read(document: dict[str, Any], country: str = "DE") -> tuple[SellerTax, list[Fault]]:
    faults: list[Fault] = []
    return read_seller_tax(Fields(document, "tax", faults), country), faults


def test_a_whole_section_is_read() -> None:
    tax, faults = read(BERLIN)
    assert faults == []
    assert tax == SellerTax(
        "registered",
        "DE",
        "",
        TaxBehavior.INCLUSIVE,
        (Registration("DE", "", "DE136695976"), Registration("US", "CA")),
        "DE",
        True,
        "EUR",
    )
    assert tax.vat_number == "DE136695976"


def test_the_shipped_example_charges_nothing_and_says_so() -> None:
    seller = load_seller(Settings.model_construct(seller_file=None))
    assert seller.tax.regime == "none"
    assert seller.tax.reason
    document = seller.as_document()
    assert document["vat_number"] == ""
    assert "tax" not in document


@pytest.mark.parametrize(
    ("change", "country", "path", "code"),
    [
        ({"regime": "all"}, "DE", "tax.regime", "unknown_regime"),
        ({"regime": "none"}, "DE", "tax.reason", "missing_field"),
        ({"currency": "XAU"}, "DE", "tax.currency", "unknown_currency"),
        ({"one_stop_shop": "US"}, "DE", "tax.one_stop_shop", "invalid_country"),
        ({"one_stop_shop": "FR"}, "DE", "tax.one_stop_shop", "invalid_country"),
        ({"registrations": []}, "DE", "tax.registrations", "missing_registration"),
        ({"registrations": [dict(SHORT)]}, "DE", "tax.registrations[0].number", "malformed_vat_number"),
        ({"registrations": [{"country": "DE"}]}, "DE", "tax.registrations[0].number", "malformed_vat_number"),
        ({"registrations": [{"country": "US"}]}, "US", "tax.registrations[0].state", "unknown_state"),
        ({"registrations": [{"country": "MX", "state": "CA"}]}, "MX", "tax.registrations[0].state", "unknown_state"),
        ({"registrations": [{"country": "MX"}] * 2}, "MX", "tax.registrations", "duplicate_registration"),
        ({"prices": "gross"}, "DE", "tax.prices", "unknown_behavior"),
        ({"unchecked_vat_number": "ignore"}, "DE", "tax.unchecked_vat_number", "unknown_choice"),
        ({"nexus": ["CA"]}, "DE", "tax.nexus", "unknown_field"),
    ],
)  # fmt: skip
def test_a_wrong_section_is_refused_with_its_place(change: dict[str, Any], country: str, path: str, code: str) -> None:
    _, faults = read({**BERLIN, **change}, country)
    assert (path, code) in {(fault.path, fault.code) for fault in faults}


def test_a_whole_file_with_taxes_is_read() -> None:
    text = (
        "name: Beispiel GmbH\naddress: [Am Platz 1, 10115 Berlin]\ncountry: DE\nemail: a@b.example\n"
        "tax_id: DE136695976\nnumber_prefix: BE\npayment_terms: Bald.\nfooter: Danke\ntax:\n"
        + "".join(f"  {line}\n" for line in yaml.safe_dump(BERLIN).splitlines())
    )
    document, _ = read_yaml(text.encode(), "seller.yaml")
    seller = read_seller(document, "seller.yaml")
    assert seller.tax.currency == "EUR"
    assert seller.as_document()["vat_number"] == "DE136695976"
