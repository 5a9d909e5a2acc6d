"""The e-invoice in both syntaxes, judged by the official rules of EN 16931, and read back against the snapshot."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import BrokenInvariantError
from invoicing.adapters.facturx import EInvoice, check_schema, read_terms
from invoicing.domain.document import is_credit_note, open_snapshot
from invoicing.domain.en16931 import NoEInvoice
from invoicing.render_document import make_e_invoice
from tests.invoicing.documents.samples import line, many_lines, snapshot, usual_lines
from tests.invoicing.documents.validators import broken_rules

pytestmark = pytest.mark.slow

CORRECTS = [{"number": "MB-2026-000001", "issued_at": "2026-10-03T00:00:00Z"}]
FRENCH = {"country": "FR", "bill_to": {"vat_number": "FR12345678901"}}
TWO_RATES = [
    (
        "Usage",
        [line("Hosting", "100.00"), line("Books", "50.00", rate="7"), line("Aid", "10.00", category="E", rate="0")],
    ),
    ("Coupons", [line("Ten percent", "-10.00", kind="coupon", category="", rate="")]),
]
# A month that was cut: amounts that are no product of quantity and price, and a price with many digits.
ODD_LINES = [
    ("Subscription", [line("Base — 17/31 of the period", "54.29", kind="fixed")]),
    (
        "Usage",
        [
            line("Requests", "0.33", quantity="6543", unit="request", unit_amount="0.00005"),
            line("Storage", "1.01", quantity="10.123456789012", unit="GB-month", unit_amount="0.1"),
            line("Volume — discount", "-0.55", kind="discount", quantity="1"),
            line("Minimum — up to the minimum of 100", "44.92", kind="minimum"),
        ],
    ),
]
EXEMPT = {"note_code": "exempt", "note": "school", "reason_code": "VATEX-EU-132"}
REVERSED = {"note_code": "reverse_charge", "reason_code": "VATEX-EU-AE"}
OUTSIDE = {"note_code": "outside_union", "reason_code": "VATEX-EU-O"}
CASES: dict[str, dict[str, Any]] = {
    "standard": {},
    "credits": {"credits_applied": "20.00"},
    "settled": {"credits_applied": "179.77"},
    "zero rate": {"groups": usual_lines("Z", "0")},
    "exempt": {"groups": usual_lines("E", "0"), "tax": EXEMPT},
    "reverse charge": {"groups": usual_lines("AE", "0"), "tax": REVERSED, **FRENCH},
    "intra-community": {"groups": usual_lines("K", "0"), **FRENCH},
    "export": {"groups": usual_lines("G", "0"), "country": "US"},
    "outside": {"groups": usual_lines("O", "0"), "country": "US", "tax": OUTSIDE},
    "yen": {
        "currency": "JPY",
        "places": 0,
        "groups": [("Usage", [line("A", "100", quantity="50", unit="user", unit_amount="2")])],
    },
    "dollars by account number": {"currency": "USD", "country": "US"},
    "odd lines": {"groups": ODD_LINES},
    "many lines": {"groups": many_lines(60)},
    "correction": {"corrects": CORRECTS},
    "names": {"name": "Ünï \x0b“x” <&> 🚀 שלום", "language": "pt", "country": "PT"},
}


def e_invoice_of(shown: dict[str, Any]) -> EInvoice:
    made = make_e_invoice(shown)
    assert isinstance(made, EInvoice), made
    return made


def mixed() -> dict[str, Any]:
    """Two rates, an exemption, and a coupon over all of them: 100 + 50 + 10 − 10, shared 6.25, 3.12, 0.63."""
    shown = snapshot(groups=TWO_RATES[:1])
    row = TWO_RATES[1][1][0] | {"tax_category": None, "tax_rate": None}
    bases = (("S", "19", "93.75", "17.81"), ("S", "7", "46.88", "3.28"), ("E", "0", "9.37", "0.00"))
    shown["groups"].append({"name": "Coupons", "lines": [row]})
    shown["taxes"] = [
        {"category": c, "rate": r, "base": b, "tax": t, "place": "DE", "kind": "vat", "reason_code": "", "note": ""}
        for c, r, b, t in bases
    ]
    return shown | {"subtotal": "150.00", "tax": "21.09", "total": "171.09", "amount_due": "171.09"}


def cases() -> dict[str, dict[str, Any]]:
    found = {name: snapshot(**facts) for name, facts in CASES.items()}
    for name in ("standard", "reverse charge", "outside", "odd lines"):
        found[f"credit note: {name}"] = snapshot(kind="credit_note", **({"corrects": CORRECTS} | CASES[name]))
    rate = {"currency": "USD", "rate": "1.1", "published_on": "2026-11-02", "source": "ECB", "tax": "31.57"}
    found["tax in another currency"] = {**snapshot(), "exchange_rate": rate}
    found["mixed"] = mixed()
    return found


@pytest.mark.integration
@pytest.mark.parametrize("syntax", ["cii", "ubl"])
def test_the_official_rules_find_nothing_in_any_kind_of_document(syntax: str) -> None:
    broken = {name: broken_rules(getattr(e_invoice_of(shown), syntax), syntax) for name, shown in cases().items()}
    assert {name: found for name, found in broken.items() if found} == {}


@pytest.mark.integration
@pytest.mark.parametrize("syntax", ["cii", "ubl"])
def test_a_falsified_amount_is_reported(syntax: str) -> None:
    xml: bytes = getattr(e_invoice_of(snapshot()), syntax)
    assert xml.count(b">179.77<") >= 2
    head, _, tail = xml.rpartition(b">179.77<")
    assert any("BR-CO-16" in rule for rule in broken_rules(head + b">179.78<" + tail, syntax))
    assert any("BR-CO-10" in rule for rule in broken_rules(xml.replace(b">99.00<", b">98.00<"), syntax))


@pytest.mark.parametrize("name", sorted(cases()))
@pytest.mark.parametrize("syntax", ["cii", "ubl"])
def test_what_is_read_back_is_what_the_snapshot_says(name: str, syntax: str) -> None:
    shown = open_snapshot(cases()[name])
    terms = read_terms(getattr(e_invoice_of(cases()[name]), syntax))
    credit_note = is_credit_note(shown)
    assert (terms["BT-1"], terms["BT-5"]) == (shown["invoice"]["number"], shown["invoice"]["currency"])
    assert terms["BT-3"] == ("381" if credit_note else "380")
    figures = {"BT-106": "subtotal", "BT-109": "subtotal", "BT-110": "tax", "BT-112": "total"}
    for term, figure in figures.items():
        assert Decimal(terms[term]) == Decimal(shown[figure]) >= 0, term
    assert Decimal(terms["BT-115"]) == Decimal(shown["total" if credit_note else "amount_due"])
    assert sum(Decimal(one["BT-131"]) for one in terms["BG-25"]) == Decimal(shown["subtotal"])
    assert sum(Decimal(one["BT-117"]) for one in terms["BG-23"]) == Decimal(shown["tax"])
    step = Decimal("0.01") if shown["invoice"]["currency"] != "JPY" else Decimal(1)
    for one in terms["BG-25"]:
        product = Decimal(one["BT-129"]) * Decimal(one["BT-146"]) / Decimal(one.get("BT-149") or 1)
        assert product.quantize(step, "ROUND_HALF_UP") == Decimal(one["BT-131"]), one["BT-153"]
        assert Decimal(one["BT-146"]) >= 0
    if credit_note:
        assert [one["BT-25"] for one in terms["BG-3"]] == ["MB-2026-000001"]
        assert "BT-84" not in terms


def test_both_syntaxes_say_the_same() -> None:
    made = e_invoice_of(snapshot(kind="credit_note", corrects=CORRECTS))
    cii, ubl = read_terms(made.cii), read_terms(made.ubl)
    for term in ("BT-1", "BT-2", "BT-3", "BT-72", "BT-73", "BT-74", "BT-115", "BG-3", "BG-23", "BG-4", "BG-7"):
        assert cii[term] == ubl[term], term


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"currency": "KWD", "places": 3, "groups": [("Usage", [line("A", "1.234")])]}, "too_many_places"),
        ({"groups": [("Usage", [line("A", "1.00"), line("B", "1.00", category="O", rate="0")])]}, "mixed_categories"),
        ({"groups": usual_lines("AE", "0"), "country": "FR"}, "no_vat_number"),
        ({"groups": usual_lines("G", "0"), "country": "US", "seller": {"vat_number": ""}}, "no_seller_number"),
        ({"seller": {"vat_number": "", "tax_id": ""}}, "no_seller_number"),
    ],
)
def test_what_the_standard_cannot_say_has_no_e_invoice_and_a_reason(facts: dict[str, Any], code: str) -> None:
    refused = make_e_invoice(snapshot(**facts))
    assert isinstance(refused, NoEInvoice)
    assert refused.code == code


@pytest.mark.parametrize("figure", ["subtotal", "tax", "total", "amount_due"])
def test_a_snapshot_that_does_not_add_up_stops_the_work(figure: str) -> None:
    with pytest.raises(BrokenInvariantError):
        make_e_invoice({**snapshot(), figure: "1.23"})


def test_xml_that_breaks_its_schema_stops_the_work() -> None:
    made = e_invoice_of(snapshot())
    for xml in (made.cii, made.ubl):
        with pytest.raises(BrokenInvariantError):
            check_schema(xml.replace(b"EUR", b"E<U/>R", 1))


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_no_name_breaks_the_xml(name: str, address: str) -> None:
    made = e_invoice_of(snapshot(name=f"N {name}", bill_to={"address": [address]}))
    assert read_terms(made.cii)["BG-7"]["name"].startswith("N")
    assert read_terms(made.ubl)["BG-7"]["name"].startswith("N")
