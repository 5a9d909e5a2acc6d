"""The seller as printed on invoices: configuration, read from YAML and checked fault by fault."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from stdnum import iban as iban_rules

from core.bank_account import BankAccount
from core.errors import Fault, InvalidInputError
from core.money import MINOR_UNITS
from invoicing.domain.document import LANGUAGES
from invoicing.domain.tax.seller_tax import NO_TAX, SellerTax, read_seller_tax
from rating.domain.fields import Fields

_PREFIX = re.compile(r"[A-Z][A-Z0-9]{0,9}")
_PICTURES = ("data:image/png;base64,", "data:image/svg+xml;base64,")
_LOGO_MAX = 33_000
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
# ISO 9362: institution, country, location, and perhaps a branch.
_BIC = re.compile(r"[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?")


# Without slots, so that its document is made once.
@dataclass(frozen=True)
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
    # Where transfers go; an invoice shows those in its currency (`core.bank_account.transfer_details`).
    bank_accounts: tuple[BankAccount, ...] = ()
    # Where tax is charged.
    tax: SellerTax = NO_TAX
    # A picture as a `data:` URI, so that a document needs no other file; and texts in other languages than these.
    logo: str = ""
    translations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def as_document(self) -> dict[str, Any]:
        """Return the seller as JSON for the snapshot."""
        return dict(self._document)

    @cached_property
    def _document(self) -> dict[str, Any]:
        document = {**asdict(self), "address": list(self.address)}
        del document["bank_accounts"], document["tax"]
        document["vat_number"] = self.tax.vat_number
        return document


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
        bank_accounts=_read_accounts(fields),
        tax=_read_tax(fields),
        logo=_read_logo(fields),
        translations=_read_translations(fields),
    )
    fields.finish()
    if faults:
        raise InvalidInputError([Fault(fault.code, fault.reason, f"{file}: {fault.path}") for fault in faults])
    return seller


def _read_logo(fields: Fields) -> str:
    if not fields.has("logo"):
        return ""
    logo = fields.text("logo", max_length=_LOGO_MAX)
    if logo and not logo.startswith(_PICTURES):
        fields.fault("logo", "invalid_logo", "expected a PNG or SVG of at most 24 kB")
    return logo


def _read_translations(fields: Fields) -> dict[str, dict[str, str]]:
    found = {}
    for language, texts in fields.mapping("translations").items():
        if language not in LANGUAGES:
            fields.fault(f"translations.{language}", "unknown_language", f"documents speak {', '.join(LANGUAGES)}")
        below = Fields(texts, fields.at(f"translations.{language}"), fields.faults)
        found[language] = {
            name: below.text(name, max_length=600) for name in ("payment_terms", "footer") if below.has(name)
        }
        below.finish()
    return found


def _read_tax(fields: Fields) -> SellerTax:
    if not fields.has("tax"):
        # Silence would be an answer that nobody gave.
        fields.fault("tax", "missing_field", "say how tax is charged: regime none with a reason, or registered")
        return NO_TAX
    return read_seller_tax(Fields(fields.raw("tax"), "tax", fields.faults), str(fields.raw("country")))


def _read_accounts(fields: Fields) -> tuple[BankAccount, ...]:
    accounts: list[BankAccount] = []
    for index, item in enumerate(fields.items("bank_accounts")):
        account = _read_account(Fields(item, f"{fields.at('bank_accounts')}[{index}]", fields.faults))
        if account.account_id in {each.account_id for each in accounts}:
            fields.fault(f"bank_accounts[{index}]", "duplicate_account", f"{account.account_id} stands here twice")
        accounts.append(account)
    return tuple(accounts)


def _read_account(fields: Fields) -> BankAccount:
    iban = "".join(fields.text("iban", default="").split()).upper()
    number = fields.text("account_number", default="")
    if iban and not iban_rules.is_valid(iban):
        fields.fault("iban", "invalid_iban", f"{iban} is no IBAN: its country, length or check digits are wrong")
    if not iban and not number:
        fields.fault("", "missing_field", "an account has an iban or an account_number")
    account = BankAccount(
        currency=fields.choice("currency", MINOR_UNITS, "unknown_currency"),
        holder=fields.text("holder"),
        bank=fields.text("bank"),
        iban=iban,
        bic=fields.text("bic", default="").replace(" ", "").upper(),
        account_number=number,
        routing=fields.text("routing", default=""),
    )
    if account.bic and not _BIC.fullmatch(account.bic):
        fields.fault("bic", "invalid_bic", "expected 8 or 11 letters and digits, such as COBADEFF")
    fields.finish()
    return account
