"""Short ways to say treatments, sellers and buyers in tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Any

from invoicing.adapters.tax_tables import load_tax_tables
from invoicing.domain.tax.seller_tax import Registration, SellerTax
from invoicing.domain.tax.tables import TaxTables
from invoicing.domain.tax.treatment import TaxBehavior, TaxCategory, TaxTreatment

NOVEMBER = date(2026, 11, 20)


@cache
def tables() -> TaxTables:
    return load_tax_tables()


def taxed(rate: str = "19", place: str = "DE", *, inclusive: bool = False) -> TaxTreatment:
    behavior = TaxBehavior.INCLUSIVE if inclusive else TaxBehavior.EXCLUSIVE
    category = TaxCategory.STANDARD if Decimal(rate) else TaxCategory.ZERO
    return TaxTreatment(category, Decimal(rate), place, "vat", behavior=behavior)


@dataclass(frozen=True)
class Tenant:
    country: str
    state: str = ""
    postal_code: str = ""
    is_business: bool = True
    vat_number: str = ""
    vat_valid: bool | None = None
    tax_exempt: str = ""
    tax_exempt_code: str = ""


BERLIN = SellerTax("registered", "DE", registrations=(Registration("DE", "", "DE136695976"),), currency="EUR")
BERLIN_WITH_SHOP = replace(BERLIN, one_stop_shop="DE")
SAN_FRANCISCO = SellerTax(
    "registered",
    "US",
    registrations=(Registration("US", "CA"), Registration("US", "NY"), Registration("US", "OR")),
    currency="USD",
)
MEXICO_CITY = SellerTax("registered", "MX", registrations=(Registration("MX", "", "GODE561231GR8"),), currency="MXN")


def with_number(country: str, number: str, valid: bool | None = True, **facts: Any) -> Tenant:
    return Tenant(country, vat_number=number, vat_valid=valid, **facts)
