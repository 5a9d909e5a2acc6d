"""The code that a banking app scans to pay an invoice (EPC069-12, "GiroCode"). Owns when there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from invoicing.domain.document import Mark, is_credit_note

_LARGEST = Decimal("999999999.99")


@dataclass(frozen=True, slots=True)
class TransferOrder:
    """A SEPA transfer as a code carries it. `amount` is in EUR, `reference` a creditor reference (ISO 11649)."""

    holder: str
    iban: str
    amount: Decimal
    reference: str


def transfer_order(shown: Mapping[str, Any], mark: Mark) -> TransferOrder | None:
    """Return what the code of an opened snapshot says.

    None where nothing is to be paid, or not in EUR to an IBAN: the code knows nothing else.
    """
    transfer, due = shown["transfer"], Decimal(shown["amount_due"])
    currency = shown["invoice"]["currency"]
    if mark or is_credit_note(shown) or transfer is None or currency != "EUR" or not 0 < due <= _LARGEST:
        return None
    account = next((one for one in transfer["accounts"] if one.get("iban")), None)
    if account is None:
        return None
    # The code has room for 70 characters of a name.
    return TransferOrder(account["holder"][:70], account["iban"].replace(" ", ""), due, transfer["reference"])
