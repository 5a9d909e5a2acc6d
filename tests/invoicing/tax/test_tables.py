"""The shipped tables: complete, well-formed, replaceable, and checked against community data where that is at hand."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidInputError
from core.tax_places import EU_MEMBER_STATES, US_STATES
from invoicing.adapters.tax_tables import load_tax_tables
from invoicing.domain.tax.tables import read_tables
from tests.invoicing.tax.taxing import NOVEMBER, tables
from tests.shared_data import SHARED_DATA

REFERENCE = SHARED_DATA / "tax"
# Community data that differ from the law as the tables have it, each with the reason.
OTHER_IN_REFERENCE = {
    "AR": "6.5 % since 2013-07-01 (amendment 91)",
    "AZ": "5.6 % since 2013-06-01, when the temporary 1 % ended",
    "CA": "7.25 % since 2017-01-01, when proposition 30 ended",
    "CT": "6.35 % since 2011-07-01",
    "LA": "5 % since 2025-01-01 (act 11 of 2024)",
    "ME": "5.5 % since 2013-10-01",
    "NC": "4.75 % since 2011-07-01",
    "NJ": "6.625 % since 2018-01-01",
    "NM": "4.875 % since 2023-07-01",
    "OH": "5.75 % since 2013-09-01",
    "SD": "4.2 % since 2023-07-01",
    "UT": "6.1 % with the 1.25 % that every place adds, since 2019-04-01",
    "VA": "5.3 % with the 1 % that every place adds, since 2013-07-01",
}


def test_every_member_state_and_every_state_has_a_rate() -> None:
    assert {one for one in EU_MEMBER_STATES if tables().rate(one, NOVEMBER) is None} == set()
    assert {one for one in US_STATES if tables().rate(f"US-{one}", NOVEMBER) is None} == set()
    # VAT Directive, Art. 97: the standard rate is at least 15 %.
    assert all((tables().rate(one, NOVEMBER) or 0) >= 15 for one in EU_MEMBER_STATES)


def test_every_state_says_what_it_was_checked_against() -> None:
    checks = tables().checks
    assert set(checks) == {f"US-{state}" for state in US_STATES}
    # What could not be checked is marked, and named in docs/tax.md.
    assert {place for place, check in checks.items() if not check.rate_source} == {"US-DC"}
    assert {place for place, check in checks.items() if check.services == "unknown"} == {
        "US-AL", "US-ME", "US-NC", "US-ND", "US-NV",
    }  # fmt: skip
    for place, check in checks.items():
        assert (check.services == "unknown") == (not check.services_source), place
        assert (check.services == "no_sales_tax") == (tables().rate(place, NOVEMBER) == 0 and place != "US-AK"), place


def test_louisianas_rate_falls_in_2030() -> None:
    days = (date(2024, 12, 31), date(2025, 1, 1), date(2029, 12, 31), date(2030, 1, 1))
    assert [str(tables().rate("US-LA", day)) for day in days] == ["4.45", "5", "5", "4.75"]


def test_a_check_names_a_source_that_is_there() -> None:
    document = {
        "kind": "vat",
        "rates": {"NZ": {"2010-10-01": "15"}},
        "sources": {"a": "somebody"},
        "checks": {"NZ": {"rate": "b", "services": "perhaps", "by": "a"}},
    }
    _, faults = read_tables([("x.yaml", document)])
    assert sorted(fault.code for fault in faults) == ["unknown_services", "unknown_source"]


@pytest.mark.shared_data
@pytest.mark.parametrize("country", sorted(EU_MEMBER_STATES))
def test_standard_rates_are_those_of_the_reference_on_every_day_since_2016(country: str) -> None:
    periods = json.loads((REFERENCE / "eu_vat_rates.json").read_text(), parse_float=Decimal)["items"][country]
    dated = sorted((period["effective_from"], Decimal(period["rates"]["standard"])) for period in periods)
    day = date(2016, 1, 1)
    # The reference is of 2025-08-12.
    while day <= date(2025, 8, 12):
        expected = [rate for since, rate in dated if since <= day.isoformat()][-1]
        assert tables().rate(country, day) == expected, f"{country} on {day}"
        day += timedelta(days=1)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("country", "code"),
    [("ES", "35001"), ("ES", "38670"), ("ES", "51001"), ("ES", "52006"), ("DE", "78266"), ("DE", "27498"),
     ("GR", "63086"), ("IT", "22061"), ("IT", "23041"), ("FR", "97610"), ("AT", "6691"), ("AT", "6993"),
     ("PT", "9000-018")],
)  # fmt: skip
def test_territories_are_those_of_the_reference(country: str, code: str) -> None:
    items = json.loads((REFERENCE / "eu_vat_rates.json").read_text(), parse_float=Decimal)["items"][country]
    compact = code.replace("-", "")
    (rate,) = {
        Decimal(one["standard"])
        for period in items
        for one in period.get("exceptions", ())
        if re.fullmatch(one["postcode"], compact)
    }
    territory = tables().territory(country, code)
    assert territory is not None
    # Outside the VAT area there is no rate of the Union; the reference says 0.
    assert (tables().rate(territory.place, date(2020, 1, 1)) if territory.place else Decimal(0)) == rate


@pytest.mark.shared_data
@pytest.mark.parametrize("state", sorted(US_STATES))
def test_state_rates_are_those_of_the_reference_or_differ_for_a_reason(state: str) -> None:
    states: dict[str, Any] = json.loads(
        (REFERENCE / "sales_tax_rates.json").read_text(), parse_float=Decimal, parse_int=Decimal
    )["US"]["states"]
    expected = states.get(state, {"rate": Decimal(0)})["rate"] * 100
    ours = tables().rate(f"US-{state}", date(2025, 10, 31))
    if state in OTHER_IN_REFERENCE:
        assert ours != expected, f"{state} is no exception any more"
    else:
        assert ours == expected


@pytest.mark.shared_data
def test_mexicos_rate_is_that_of_the_reference() -> None:
    rate = json.loads((REFERENCE / "sales_tax_rates.json").read_text(), parse_float=Decimal)["MX"]["rate"]
    assert tables().rate("MX", date(2025, 10, 31)) == rate * 100


def test_a_file_of_the_same_name_takes_the_place_of_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "other_vat.yaml").write_text('kind: vat\nrates:\n  NZ: {2010-10-01: "15"}\n')
    (tmp_path / "more.yaml").write_text('kind: vat\nrates:\n  AU: {2000-07-01: "10"}\n')
    replaced = load_tax_tables(tmp_path)
    assert replaced.rate("NZ", NOVEMBER) == 15
    assert replaced.rate("AU", NOVEMBER) == 10
    assert replaced.rate("MX", NOVEMBER) is None
    assert replaced.rate("DE", NOVEMBER) == 19


@pytest.mark.parametrize(
    ("text", "path", "code"),
    [
        ("kind: vat\nrates:\n  DE: {2007-01-01: 19.5}\n", "bad.yaml: rates.DE.2007-01-01", "float_amount"),
        ('kind: vat\nrates:\n  DE: {yesterday: "19"}\n', "bad.yaml: rates.DE.yesterday", "invalid_date"),
        ('kind: vat\nrates:\n  DE: {2007-01-01: "119"}\n', "bad.yaml: rates.DE.2007-01-01", "invalid_rate"),
        ('kind: vat\nrates:\n  Germany: {2007-01-01: "19"}\n', "bad.yaml: rates.Germany", "unknown_place"),
        ("kind: vat\nrates:\n  DE: {}\n", "bad.yaml: rates.DE", "missing_field"),
        ('kind: levy\nrates:\n  XX: {2007-01-01: "19"}\n', "bad.yaml: kind", "unknown_kind"),
        ("territories:\n  X: {parts: [{name: A}]}\n", "bad.yaml: territories.X.parts[0].postal_codes", "invalid_text"),
        ('territories:\n  X: {parts: [{name: A, place: X-A, postal_codes: ["1"]}]}\n', "territories.X", "unknown_rate"),
        ("territories:\n  DE: {}\n", "eu_territories.yaml: territories.DE", "duplicate_place"),
        ("rate: 19\n", "bad.yaml: rate", "unknown_field"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_with_its_place(tmp_path: Path, text: str, path: str, code: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    needed = ("PT-20", "PT-30", "AT-JM")
    (tmp_path / "eu_vat.yaml").write_text(
        "kind: vat\nrates:\n" + "".join(f'  {place}: {{2014-01-01: "19"}}\n' for place in needed)
    )
    with pytest.raises(InvalidInputError) as refused:
        load_tax_tables(tmp_path)
    assert (path, code) in {(fault.path, fault.code) for fault in refused.value.faults}


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as refused:
        load_tax_tables(tmp_path / "absent")
    assert refused.value.faults[0].code == "unreadable_file"


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "rates", "territories", "DE", "parts", "2020-01-01"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(DOCUMENTS)
def test_any_document_is_read_or_refused_with_faults(document: object) -> None:
    _, faults = read_tables([("file.yaml", document)])
    assert all(fault.code and fault.reason for fault in faults)
