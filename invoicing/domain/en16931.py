"""The terms of EN 16931 (`BT-1`, `BG-25`, ...) of a document. Owns how a snapshot is said in the European e-invoice.

CII and UBL are both written from this, so they cannot differ. A line whose amount is not its quantity times its price
(a share of a month, a minimum, a coupon) is said as one piece at its amount, its real quantity as an attribute; a line
that lowers has a negative quantity, because prices may not be negative (BR-27).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

from core.errors import must_hold
from core.money import minor_units
from invoicing.domain.document import is_credit_note, lines_of
from invoicing.domain.xml_text import clean_xml_text

Terms = dict[str, Any]
PROFILE = "urn:cen.eu:en16931:2017"
_TYPE_INVOICE, _TYPE_CREDIT_NOTE = "380", "381"
_SEPA_TRANSFER, _TRANSFER = "58", "30"
_PLACES_MAX = 2
# UN/ECE Recommendations 20 and 21, as the code list EN 16931 names; what is not in them is counted in pieces.
_UNIT_CODES = {"GB": "E34", "hour": "HUR", "month": "MON", "day": "DAY", "minute": "MIN", "second": "SEC", "user": "IE",
               "seat": "IE", "kWh": "KWH"}  # fmt: skip
_PIECE = "C62"
_NOT_CHARGED = frozenset({"E", "AE", "K", "G", "O"})
_OUTSIDE = "O"
_VAT_NUMBER_OF_BOTH = frozenset({"AE", "K"})


@dataclass(frozen=True, slots=True)
class NoEInvoice:
    """Why a document has no e-invoice: EN 16931 cannot say it. `code` is stable."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Wording:
    """What the e-invoice says in the document's language: why a group is not charged, how a credit note works."""

    tax_note: Callable[[Mapping[str, Any]], str]
    credit_explained: str
    coupons: str
    untaxed: str


def e_invoice_terms(shown: Mapping[str, Any], wording: Wording) -> Terms | NoEInvoice:
    """Return the terms of an opened snapshot, or why there are none."""
    refused = _refuse(shown)
    if refused is not None:
        return refused
    invoice, zone = shown["invoice"], ZoneInfo(shown["time_zone"])
    taxes = _taxes(shown)
    outside = any(tax["category"] == _OUTSIDE for tax in taxes)
    paid = Decimal(shown["credits_applied"]) + Decimal(shown["amount_credited"])
    credit_note = is_credit_note(shown)
    terms: Terms = {
        "BT-1": invoice["number"],
        "BT-2": _day(invoice["issued_at"], zone),
        "BT-3": _TYPE_CREDIT_NOTE if credit_note else _TYPE_INVOICE,
        "BT-5": invoice["currency"],
        "BT-24": PROFILE,
        # A service is delivered when its period ends; German law wants the date even beside the period.
        "BT-72": _last_day(invoice["period_end"], zone),
        "BT-73": _day(invoice["period_start"], zone),
        "BT-74": _last_day(invoice["period_end"], zone),
        "BG-3": [_preceding(one, zone) for one in shown["corrects"]],
        "BG-4": _seller(shown["seller"], outside=outside),
        "BG-7": _buyer(shown["bill_to"], outside=outside),
        "BG-23": [_breakdown(tax, wording) for tax in taxes],
        "BG-25": [
            _line(number, line, shown, zone) for number, line in enumerate(_lines(shown, taxes, wording), start=1)
        ],
        "BT-106": shown["subtotal"],
        "BT-109": shown["subtotal"],
        "BT-110": shown["tax"],
        "BT-112": shown["total"],
        "BT-115": shown["total"] if credit_note else shown["amount_due"],
    }
    if not credit_note:
        terms["BT-9"] = _day(invoice["due_at"], zone)
        terms |= {"BT-113": _amount(paid, invoice["currency"])} if paid else {}
        terms |= _payment(shown)
    terms["BT-20"] = wording.credit_explained if credit_note else _clean(shown["seller"]["payment_terms"])
    if shown["annex"]["tables"]:
        terms["BG-1"] = [{"BT-22": f"SHA-256: {shown['annex']['digest']}"}]
    if any(tax["category"] == "K" for tax in taxes):
        buyer = shown["bill_to"]
        terms["BG-13"] = {"name": _clean(buyer["name"]), "country_code": buyer["country"]}
    rate = shown["exchange_rate"]
    if rate and rate["currency"] != invoice["currency"]:
        terms |= {"BT-6": rate["currency"], "BT-111": rate["tax"]}
    _check(terms)
    return terms


