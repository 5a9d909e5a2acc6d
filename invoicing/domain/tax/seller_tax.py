"""Where the seller charges tax: a part of the seller's file, read and checked fault by fault."""

from __future__ import annotations

from dataclasses import dataclass

from core.money import MINOR_UNITS
from core.tax_places import EU_MEMBER_STATES, US_STATES, read_vat_number
from invoicing.domain.tax.treatment import TaxBehavior
from rating.domain.fields import Fields

_REGIMES = frozenset({"none", "registered"})
_UNCHECKED = frozenset({"refuse", "reverse_charge"})


@dataclass(frozen=True, slots=True)
class Registration:
    """Where the seller is registered for tax: a country, in the US a state; `number` as it stands on invoices."""

    country: str
    state: str = ""
    number: str = ""


@dataclass(frozen=True, slots=True)
class SellerTax:
    """How the seller charges tax.

    With regime `none` nothing is charged, and `reason` says so on every invoice. With `registered` tax is charged in
    the places of `registrations`, and by the One-Stop-Shop of `one_stop_shop` (a member state, "" for none) in the rest
    of the Union. `country` is where the seller is established, `prices` whether plans' prices hold the tax already.
    `trust_unchecked` lets a VAT number of the right form do before VIES confirmed it. `currency` is that of the
    country's tax returns: invoices in others show their tax in it too.
    """

    regime: str
    country: str = ""
    reason: str = ""
    prices: TaxBehavior = TaxBehavior.EXCLUSIVE
    registrations: tuple[Registration, ...] = ()
    one_stop_shop: str = ""
    trust_unchecked: bool = False
    currency: str = ""

    def registered_in(self, country: str, state: str = "") -> Registration | None:
        """Return the registration in a country or state."""
        return next((one for one in self.registrations if (one.country, one.state) == (country, state)), None)

    @property
    def vat_number(self) -> str:
        """The number that stands on invoices: of the country of establishment, else the first in the Union, else ""."""
        home = self.registered_in(self.country)
        if home is not None:
            return home.number
        return next((one.number for one in self.registrations if one.country in EU_MEMBER_STATES), "")


NO_TAX = SellerTax("none", reason="No tax is charged.")


def read_seller_tax(fields: Fields, country: str) -> SellerTax:
    """Read the seller's `tax` section; faults are noted in `fields`. `country` is where the seller is established."""
    regime = fields.choice("regime", _REGIMES, "unknown_regime")
    if regime != "registered":
        tax = SellerTax("none", country, reason=fields.text("reason", max_length=300))
        fields.finish()
        return tax
    registrations = tuple(
        _read_registration(Fields(item, fields.at(f"registrations[{index}]"), fields.faults))
        for index, item in enumerate(fields.items("registrations"))
    )
    shop = fields.text("one_stop_shop", default="")
    if shop and shop not in EU_MEMBER_STATES:
        fields.fault("one_stop_shop", "invalid_country", "expected the member state of identification, such as DE")
    if shop and country in EU_MEMBER_STATES and shop != country:
        # VAT Directive, Art. 369a: whoever is established in the Union identifies where it is established.
        fields.fault("one_stop_shop", "invalid_country", f"a seller established in {country} identifies in {country}")
    if country in EU_MEMBER_STATES and not any(one.country == country for one in registrations):
        fields.fault("registrations", "missing_registration", f"a seller established in {country} is registered there")
    if len({(one.country, one.state) for one in registrations}) != len(registrations):
        fields.fault("registrations", "duplicate_registration", "a place stands here twice")
    prices = TaxBehavior(fields.choice("prices", [one.value for one in TaxBehavior], "unknown_behavior", "exclusive"))
    unchecked = fields.choice("unchecked_vat_number", _UNCHECKED, "unknown_choice", "refuse")
    currency = fields.choice("currency", MINOR_UNITS, "unknown_currency")
    fields.finish()
    return SellerTax("registered", country, "", prices, registrations, shop, unchecked == "reverse_charge", currency)


def _read_registration(fields: Fields) -> Registration:
    country, state, number = fields.text("country"), fields.text("state", default=""), fields.text("number", default="")
    if country == "US":
        if state not in US_STATES:
            fields.fault("state", "unknown_state", "expected a state of the US such as CA")
    elif state:
        fields.fault("state", "unknown_state", "only the US has states with taxes of their own here")
    if country in EU_MEMBER_STATES:
        found = read_vat_number(number, country)
        if isinstance(found, tuple):
            fields.fault("number", *found)
        else:
            number = found
    fields.finish()
    return Registration(country, state, number)
