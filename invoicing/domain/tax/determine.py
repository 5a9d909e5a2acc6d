"""Decides how a supply of electronic services is taxed: who sells, who buys where, on which day. No rate is guessed.

What we sell is supplied electronically, so wherever it is taxed, that is the customer's place: VAT Directive
2006/112/EC, Art. 44 (businesses) and 58 (consumers). There is no threshold here: whoever is in the One-Stop-Shop taxes
at the customer's place from the first euro (Art. 59c(3)), and who is not, cannot sell to consumers of another member
state with this. A reference such as "Art. 196" is to that directive.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Protocol

from core.errors import Fault
from core.tax_places import EU_MEMBER_STATES, FRENCH_OVERSEAS, US_STATES, tax_country
from invoicing.domain.tax.seller_tax import SellerTax
from invoicing.domain.tax.tables import TaxTables
from invoicing.domain.tax.treatment import TaxCategory, TaxTreatment

_OUTSIDE_CODE = "VATEX-EU-O"
_REVERSE_CODE = "VATEX-EU-AE"
_REVERSE_NOTE = "Reverse charge: VAT is to be accounted for by the recipient (Art. 196 of Directive 2006/112/EC)."
_OUTSIDE_NOTE = "Not subject to VAT: the place of supply is outside the European Union."
_EXPORT_NOTE = "Exported services at 0 % (LIVA, Art. 29)."


class TaxedBuyer(Protocol):
    """What of a tenant decides how it is taxed."""

    @property
    def country(self) -> str:
        """ISO 3166-1 alpha-2."""
        ...

    @property
    def state(self) -> str:
        """State or province, without the country; "" if none was given."""
        ...

    @property
    def postal_code(self) -> str:
        """Postal code, "" if none was given."""
        ...

    @property
    def is_business(self) -> bool:
        """Whether the tenant buys as a business."""
        ...

    @property
    def vat_number(self) -> str:
        """VAT number in its compact form, "" if none was given."""
        ...

    @property
    def vat_valid(self) -> bool | None:
        """What VIES said of the number last; None: not checked yet."""
        ...

    @property
    def tax_exempt(self) -> str:
        """Why the tenant is exempt from tax, "" if it is not."""
        ...

    @property
    def tax_exempt_code(self) -> str:
        """The VATEX code of the exemption, "" if none was given."""
        ...


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a buyer is taxed: its country, the name of its part in the tables, and whether VAT of the Union reaches."""

    country: str
    name: str
    in_union: bool


def determine_tax(seller: SellerTax, buyer: TaxedBuyer, on: date, tables: TaxTables) -> TaxTreatment | Fault:
    """Return how a supply with this tax point is taxed, or why that cannot be said.

    Codes: `unknown_place`, `unknown_state`, `unsupported_place`, `not_registered`, `unchecked_vat_number`,
    `unknown_rate`.
    """
    if seller.regime == "none":
        return _none(seller, note=seller.reason, code="seller_charges_none")
    place = _place_of(buyer, tables)
    if isinstance(place, Fault):
        return place
    if place.in_union:
        return _in_union(seller, buyer, place, on, tables)
    if place.country == "US":
        return _in_us(seller, buyer, on, tables)
    if seller.country == "FR" and (place.country in FRENCH_OVERSEAS or place.country == "FR"):
        return Fault("unsupported_place", "French law taxes its overseas parts at rates of their own", "country")
    if place.country in EU_MEMBER_STATES:
        # A territory outside the VAT area (Art. 6); its own tax, such as the Canaries' IGIC, is not ours to charge.
        return _none(seller, place=place.name, note=_OUTSIDE_NOTE, code="outside_union", reason_code=_OUTSIDE_CODE)
    if seller.registered_in(place.country) is not None:
        return _taxed(seller, buyer, place.name, on, tables)
    if seller.country == "MX":
        return TaxTreatment(
            TaxCategory.ZERO, place="MX", kind="vat", note_code="export", note=_EXPORT_NOTE, behavior=seller.prices
        )
    if seller.country in EU_MEMBER_STATES:
        return _none(seller, place=place.name, note=_OUTSIDE_NOTE, code="outside_union", reason_code=_OUTSIDE_CODE)
    return _not_registered(seller, place.name)


