"""A tenant: who uses the product and gets the invoice. Owns what a tenant's particulars may look like."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from core.calendar import check_calendar
from core.errors import Fault, InvalidInputError
from core.ids import TENANT_PATTERN
from core.money import MINOR_UNITS
from core.tax_places import US_STATES, read_vat_number

_COUNTRY = re.compile(r"[A-Z]{2}")
# One @, no spaces, a dot in the domain: whether the address works is known only by writing to it.
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+")
_MAX_TEXT = 200
_STATE = re.compile(r"[A-Z0-9]{1,3}")
_POSTAL_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 -]{0,11}")
_VATEX = re.compile(r"VATEX-[A-Z]{2}-[A-Z0-9-]{1,20}")
LANGUAGES = ("en", "es", "pt", "de")


@dataclass(frozen=True, slots=True)
class Tenant:
    """`country` is ISO 3166-1 alpha-2, `currency` ISO 4217; `address` may have several lines or be empty.

    `time_zone` (IANA name) and `billing_anchor_day` (1 to 31) are the tenant's calendar, see `core.calendar`. `state`
    (its code without the country's), `postal_code`, `is_business` and `vat_number` decide how the tenant is taxed;
    `tax_exempt` is the reason for which it is not, as it stands on invoices, `tax_exempt_code` its VATEX code.
    `language` is that of its documents.
    """

    tenant_id: str
    name: str
    email: str
    country: str
    currency: str
    address: str = ""
    time_zone: str = "UTC"
    billing_anchor_day: int = 1
    state: str = ""
    postal_code: str = ""
    is_business: bool = True
    vat_number: str = ""
    tax_exempt: str = ""
    tax_exempt_code: str = ""
    language: str = "en"


def check_tenant(tenant: Tenant) -> Tenant:
    """Return the tenant, its VAT number in the compact form; raises `InvalidInputError` with every fault."""
    faults = []
    if not TENANT_PATTERN.fullmatch(tenant.tenant_id):
        reason = "a tenant's id is up to 64 letters, digits, . _ -, and starts with a letter or digit"
        faults.append(Fault("invalid_tenant_id", reason, "tenant_id"))
    if not tenant.name.strip() or len(tenant.name) > _MAX_TEXT or not tenant.name.isprintable():
        faults.append(Fault("invalid_text", f"expected 1 to {_MAX_TEXT} printable characters", "name"))
    if len(tenant.email) > _MAX_TEXT or not tenant.email.isprintable() or not _EMAIL.fullmatch(tenant.email):
        faults.append(Fault("invalid_email", "expected an address such as billing@example.com", "email"))
    lines = tenant.address.split("\n")
    if len(lines) > 6 or any(len(line) > _MAX_TEXT or not line.isprintable() for line in lines):
        faults.append(Fault("invalid_text", "expected up to 6 lines of printable characters", "address"))
    if not _COUNTRY.fullmatch(tenant.country):
        faults.append(Fault("invalid_country", "expected two capital letters (ISO 3166), such as DE", "country"))
    if tenant.currency not in MINOR_UNITS:
        faults.append(Fault("unknown_currency", "expected a current code of ISO 4217, such as EUR", "currency"))
    try:
        check_calendar(tenant.time_zone, tenant.billing_anchor_day)
    except InvalidInputError as refused:
        faults += refused.faults
    vat_number = ""
    if tenant.vat_number:
        found = read_vat_number(tenant.vat_number, tenant.country)
        if isinstance(found, tuple):
            faults.append(Fault(found[0], found[1], "vat_number"))
        else:
            vat_number = found
    faults += _tax_faults(tenant)
    if faults:
        raise InvalidInputError(faults)
    return replace(tenant, vat_number=vat_number)


def _tax_faults(tenant: Tenant) -> list[Fault]:
    faults = []
    if tenant.state and tenant.country == "US" and tenant.state not in US_STATES:
        faults.append(Fault("unknown_state", "expected a state of the US by its two letters, such as CA", "state"))
    elif tenant.state and not _STATE.fullmatch(tenant.state):
        reason = "expected the code of a state or province without the country's, such as CA"
        faults.append(Fault("unknown_state", reason, "state"))
    if tenant.postal_code and not _POSTAL_CODE.fullmatch(tenant.postal_code):
        faults.append(Fault("invalid_postal_code", "expected up to 12 letters, digits, spaces, -", "postal_code"))
    if tenant.vat_number and not tenant.is_business:
        faults.append(Fault("vat_number_of_consumer", "a consumer has no VAT number", "vat_number"))
    if len(tenant.tax_exempt) > _MAX_TEXT or not tenant.tax_exempt.isprintable():
        faults.append(Fault("invalid_text", f"expected up to {_MAX_TEXT} printable characters", "tax_exempt"))
    if tenant.tax_exempt_code and not _VATEX.fullmatch(tenant.tax_exempt_code):
        reason = "expected a code of the VATEX list, such as VATEX-EU-151"
        faults.append(Fault("invalid_exemption_code", reason, "tax_exempt_code"))
    if tenant.tax_exempt_code and not tenant.tax_exempt.strip():
        faults.append(Fault("missing_field", "an exemption needs its reason in words", "tax_exempt"))
    if tenant.language not in LANGUAGES:
        faults.append(Fault("unknown_language", f"expected one of {', '.join(LANGUAGES)}", "language"))
    return faults