def _refuse(shown: Mapping[str, Any]) -> NoEInvoice | None:
    invoice, seller, buyer = shown["invoice"], shown["seller"], shown["bill_to"]
    categories = {tax["category"] for tax in _taxes(shown)}
    if not invoice.get("number"):
        return NoEInvoice("not_issued", "a draft is no invoice yet")
    if minor_units(invoice["currency"]) > _PLACES_MAX:
        return NoEInvoice("too_many_places", f"{invoice['currency']} has more than two decimal places (BR-DEC)")
    if _OUTSIDE in categories and len(categories) > 1:
        return NoEInvoice("mixed_categories", "what is not subject to tax stands beside what is (BR-O-11)")
    if _OUTSIDE not in categories and not (seller["vat_number"] or seller["tax_id"]):
        return NoEInvoice("no_seller_number", "the seller has neither VAT number nor tax number (BR-S-02)")
    if categories & _VAT_NUMBER_OF_BOTH and not (seller["vat_number"] and buyer["vat_number"]):
        return NoEInvoice("no_vat_number", "seller and buyer need VAT numbers (BR-AE-02, BR-IC-02)")
    if "G" in categories and not seller["vat_number"]:
        return NoEInvoice("no_seller_number", "the seller needs a VAT number to export (BR-G-02)")
    return None