def _place_of(buyer: TaxedBuyer, tables: TaxTables) -> _Place | Fault:
    country = tax_country(buyer.country)
    territory = tables.territory(country, buyer.postal_code) if buyer.postal_code else None
    if territory is not None:
        return _Place(country, territory.place or country, in_union=bool(territory.place))
    return _Place(country, country, in_union=country in EU_MEMBER_STATES)


def _in_union(seller: SellerTax, buyer: TaxedBuyer, place: _Place, on: date, tables: TaxTables) -> TaxTreatment | Fault:
    if place.country == seller.country:
        return _taxed_in_union(seller, buyer, place, on, tables)
    if buyer.vat_number and buyer.vat_valid is None and not seller.trust_unchecked:
        reason = f"{buyer.vat_number} was not checked yet (meterbook tax check-vat): whether to tax depends on it"
        return Fault("unchecked_vat_number", reason, "vat_number")
    if buyer.vat_number and buyer.vat_valid is not False:
        return TaxTreatment(
            TaxCategory.REVERSE_CHARGE,
            place=place.country,
            kind="vat",
            reason_code=_REVERSE_CODE,
            note_code="reverse_charge",
            note=_REVERSE_NOTE,
            behavior=seller.prices,
        )
    # Without a valid number a customer is taxed as a consumer (Implementing Regulation 282/2011, Art. 18(2)).
    if seller.one_stop_shop or seller.registered_in(place.country):
        return _taxed_in_union(seller, buyer, place, on, tables)
    reason = f"the buyer has no valid VAT number, and the seller no registration in {place.country} nor One-Stop-Shop"
    return Fault("not_registered", reason, "country")


def _taxed_in_union(
    seller: SellerTax, buyer: TaxedBuyer, place: _Place, on: date, tables: TaxTables
) -> TaxTreatment | Fault:
    if not buyer.postal_code and place.country in tables.needs_postal_code:
        reason = f"parts of {place.country} are taxed otherwise: the tenant needs a postal code"
        return Fault("unknown_place", reason, "postal_code")
    return _taxed(seller, buyer, place.name, on, tables)


def _in_us(seller: SellerTax, buyer: TaxedBuyer, on: date, tables: TaxTables) -> TaxTreatment | Fault:
    if not any(one.country == "US" for one in seller.registrations):
        if seller.country in EU_MEMBER_STATES:
            return _none(seller, place="US", note=_OUTSIDE_NOTE, code="outside_union", reason_code=_OUTSIDE_CODE)
        return _not_registered(seller, "US")
    if buyer.state not in US_STATES:
        return Fault("unknown_state", f"a tenant in the US needs its state, got {buyer.state!r}", "state")
    place = f"US-{buyer.state}"
    if seller.registered_in("US", buyer.state) is None:
        return _none(seller, place=place, note=f"No sales tax: the seller has no nexus in {place}.", code="no_nexus")
    return _taxed(seller, buyer, place, on, tables)


def _taxed(seller: SellerTax, buyer: TaxedBuyer, place: str, on: date, tables: TaxTables) -> TaxTreatment | Fault:
    """Return the tax of a place; an exemption lifts only a tax that would be due."""
    rate, kind = tables.rate(place, on), tables.kinds.get(place, "")
    if rate is None:
        return Fault("unknown_rate", f"no rate of {place} is known for {on.isoformat()}", "country")
    if buyer.tax_exempt:
        return TaxTreatment(
            TaxCategory.EXEMPT,
            place=place,
            kind=kind,
            reason_code=buyer.tax_exempt_code,
            note_code="exempt",
            note=buyer.tax_exempt,
            behavior=seller.prices,
        )
    category = TaxCategory.STANDARD if rate else TaxCategory.ZERO
    return TaxTreatment(category, rate, place, kind, behavior=seller.prices)


def _none(seller: SellerTax, *, note: str, code: str, place: str = "", reason_code: str = "") -> TaxTreatment:
    return TaxTreatment(
        TaxCategory.OUTSIDE,
        place=place,
        reason_code=reason_code,
        note_code=code,
        note=note,
        behavior=seller.prices,
    )


def _not_registered(seller: SellerTax, place: str) -> TaxTreatment:
    return _none(seller, place=place, note=f"No tax: the seller is not registered in {place}.", code="not_registered")
