"""The seller as printed on invoices: configuration, read from YAML and checked fault by fault."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from core.errors import Fault, InvalidInputError
from rating.domain.fields import Fields

_PREFIX = re.compile(r"[A-Z][A-Z0-9]{0,9}")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class Seller:
    """Who issues the invoice. `number_prefix` starts the numbers (`MB-2026-000123`), `colour` is `#rrggbb`."""

    name: str
    address: tuple[str, ...]
    country: str
    email: str
    website: str
    tax_id: str
    number_prefix: str
    colour: str
    payment_terms: str
    footer: str

    def as_document(self) -> dict[str, Any]:
        """Return the seller as JSON for the snapshot."""
        return {**asdict(self), "address": list(self.address)}


def read_seller(document: object, file: str) -> Seller:
    """Read a seller; raises `InvalidInputError` with every fault and its path in the file."""
    faults: list[Fault] = []
    fields = Fields(document, "", faults)
    prefix = fields.text("number_prefix")
    if prefix and not _PREFIX.fullmatch(prefix):
        fields.fault("number_prefix", "invalid_name", "expected 1 to 10 capital letters and digits, such as MB")
    colour = fields.text("colour", default="#0f766e")
    if not _COLOUR.fullmatch(colour):
        fields.fault("colour", "invalid_colour", "expected a colour such as '#0f766e'")
    address = fields.items("address")
    if not address or not all(isinstance(line, str) and line.isprintable() for line in address):
        fields.fault("address", "invalid_text", "expected a list of lines of text")
    seller = Seller(
        name=fields.text("name"),
        address=tuple(str(line) for line in address),
        country=fields.text("country"),
        email=fields.text("email"),
        website=fields.text("website", default=""),
        tax_id=fields.text("tax_id"),
        number_prefix=prefix,
        colour=colour,
        payment_terms=fields.text("payment_terms", max_length=600),
        footer=fields.text("footer", max_length=600),
    )
    fields.finish()
    if faults:
        raise InvalidInputError([Fault(fault.code, fault.reason, f"{file}: {fault.path}") for fault in faults])
    return seller