def _taxes(shown: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the breakdown by category and rate: EN 16931 knows no places. Format 2 had no tax at all."""
    if not shown["taxes"]:
        return [
            {"category": _OUTSIDE, "rate": "0", "base": shown["subtotal"], "tax": "0", "reason_code": "", "note": ""}
        ]
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for tax in shown["taxes"]:
        key = (tax["category"], tax["rate"])
        before = merged.get(key)
        if before is None:
            merged[key] = dict(tax)
        else:
            before |= {name: str(Decimal(before[name]) + Decimal(tax[name])) for name in ("base", "tax")}
    return list(merged.values())


def _lines(shown: Mapping[str, Any], taxes: list[dict[str, Any]], wording: Wording) -> list[Mapping[str, Any]]:
    """Return the lines as e-invoices have them: each with one category and rate.

    A coupon that lowers lines of several rates is one row for people; here it is what each rate's lines lack to the
    rate's sum.
    """
    rows = lines_of(shown)
    if not shown["taxes"] or all(row.get("tax_category") for row in rows):
        return rows
    lines = [row for row in rows if row.get("tax_category")]
    for tax in taxes:
        of_rate = (row for row in lines if (row["tax_category"], row["tax_rate"]) == (tax["category"], tax["rate"]))
        missing = Decimal(tax["base"]) - sum((Decimal(row["net"]) for row in of_rate), Decimal(0))
        if missing:
            row = {"description": wording.coupons, "unit": "", "unit_amount": None, "per": 1, "quantity": "1"}
            net = {"amount": f"{missing:f}", "net": f"{missing:f}"}
            lines = [*lines, {**row, **net, "tax_category": tax["category"], "tax_rate": tax["rate"]}]
    return lines


def _breakdown(tax: Mapping[str, Any], wording: Wording) -> Terms:
    terms = {"BT-116": tax["base"], "BT-117": tax["tax"], "BT-118": tax["category"]}
    if tax["category"] != _OUTSIDE:
        terms["BT-119"] = tax["rate"]
    if tax["category"] in _NOT_CHARGED:
        terms["BT-120"] = _clean(wording.tax_note(tax)) or wording.untaxed
        if tax.get("reason_code"):
            terms["BT-121"] = tax["reason_code"]
    return terms


def _line(number: int, line: Mapping[str, Any], shown: Mapping[str, Any], zone: ZoneInfo) -> Terms:
    name, _, detail = line["description"].partition(" — ")
    net = Decimal(line.get("net") or line["amount"])
    category = line.get("tax_category") or _OUTSIDE
    quantity, price, per = _quantity_and_price(line, net, shown["invoice"]["currency"])
    terms: Terms = {
        "BT-126": str(number),
        "BT-129": f"{quantity:f}",
        "BT-130": _PIECE if price is None else _UNIT_CODES.get(line["unit"], _PIECE),
        "BT-131": _amount(net, shown["invoice"]["currency"]),
        "BT-146": f"{abs(net) if price is None else price:f}",
        "BT-151": category,
        "BT-153": _clean(name) or str(number),
    }
    if per != 1:
        terms["BT-149"] = str(per)
    if category != _OUTSIDE:
        terms["BT-152"] = line["tax_rate"]
    if detail:
        terms["BT-154"] = _clean(detail)
    if price is None and line["unit"]:
        terms["BG-32"] = [{"BT-160": "Quantity", "BT-161": _clean(f"{line['quantity']} {line['unit']}")}]
    if line.get("period"):
        terms["BT-134"] = _day(line["period"]["start"], zone)
        terms["BT-135"] = _last_day(line["period"]["end"], zone)
    return terms


def _quantity_and_price(line: Mapping[str, Any], net: Decimal, currency: str) -> tuple[Decimal, Decimal | None, int]:
    """Return quantity, price and for how many units it is, if they come to the amount; else one piece, None."""
    if line["unit_amount"] is not None:
        price, per = Decimal(line["unit_amount"]), int(line["per"])
        step = Decimal(1).scaleb(-minor_units(currency))
        for quantity in (Decimal(line["quantity"]), -Decimal(line["quantity"])):
            product = (quantity * price / per).quantize(step, ROUND_HALF_UP)
            if price >= 0 and product == net and quantity:
                return quantity, price, per
    return Decimal(-1 if net < 0 else 1), None, 1


def _seller(seller: Mapping[str, Any], *, outside: bool) -> Terms:
    party = _party(seller) | {"contacts": [{"email": seller["email"]}]}
    if seller["vat_number"] and not outside:
        party["vat_identifier"] = seller["vat_number"]
    elif seller["tax_id"]:
        party["tax_identifier"] = _clean(seller["tax_id"])
    # Something must name the seller beyond its name (BR-CO-26).
    party["legal_identifier"] = _clean(seller["tax_id"] or seller["name"])
    return party


def _buyer(buyer: Mapping[str, Any], *, outside: bool) -> Terms:
    party = _party(buyer) | {"identifiers": {None: buyer["tenant_id"]}, "contacts": [{"email": buyer["email"]}]}
    if buyer["vat_number"] and not outside:
        party["vat_identifier"] = buyer["vat_number"]
    return party


def _party(party: Mapping[str, Any]) -> Terms:
    address = [text for text in (_clean(one) for one in party["address"]) if text]
    lines = dict(zip(("addr_l1", "addr_l2"), address, strict=False))
    if address[2:]:
        lines["addr_l3"] = ", ".join(address[2:])
    found = {"name": _clean(party["name"]), "country_code": party["country"], **lines}
    for name, term in (("postal_code", "postcode"), ("city", "city"), ("state", "country_subdivision")):
        if party.get(name):
            found[term] = _clean(party[name])
    return found


def _payment(shown: Mapping[str, Any]) -> Terms:
    transfer = shown["transfer"]
    if not transfer or not Decimal(shown["amount_due"]):
        return {}
    account = transfer["accounts"][0]
    iban = account.get("iban", "").replace(" ", "")
    terms = {
        "BT-81": _SEPA_TRANSFER if iban and shown["invoice"]["currency"] == "EUR" else _TRANSFER,
        "BT-83": transfer["reference"],
        "BT-84": iban or account["account_number"],
        "BT-85": _clean(account["holder"]),
    }
    return terms | ({"BT-86": account["bic"]} if account.get("bic") else {})


def _preceding(one: Mapping[str, Any], zone: ZoneInfo) -> Terms:
    return {"BT-25": one["number"]} | ({"BT-26": _day(one["issued_at"], zone)} if one.get("issued_at") else {})


def _check(terms: Terms) -> None:
    """Stop the work unless the sums that a receiver will check hold (BR-CO-10, 13 to 16)."""
    lines = sum((Decimal(line["BT-131"]) for line in terms["BG-25"]), Decimal(0))
    tax = sum((Decimal(group["BT-117"]) for group in terms["BG-23"]), Decimal(0))
    bases = sum((Decimal(group["BT-116"]) for group in terms["BG-23"]), Decimal(0))
    subtotal, total = Decimal(terms["BT-109"]), Decimal(terms["BT-112"])
    must_hold(lines == subtotal, f"{terms['BT-1']}: lines come to {lines}, the subtotal is {subtotal}")
    must_hold(bases == subtotal, f"{terms['BT-1']}: taxed is {bases}, the subtotal is {subtotal}")
    must_hold(
        tax == Decimal(terms["BT-110"]), f"{terms['BT-1']}: tax groups come to {tax}, the tax is {terms['BT-110']}"
    )
    must_hold(subtotal + tax == total, f"{terms['BT-1']}: {subtotal} and {tax} are not {total}")
    due = total - Decimal(terms.get("BT-113", 0))
    must_hold(due == Decimal(terms["BT-115"]), f"{terms['BT-1']}: due is {due}, shown {terms['BT-115']}")


def _amount(amount: Decimal, currency: str) -> str:
    return f"{amount:.{minor_units(currency)}f}"


def _day(instant: str, zone: ZoneInfo) -> date:
    return datetime.fromisoformat(instant).astimezone(zone).date()


def _last_day(end: str, zone: ZoneInfo) -> date:
    return (datetime.fromisoformat(end) - timedelta(minutes=1)).astimezone(zone).date()


def _clean(text: str) -> str:
    """Leave out what XML 1.0 has no place for, and blanks around."""
    return clean_xml_text(text).strip()
