"""The seller's bank accounts. Owns by which names a bank may call one, and what an invoice says of where to pay."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stdnum import iban as iban_rules

from core.creditor_reference import creditor_reference, print_reference

_OTHER = re.compile(r"[^A-Z0-9]")


@dataclass(frozen=True, slots=True)
class BankAccount:
    """An account of the seller in one currency: by its IBAN, or by routing and account number where there is none.

    `iban` is compact, `routing` what the country uses (ABA routing number, sort code, CLABE's bank part, BLZ).
    """

    currency: str
    holder: str
    bank: str
    iban: str = ""
    bic: str = ""
    account_number: str = ""
    routing: str = ""

    @property
    def account_id(self) -> str:
        """The account's name in our books, such as `DE89370400440532013000/EUR`."""
        name = self.iban or "-".join(part for part in (self.routing, self.account_number) if part)
        return f"{name}/{self.currency}"

    def is_called(self, name: str) -> bool:
        """Tell whether a bank may mean this account: IBAN, number, or bank and number, with its currency or without."""
        plain = _OTHER.sub("", name.upper())
        own = [self.iban, self.account_number]
        own += [bank + self.account_number for bank in (self.routing, self.bic) if bank and self.account_number]
        names = {_OTHER.sub("", each.upper()) for each in own if each}
        return plain in names or plain.removesuffix(self.currency) in names

    def as_document(self) -> dict[str, str]:
        """Return what an invoice shows of it; what there is none of is left out."""
        shown = {
            "holder": self.holder,
            "bank": self.bank,
            "iban": iban_rules.format(self.iban) if self.iban else "",
            "bic": self.bic,
            "account_number": self.account_number,
            "routing": self.routing,
            "currency": self.currency,
        }
        return {name: text for name, text in shown.items() if text}


def transfer_details(number: str, currency: str, accounts: Iterable[BankAccount]) -> dict[str, Any] | None:
    """Return how to pay an invoice by transfer: the accounts in its currency and its reference; None without any."""
    own = [account.as_document() for account in accounts if account.currency == currency]
    if not own:
        return None
    reference = creditor_reference(number)
    return {"reference": reference, "reference_printed": print_reference(reference), "accounts": own}
