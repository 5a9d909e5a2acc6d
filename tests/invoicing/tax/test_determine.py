"""How supplies are taxed, case by case; the reasons are in docs/tax.md."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Fault
from core.tax_places import EU_MEMBER_STATES
from invoicing.domain.tax.determine import determine_tax
from invoicing.domain.tax.seller_tax import NO_TAX, Registration, SellerTax
from invoicing.domain.tax.treatment import TaxCategory, TaxTreatment
from tests.invoicing.tax.taxing import (
    BERLIN,
    BERLIN_WITH_SHOP,
    MEXICO_CITY,
    NOVEMBER,
    SAN_FRANCISCO,
    Tenant,
    tables,
    with_number,
)

LONDON = SellerTax("registered", "GB", registrations=(Registration("GB", "", "980780684"),), currency="GBP")
MADRID = SellerTax("registered", "ES", registrations=(Registration("ES", "", "ESB58378431"),), one_stop_shop="ES")
PARIS = SellerTax("registered", "FR", registrations=(Registration("FR", "", "FR40303265045"),), currency="EUR")
NON_UNION = replace(SAN_FRANCISCO, one_stop_shop="IE")
WITH_FRANCE = replace(BERLIN, registrations=(*BERLIN.registrations, Registration("FR", "", "FR40303265045")))


def decide(seller: SellerTax, buyer: Tenant, on: date = NOVEMBER) -> TaxTreatment | Fault:
    return determine_tax(seller, buyer, on, tables())


def said(decided: TaxTreatment | Fault) -> tuple[str, ...]:
    if isinstance(decided, Fault):
        return ("refused", decided.code)
    return (decided.category.value, f"{decided.rate:f}", decided.place, decided.reason_code or decided.note_code)


CASES = {
    "domestic business": (BERLIN, with_number("DE", "DE136695976"), ("S", "19", "DE", "")),
    "domestic consumer": (BERLIN, Tenant("DE"), ("S", "19", "DE", "")),
    "domestic business with unchecked number": (BERLIN, with_number("DE", "DE136695976", None), ("S", "19", "DE", "")),
    "reverse charge": (BERLIN, with_number("FR", "FR40303265045"), ("AE", "0", "FR", "VATEX-EU-AE")),
    "reverse charge though registered there": (
        # Only a fixed establishment would change that (Art. 192a); a registration is none.
        WITH_FRANCE,
        with_number("FR", "FR40303265045"),
        ("AE", "0", "FR", "VATEX-EU-AE"),
    ),
    "to Greece": (BERLIN, with_number("GR", "EL094259216"), ("AE", "0", "GR", "VATEX-EU-AE")),
    "to Monaco, which is France": (BERLIN, with_number("MC", "FR40303265045"), ("AE", "0", "FR", "VATEX-EU-AE")),
    "number not checked yet": (BERLIN, with_number("FR", "FR40303265045", None), ("refused", "unchecked_vat_number")),
    "number not checked, trusted": (
        replace(BERLIN, trust_unchecked=True),
        with_number("FR", "FR40303265045", None),
        ("AE", "0", "FR", "VATEX-EU-AE"),
    ),
    "number is invalid": (BERLIN_WITH_SHOP, with_number("FR", "FR40303265045", False), ("S", "20", "FR", "")),
    "number is invalid, trusted or not": (
        replace(BERLIN_WITH_SHOP, trust_unchecked=True),
        with_number("FR", "FR40303265045", False),
        ("S", "20", "FR", ""),
    ),
    "consumer through the one-stop shop": (BERLIN_WITH_SHOP, Tenant("FI"), ("S", "25.5", "FI", "")),
    "business without number is a consumer": (BERLIN_WITH_SHOP, Tenant("HU"), ("S", "27", "HU", "")),
    "consumer without one-stop shop": (BERLIN, Tenant("FI"), ("refused", "not_registered")),
    "consumer where the seller is registered": (WITH_FRANCE, Tenant("FR"), ("S", "20", "FR", "")),
    "consumer where it is not": (WITH_FRANCE, Tenant("BE"), ("refused", "not_registered")),
    "outside the Union": (BERLIN, Tenant("US", "CA"), ("O", "0", "US", "VATEX-EU-O")),
    "outside the Union, no state needed": (BERLIN, Tenant("US"), ("O", "0", "US", "VATEX-EU-O")),
    "Britain": (BERLIN, with_number("GB", "980780684"), ("O", "0", "GB", "VATEX-EU-O")),
    "Canaries": (BERLIN_WITH_SHOP, Tenant("ES", postal_code="35001"), ("O", "0", "ES", "VATEX-EU-O")),
    "Canaries from Madrid": (MADRID, Tenant("ES", postal_code="38001"), ("O", "0", "ES", "VATEX-EU-O")),
    "Spain needs a postal code": (BERLIN_WITH_SHOP, Tenant("ES"), ("refused", "unknown_place")),
    "Spain with a number needs none": (BERLIN, with_number("ES", "ESB58378431"), ("AE", "0", "ES", "VATEX-EU-AE")),
    "mainland Spain": (BERLIN_WITH_SHOP, Tenant("ES", postal_code="28001"), ("S", "21", "ES", "")),
    "Madeira": (BERLIN_WITH_SHOP, Tenant("PT", postal_code="9000-018"), ("S", "22", "PT-30", "")),
    "Azores": (BERLIN_WITH_SHOP, Tenant("PT", postal_code="9500-321"), ("S", "16", "PT-20", "")),
    "Lisbon": (BERLIN_WITH_SHOP, Tenant("PT", postal_code="1100-148"), ("S", "23", "PT", "")),
    "Jungholz": (BERLIN_WITH_SHOP, Tenant("AT", postal_code="6691"), ("S", "19", "AT-JM", "")),
    "Büsingen": (BERLIN, Tenant("DE", postal_code="78266"), ("O", "0", "DE", "VATEX-EU-O")),
    "Livigno": (BERLIN_WITH_SHOP, Tenant("IT", postal_code="23041"), ("O", "0", "IT", "VATEX-EU-O")),
    "Réunion from Berlin": (BERLIN_WITH_SHOP, Tenant("RE"), ("O", "0", "RE", "VATEX-EU-O")),
    "Réunion from Paris": (PARIS, Tenant("RE"), ("refused", "unsupported_place")),
    "Réunion as a French postal code from Paris": (
        PARIS,
        Tenant("FR", postal_code="97400"),
        ("refused", "unsupported_place"),
    ),
    "exempt": (BERLIN, Tenant("DE", tax_exempt="NATO force"), ("E", "0", "DE", "exempt")),
    "exempt with its code": (
        BERLIN,
        Tenant("DE", tax_exempt="Embassy", tax_exempt_code="VATEX-EU-151"),
        ("E", "0", "DE", "VATEX-EU-151"),
    ),
    "exempt where nothing would be charged": (
        BERLIN,
        with_number("FR", "FR40303265045", tax_exempt="Embassy"),
        ("AE", "0", "FR", "VATEX-EU-AE"),
    ),
    "nexus": (SAN_FRANCISCO, Tenant("US", "CA"), ("S", "7.25", "US-CA", "")),
    "no nexus": (SAN_FRANCISCO, Tenant("US", "TX"), ("O", "0", "US-TX", "no_nexus")),
    "nexus in a state without sales tax": (SAN_FRANCISCO, Tenant("US", "OR"), ("Z", "0", "US-OR", "")),
    "no state": (SAN_FRANCISCO, Tenant("US"), ("refused", "unknown_state")),
    "no such state": (SAN_FRANCISCO, Tenant("US", "ZZ"), ("refused", "unknown_state")),
    "resale certificate": (SAN_FRANCISCO, Tenant("US", "NY", tax_exempt="Resale"), ("E", "0", "US-NY", "exempt")),
    "abroad from the US": (SAN_FRANCISCO, Tenant("JP"), ("O", "0", "JP", "not_registered")),
    "European business from the US": (
        # Art. 196: the recipient is liable where the supplier is not established.
        SAN_FRANCISCO,
        with_number("DE", "DE136695976"),
        ("AE", "0", "DE", "VATEX-EU-AE"),
    ),
    "European consumer from the US": (SAN_FRANCISCO, Tenant("DE"), ("refused", "not_registered")),
    "European consumer from the US, non-Union scheme": (NON_UNION, Tenant("DE"), ("S", "19", "DE", "")),
    "Mexico at home": (MEXICO_CITY, Tenant("MX"), ("S", "16", "MX", "")),
    "Tijuana takes the general rate": (MEXICO_CITY, Tenant("MX", postal_code="22000"), ("S", "16", "MX", "")),
    "exported from Mexico": (MEXICO_CITY, Tenant("AR"), ("Z", "0", "MX", "export")),
    "Mexico from Berlin": (BERLIN, Tenant("MX"), ("O", "0", "MX", "VATEX-EU-O")),
    "Mexico from Berlin, registered": (
        replace(BERLIN, registrations=(*BERLIN.registrations, Registration("MX"))),
        Tenant("MX"),
        ("S", "16", "MX", ""),
    ),
    "Britain at home": (LONDON, Tenant("GB"), ("S", "20", "GB", "")),
    "registered where no rate is known": (
        replace(BERLIN, registrations=(*BERLIN.registrations, Registration("NZ"))),
        Tenant("NZ"),
        ("refused", "unknown_rate"),
    ),
    "a seller that charges none": (NO_TAX, Tenant("DE"), ("O", "0", "", "seller_charges_none")),
}


@pytest.mark.parametrize("name", CASES)
def test_each_case_is_taxed_as_the_law_says(name: str) -> None:
    seller, buyer, expected = CASES[name]
    assert said(decide(seller, buyer)) == expected


@pytest.mark.parametrize(
    ("place", "on", "rate"),
    [
        ("DE", "2020-06-30", "19"),
        ("DE", "2020-07-01", "16"),
        ("DE", "2020-12-31", "16"),
        ("DE", "2021-01-01", "19"),
        ("FI", "2024-08-31", "24"),
        ("FI", "2024-09-01", "25.5"),
        ("EE", "2025-06-30", "22"),
        ("EE", "2025-07-01", "24"),
        ("RO", "2025-07-31", "19"),
        ("RO", "2025-08-01", "21"),
        ("SK", "2024-12-31", "20"),
        ("SK", "2025-01-01", "23"),
        ("LU", "2023-12-31", "16"),
        ("LU", "2024-01-01", "17"),
        ("IE", "2021-02-28", "21"),
        ("IE", "2021-03-01", "23"),
    ],
)
def test_the_rate_is_that_of_the_day(place: str, on: str, rate: str) -> None:
    assert tables().rate(place, date.fromisoformat(on)) == Decimal(rate)


def test_a_day_before_the_first_known_rate_is_refused_not_guessed() -> None:
    assert said(decide(BERLIN, Tenant("DE"), date(1990, 1, 1))) == ("refused", "unknown_rate")


@given(
    st.sampled_from([BERLIN, BERLIN_WITH_SHOP, SAN_FRANCISCO, NON_UNION, MEXICO_CITY, LONDON, PARIS]),
    st.sampled_from([*sorted(EU_MEMBER_STATES), "US", "MX", "GB", "CH", "RE", "MC", "JP", "XX"]),
    st.sampled_from(["", "CA", "TX", "ZZ"]),
    st.sampled_from(["", "35001", "9500-321", "10115", "97400", "ABC"]),
    st.sampled_from([None, True, False]),
    st.sampled_from(["", "DE136695976"]),
    st.sampled_from(["", "Embassy"]),
)
def test_whoever_buys_gets_a_whole_decision_or_a_refusal(
    seller: SellerTax, country: str, state: str, code: str, valid: bool | None, number: str, exempt: str
) -> None:
    buyer = Tenant(country, state, code, True, number, valid if number else None, exempt)
    decided = decide(seller, buyer)
    if isinstance(decided, Fault):
        assert decided.code
        assert decided.path in {"country", "state", "postal_code", "vat_number"}
        return
    # A tax is of a place; no tax has a reason that can be printed (EN 16931, BR-AE-10, BR-E-10, BR-O-10).
    if decided.rate:
        assert decided.place
        assert decided.category is TaxCategory.STANDARD
    elif decided.category is not TaxCategory.ZERO:
        assert decided.note
    if decided.category is TaxCategory.REVERSE_CHARGE:
        assert number
        assert valid
        assert decided.place != seller.country
