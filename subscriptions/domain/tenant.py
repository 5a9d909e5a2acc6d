"""A tenant: who uses the product and gets the invoice. Owns what a tenant's particulars may look like."""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.calendar import check_calendar
from core.errors import Fault, InvalidInputError
from core.ids import TENANT_PATTERN
from core.money import MINOR_UNITS

_COUNTRY = re.compile(r"[A-Z]{2}")
# One @, no spaces, a dot in the domain: whether the address works is known only by writing to it.
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+")
_MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class Tenant:
    """`country` is ISO 3166-1 alpha-2, `currency` ISO 4217; `address` may have several lines or be empty.

    `time_zone` (IANA name) and `billing_anchor_day` (1 to 31) are the tenant's calendar, see `core.calendar`.
    """

    tenant_id: str
    name: str
    email: str
    country: str
    currency: str
    address: str = ""
    time_zone: str = "UTC"
    billing_anchor_day: int = 1


def check_tenant(tenant: Tenant) -> Tenant:
    """Return the tenant; raises `InvalidInputError` with every fault."""
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
    if faults:
        raise InvalidInputError(faults)
    return tenant
